"""The one look of all pictures: restrained, safe for colour-blind readers, one fixed colour for each role."""

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROLES: dict[str, str] = {
    "truth": "#1a1a1a",
    "exact": "#009e73",
    "teacher": "#0072b2",
    "student": "#d55e00",
    "interpolation": "#8c8c8c",
    "baseline": "#8c8c8c",
}
"""Colours of roles, from the palette of Okabe & Ito (2008)."""

OTHERS = ("#cc79a7", "#56b4e9", "#e69f00", "#7a5195")
"""Colours of contenders without a known role, in their order."""

DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
"""Line styles that tell contenders of one role apart: the first is solid."""

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": cycler(color=OTHERS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "image.interpolation": "nearest",
    "image.origin": "lower",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.color": "#444444",
    "xtick.labelsize": 8,
    "ytick.color": "#444444",
    "ytick.labelsize": 8,
}


@dataclass(frozen=True)
class Look:
    """How one contender is drawn everywhere.

    Attributes:
        color: as a hex string.
        dash: matplotlib line style.
    """

    color: str
    dash: Any = "-"


def looks(roles: Mapping[str, str]) -> dict[str, Look]:
    """One look a contender: the colour of its role, dashed from the second contender of a role on.

    Args:
        roles: role of each contender by its name; a role that is not in `ROLES` takes the next of the other colours.

    Returns:
        Looks by name.
    """
    palette, seen, out = dict(ROLES), dict[str, int](), {}
    for name, role in roles.items():
        if role not in palette:
            palette[role] = OTHERS[(len(palette) - len(ROLES)) % len(OTHERS)]
        out[name] = Look(palette[role], DASHES[seen.get(role, 0) % len(DASHES)])
        seen[role] = seen.get(role, 0) + 1
    return out


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure in this style, drawn without a display and without pyplot's global state.

    Args:
        width: of the page [inch].
        height: of the page [inch].

    Yields:
        The figure; draw on it and `save` it inside the block.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: str | Path, dpi: int = 130) -> Path:
    """Write a figure, making its folder.

    Args:
        figure: what to write.
        path: a .png, .pdf or .svg file.
        dpi: dots an inch of a .png.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # no software version and no date: equal pictures are equal files
    figure.savefig(path, dpi=dpi, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def data_uri(path: str | Path) -> str:
    """A PNG as a data URI, for pages that need no other file."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode("ascii")


def grid_shape(count: int, widest: int = 3) -> tuple[int, int]:
    """(rows, columns) for `count` panels, at most `widest` in a row."""
    columns = min(count, widest)
    return -(-count // columns), columns


def labelled(names: Sequence[str], nfe: Sequence[float]) -> dict[str, str]:
    """Texts by name: "student, 1 call" where the number of network calls is known, not zero and not in the name."""
    text = {}
    for name, calls in zip(names, nfe, strict=True):
        told = not calls > 0 or re.search(rf"\b{calls:g}\b", name)  # NaN is told as well
        text[name] = name if told else f"{name}, {calls:g} call{'s' if calls != 1 else ''}"
    return text
