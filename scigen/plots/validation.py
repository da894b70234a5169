"""A look at a training on its way: validation samples as they were, beside members and spread as they are now."""

from pathlib import Path

import numpy as np

from scigen.plots import style

ROWS = 3


def figure(truth: np.ndarray, members: np.ndarray, name: str, path: str | Path) -> Path:
    """The first samples of an ensemble, each a row: truth, two members, mean, spread, of the first channel.

    The spread's scale ends at a quarter of the truth's range, so that an ensemble without spread is dark.

    Args:
        truth: (T, C, *S).
        members: (T, M, C, *S), at least two of them.
        name: of the first channel.
        path: of the picture, which is put into its place when it is whole.

    Returns:
        The path.
    """
    path = Path(path)
    rows = min(ROWS, len(truth))
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    with style.canvas(8.4, 1.75 * rows + 0.4) as page:
        axes = page.subplots(rows, 5, squeeze=False)
        for t, row in enumerate(axes):
            true, own = truth[t, 0].astype(float), members[t, :, 0].astype(float)
            panels = {"truth": true, "member 0": own[0], "member 1": own[1], "mean": own.mean(0)}
            low, high = float(np.nanmin(true)), float(np.nanmax(true))
            for ax, (title, values) in zip(row, (panels | {"spread": own.std(0, ddof=1)}).items(), strict=True):
                if true.ndim == 1:
                    ax.plot(values, color=style.ROLES["student"], linewidth=1)
                else:
                    scale = (
                        {"cmap": "magma", "vmin": 0, "vmax": (high - low) / 4}
                        if title == "spread"
                        else {"vmin": low, "vmax": high}
                    )
                    ax.imshow(_slice(values), **scale)
                ax.set_xticks([]), ax.set_yticks([]), ax.grid(False)
                if t == 0:
                    ax.set_title(title, fontweight="normal", fontsize=9)
        page.suptitle(name, fontsize=9)
        style.save(page, partial, dpi=100)
    return partial.replace(path)


def _slice(values: np.ndarray) -> np.ndarray:
    """The middle of a volume along its first axes, so that two stay."""
    while values.ndim > 2:
        values = values[len(values) // 2]
    return values
