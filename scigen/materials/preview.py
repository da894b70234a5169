"""Pictures of volumes: the block as seen from one corner, and slices through its middle."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from scigen.errors import UserError
from scigen.plots import style

COLORS = ("#ece6d8", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#4d4d4d")
"""Colours of phases in their order: a pale one, as the first is mostly the pores, then Okabe & Ito (2008)."""

LIGHT = {"top": 1.0, "left": 0.86, "right": 0.7}
"""Brightness of the visible faces."""

PIXELS = 560
"""Width of an isometric picture."""

HEAD, ROW = 0.42, 3.0
"""Heights of the legend and of a row [inch]."""

FINE = 3
"""Points of the picture along a pixel's side that are averaged."""

AXES = ("z", "y", "x")
UP, OUT = 0.5, math.sqrt(0.75)
"""Sine and cosine of 30°: how x and y run over the picture."""


def preview(
    volumes: Sequence[np.ndarray],
    path: str | Path,
    phases: Sequence[str],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "voxel",
    titles: Sequence[str] | None = None,
) -> Path:
    """One row a volume: the block from a corner and three slices through its middle, with a legend of the phases.

    Args:
        volumes: labels (Z, Y, X), each of its own shape.
        path: of the picture.
        phases: names in the order of the labels.
        voxel_size: along z, y, x [unit].
        unit: of lengths.
        titles: of the rows.

    Returns:
        The path.

    Raises:
        UserError: if there is no volume, or a label has no name.
    """
    if not volumes:
        raise UserError("There is no volume to draw: give at least one.")
    highest = max(int(v.max()) for v in volumes)
    if highest >= len(phases):
        raise UserError(f"A volume has the label {highest}, but phases={list(phases)} names only {len(phases)}.")
    colors = colors_of(len(phases))
    width, height = 10.4, ROW * len(volumes) + HEAD
    with style.canvas(width, height) as figure:
        figure.set_layout_engine("none")  # blocks of any proportions have the same place

        def place(left: float, top: float, wide: float, high: float) -> Axes:
            ax = figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))
            ax.set_anchor("C")
            return ax

        for i, labels in enumerate(volumes):
            top = HEAD + i * ROW
            isometric(place(0.35, top + 0.4, 2.6, ROW - 0.6), labels, colors, voxel_size, unit)
            slices([place(3.65 + 2.35 * k, top + 0.55, 1.78, 1.85) for k in range(3)], labels, colors, voxel_size, unit)
            shares = np.bincount(labels.ravel(), minlength=len(phases)) / labels.size
            told = "    ".join(f"{p} {s:.1%}" for p, s in zip(phases, shares, strict=False))
            title = "" if titles is None else titles[i]
            figure.text(0.15 / width, 1 - (top + 0.12) / height, title, fontsize=10, fontweight="bold", va="center")
            figure.text(3.65 / width, 1 - (top + 0.12) / height, told, fontsize=8.5, color="#444444", va="center")
        handles = [
            Patch(facecolor=c, edgecolor="#555555", linewidth=0.5, label=p) for p, c in zip(phases, colors, strict=True)
        ]
        figure.legend(handles=handles, loc="upper left", ncols=min(len(phases), 8))
        return style.save(figure, path)


def isometric(
    ax: Axes,
    labels: np.ndarray,
    colors: Sequence[str],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "voxel",
) -> None:
    """The block as seen from above a corner: x runs to the lower right, y to the upper right, z upwards.

    The faces are those of the highest z (top), the lowest y (left) and the highest x (right).

    Args:
        ax: to draw on; its axes are hidden, lengths stand along the edges.
        labels: (Z, Y, X).
        colors: by label.
        voxel_size: along z, y, x [unit].
        unit: of lengths.
    """
    lz, ly, lx = sides(labels, voxel_size)
    width, low, high = OUT * (lx + ly), -UP * lx, lz + UP * ly
    ax.imshow(
        block(labels, colors, voxel_size), extent=(0, width, low, high), origin="upper", interpolation="antialiased"
    )
    ax.set_xlim(-0.02 * width, 1.02 * width)
    ax.set_ylim(low - 0.02 * width, high + 0.02 * width)
    ax.set_aspect("equal")
    ax.set_axis_off()
    corner = [(0, 0), (OUT * lx, low), (width, low + UP * ly)]
    for a, b in ((corner[0], corner[1]), (corner[1], corner[2])):
        for h in (0, lz):
            ax.plot([a[0], b[0]], [a[1] + h, b[1] + h], color="#333333", linewidth=0.6)
    for u, v in corner:
        ax.plot([u, u], [v, v + lz], color="#333333", linewidth=0.6)
    back = (OUT * ly, UP * ly + lz)
    for u, v in (corner[0], corner[2]):
        ax.plot([u, back[0]], [v + lz, back[1]], color="#333333", linewidth=0.6)
    _along(ax, (OUT * lx / 2, low / 2), -30, f"x {_length(lx, unit)}")
    _along(ax, (OUT * (lx + ly / 2), low + UP * ly / 2), 30, f"y {_length(ly, unit)}")
    _along(ax, (0, lz / 2), 90, f"z {_length(lz, unit)}")


def _along(ax: Axes, middle: tuple[float, float], angle: float, text: str) -> None:
    """A text that runs along an edge, a little outside."""
    away = math.radians(angle + 90 if angle > 45 else angle - 90)
    ax.annotate(
        text, middle, (9 * math.cos(away), 9 * math.sin(away)), textcoords="offset points", rotation=angle,
        rotation_mode="anchor", ha="center", va="center", fontsize=8, color="#444444",
    )  # fmt: skip


def block(
    labels: np.ndarray, colors: Sequence[str], voxel_size: Sequence[float] = (1.0, 1.0, 1.0), pixels: int = PIXELS
) -> np.ndarray:
    """The picture of a block, of which `isometric` says what is seen.

    Each point (u, v) of the picture is followed back onto the three faces; where it meets one, it takes its colour.

    Args:
        labels: (Z, Y, X).
        colors: by label.
        voxel_size: along z, y, x.
        pixels: width.

    Returns:
        (height, pixels, 4) in 0 … 1, top row first; transparent outside the block.
    """
    lz, ly, lx = sides(labels, voxel_size)
    width, low, height = OUT * (lx + ly), -UP * lx, lz + UP * (lx + ly)
    rows = max(round(pixels * height / width), 1)
    u = (np.arange(FINE * pixels) + 0.5) / (FINE * pixels) * width / OUT
    v = (low + height - (np.arange(FINE * rows) + 0.5) / (FINE * rows) * height)[:, None]
    rgb = np.array([to_rgb(c) for c in colors])
    out = np.zeros((FINE * rows, FINE * pixels, 4))
    rise = (v - lz) / UP
    faces = {
        "left": (v + UP * u, 0 * v + 0 * u, u + 0 * v),
        "right": (v + UP * lx - UP * (u - lx), u - lx + 0 * v, lx + 0 * u + 0 * v),
        "top": (lz + 0 * u + 0 * v, (u + rise) / 2, (u - rise) / 2),
    }
    for face, where in faces.items():
        inside = np.ones(out.shape[:2], bool)
        index = []
        for position, length, count in zip(where, (lz, ly, lx), labels.shape, strict=True):
            inside &= (position >= 0) & (position <= length)
            index.append(np.clip((position / length * count).astype(int), 0, count - 1))
        z, y, x = (i[inside] for i in index)
        out[inside, :3] = LIGHT[face] * rgb[labels[z, y, x]]
        out[inside, 3] = 1
    fine = out.reshape(rows, FINE, pixels, FINE, 4)
    cover = fine[..., 3:].sum((1, 3))
    color = (fine[..., :3] * fine[..., 3:]).sum((1, 3)) / np.maximum(cover, 1)
    return np.concatenate([color, cover / FINE**2], -1)


def slices(
    axes: Sequence[Axes],
    labels: np.ndarray,
    colors: Sequence[str],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "voxel",
) -> None:
    """The middle slices across z, y and x.

    Args:
        axes: three of them.
        labels: (Z, Y, X).
        colors: by label.
        voxel_size: along z, y, x [unit].
        unit: of lengths.
    """
    length = sides(labels, voxel_size)
    for across, ax in enumerate(axes):
        position = labels.shape[across] // 2
        down, right = (i for i in range(3) if i != across)
        ax.imshow(
            labels.take(position, across), cmap=ListedColormap(list(colors)), vmin=-0.5, vmax=len(colors) - 0.5,
            extent=(0, length[right], 0, length[down]), origin="lower", interpolation="nearest",
        )  # fmt: skip
        ax.grid(False)
        ax.set_title(f"{AXES[across]} = {_length((position + 0.5) * voxel_size[across], unit)}", fontsize=9)
        ax.set_xlabel(f"{AXES[right]} [{_symbol(unit)}]")
        ax.set_ylabel(f"{AXES[down]} [{_symbol(unit)}]")
        ax.xaxis.set_major_locator(MaxNLocator(_ticks(length[right], length[down])))
        ax.yaxis.set_major_locator(MaxNLocator(_ticks(length[down], length[right])))


def colors_of(count: int) -> list[str]:
    """Colours of so many phases; from the ninth on they repeat."""
    return [COLORS[i % len(COLORS)] for i in range(count)]


def sides(labels: np.ndarray, voxel_size: Sequence[float]) -> tuple[float, float, float]:
    """Lengths of the block along z, y, x."""
    z, y, x = (float(n * s) for n, s in zip(labels.shape, voxel_size, strict=True))
    return z, y, x


def _ticks(own: float, other: float) -> int:
    """How many intervals fit along a side, fewer on the shorter one."""
    return max(round(4 * min(own / other, 1)), 1)


def _symbol(unit: str) -> str:
    """A unit as it is printed."""
    return {"um": "µm", "angstrom": "Å"}.get(unit, unit)


def _length(length: float, unit: str) -> str:
    """A length in words: "64 voxels", "12.8 µm"."""
    if unit == "voxel":
        return f"{length:g} voxel{'s' * (length != 1)}"
    return f"{length:.4g} {_symbol(unit)}"
