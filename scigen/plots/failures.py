"""Failure cases: the samples where an ensemble does worst, shown, for archives of any field."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from scigen.plots import style


def figure(
    truth: xr.DataArray, samples: xr.DataArray, contender: str, cases: Sequence[tuple[int, float]], path: str | Path
) -> tuple[str, Path]:
    """The worst samples of a contender, each a row: truth, members, mean, spread, error; of labels, members alone.

    Args:
        truth: dims (sample, *S), one variable.
        samples: dims (sample, member, *S), the same samples.
        contender: whose they are.
        cases: positions of samples and their scores, the worst first.
        path: of the picture.

    Returns:
        (caption, path).
    """
    name = str(truth.name)
    label = truth.dtype.kind in "ui"
    columns = ["truth", "member 1", "member 2"] + ([] if label else ["mean", "spread", "|mean − truth|"])
    height, width = samples.shape[-2:]
    tall = float(np.clip(1.75 * height / width, 0.8, 3.0))
    with style.canvas(1.95 * len(columns) + 0.9, (tall + 0.32) * len(cases) + 0.3) as page:
        axes = page.subplots(len(cases), len(columns), squeeze=False)
        for i, (row, (index, score)) in enumerate(zip(axes, cases, strict=True)):
            shown = _panels(_slice(truth[index].values, 0), _slice(samples[index].values, 1), label)
            low, high = np.nanmin(shown[0]), np.nanmax(shown[0])
            reach = float(max(np.nanmax(shown[-1]), 1e-30)) if not label else 1.0
            for j, (ax, field) in enumerate(zip(row, shown, strict=False)):
                scale = {"vmin": low, "vmax": high, "cmap": "viridis"}
                image = ax.imshow(field, **(scale if j < 4 else {"vmin": 0, "vmax": reach, "cmap": "magma"}))
                ax.set_xticks([]), ax.set_yticks([]), ax.grid(False)
                if i == 0:
                    ax.set_title(columns[j], fontweight="normal", fontsize=9)
                if j in (3, 5):
                    page.colorbar(image, ax=ax, aspect=18, pad=0.02, shrink=0.9).ax.tick_params(labelsize=7)
            for ax in row[len(shown) :]:
                ax.set_visible(False)
            row[0].set_ylabel(f"{_called(truth, index)}\nscore {score:.3g}", fontsize=8)
        style.save(page, path)
    names = ", ".join(_called(truth, index) for index, _ in cases)
    kind = "largest difference of a label's share" if label else "fair CRPS"
    middle = ", the middle slice" if truth.ndim > 3 else ""
    caption = (
        f"Failure cases: the {len(cases)} of {samples.shape[0]} test samples where {contender} does worst in {name}"
        f" ({kind}, mean over cells){middle}: {names}."
    )
    return caption, Path(path)


def _called(truth: xr.DataArray, index: int) -> str:
    """Time, specimen or slice of a sample."""
    first = truth.dims[0]
    return str(truth[first].values[index])[:16] if first in truth.coords else f"number {index}"


def _slice(values: np.ndarray, leading: int) -> np.ndarray:
    """The middle of a volume along its first axes, so that two space axes stay."""
    while values.ndim > leading + 2:
        values = np.take(values, values.shape[leading] // 2, axis=leading)
    return values


def _panels(truth: np.ndarray, members: np.ndarray, label: bool) -> list[np.ndarray]:
    """The pictures of a row."""
    shown = [truth, *members[:2]]
    if label or len(members) < 2:
        return shown
    mean = members.mean(0)
    return [*shown, mean, members.std(0, ddof=1), np.abs(mean - truth)]
