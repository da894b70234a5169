"""Quality against cost: settings of students and solvers in a table and a picture, those that nothing beats marked."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scigen.plots.style import OTHERS, ROLES, canvas, save
from scigen.plots.table import Cell, Column, Table, interval, number, text

COLORS = ("#d55e00", "#009e73", *OTHERS)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SOLVERS = ("#0072b2", "#56b4e9", "#1b3a5c", "#7f9fb8", "#4c6a87", "#a6cbe3")
"""Teachers keep to blue."""

Setting = Mapping[str, Any]
"""name, line (what it is a point of), role, calls, seconds (a field), score {estimate, low, high}, spread, front,
within."""


def table(settings: Sequence[Setting], words: Mapping[str, str], cheapest: str | None) -> Table:
    """One row a setting, the cheapest first.

    Args:
        settings: of the comparison.
        words: what score and spread are, and the reference of the score.
        cheapest: name of the cheapest setting within the budget.
    """
    columns = [
        Column("setting", numeric=False),
        Column("calls", "network calls a member (NFE)"),
        Column("ms", "wall time of a field, end to end [ms], in one batch on this machine"),
        Column("score", f"{words['score']} over that of {words['reference']}, with a 95 % interval; small"),
        Column("spread", f"{words['spread']}; 1"),
    ]
    rows: list[list[Cell]] = []
    for s in sorted(settings, key=lambda s: (s["calls"], s["seconds"])):
        marks = " ✓" * bool(s["within"]) + " ★" * (s["name"] == cheapest)
        rows.append(
            [
                (s["name"] + marks, "front" if s["front"] else ""),
                text(s["calls"]),
                number(1000 * s["seconds"], 3),
                interval(_triple(s["score"])),
                number(_plain(s["spread"]), 3),
            ]
        )
    notes = [
        f"Score: {words['score']}, over that of {words['reference']}; small is good. Spread: {words['spread']}; 1 is"
        " right. ms: of a field, end to end.",
        "✓: inside the budget; ★: the cheapest of these; front: nothing is both cheaper and better.",
    ]
    return Table("Quality against cost", columns, rows, notes)


def figure(settings: Sequence[Setting], words: Mapping[str, str], budget: float, path: str | Path) -> tuple[str, Path]:
    """Score and spread over calls and over wall time, a line a student or solver: (caption, path).

    Args:
        settings: of the comparison.
        words: what score and spread are.
        budget: accepted degradation, a band.
        path: of the picture.
    """
    lines = list(dict.fromkeys(s["line"] for s in settings))
    with canvas(9.6, 6.4) as page:
        axes = page.subplots(2, 2, sharex="col", sharey="row")
        for row, (key, title) in zip(axes, (("score", words["score"]), ("spread", words["spread"])), strict=True):
            for ax, cost in zip(row, ("calls", "seconds"), strict=True):
                ax.axhline(1, color=ROLES["truth"], lw=1, ls=(0, (4, 2)))
                if key == "score":
                    ax.axhspan(0, 1 + budget, color="#009e73", alpha=0.09, lw=0)
                for line in lines:
                    _draw(ax, [s for s in settings if s["line"] == line], key, cost, *_look(settings, lines, line))
                _axis(ax)
            row[0].set_ylabel(title)
            _limits(row[0], [v for s in settings for v in _triple(s[key]) if math.isfinite(v)])
        axes[1, 0].set_xlabel("network calls a member")
        axes[1, 1].set_xlabel("wall time a field [ms]")
        handles, texts = axes[0, 0].get_legend_handles_labels()
        page.legend(handles, texts, loc="outside upper left", ncols=3)
        save(page, path)
    caption = (
        f"Above: {words['score']} over that of {words['reference']}, with 95 % intervals; the green band is the budget."
        f" Below: {words['spread']}, which should be 1. Filled marks: no setting is both cheaper and better."
    )
    return caption, Path(path)


def _look(settings: Sequence[Setting], lines: Sequence[str], line: str) -> tuple[str, str]:
    """Colour and marker of a line: students in warm colours, teachers in blue."""
    roles = {s["line"]: s["role"] for s in settings}
    kin = [name for name in lines if (roles[name] == "teacher") == (roles[line] == "teacher")]
    palette = SOLVERS if roles[line] == "teacher" else COLORS
    return palette[kin.index(line) % len(palette)], MARKERS[kin.index(line) % len(MARKERS)]


def _draw(ax: Axes, points: Sequence[Setting], key: str, cost: str, color: str, marker: str) -> None:
    """One line, with intervals and hollow marks off the front."""
    points = sorted((p for p in points if math.isfinite(_triple(p[key])[0])), key=lambda p: p[cost])
    if not points:
        return
    x = [p[cost] * (1000 if cost == "seconds" else 1) for p in points]
    y = [_triple(p[key]) for p in points]
    ax.plot(x, [v[0] for v in y], color=color, lw=1.2, zorder=2)
    ax.plot([], [], color=color, marker=marker, ms=5, lw=1.2, label=points[0]["line"])
    for at, (middle, low, high), point in zip(x, y, points, strict=True):
        if math.isfinite(low):
            ax.plot([at, at], [low, high], color=color, lw=3, alpha=0.35, solid_capstyle="butt", zorder=1)
        face = color if point["front"] else "white"
        ax.plot(at, middle, marker, color=color, mfc=face, ms=5.5, zorder=3)


def _axis(ax: Axes) -> None:
    """Costs double, and are written plainly."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _limits(ax: Axes, values: Sequence[float]) -> None:
    """Near one, where differences matter; what is far beyond is cut."""
    low, high = min([*values, 1.0]), max([*values, 1.0])
    top = min(high, 1.6) if low <= 1.6 else high
    bottom = max(low, 0.5) if high >= 0.5 else low
    margin = 0.06 * max(top - bottom, 0.05)
    ax.set_ylim(bottom - margin, top + margin)


def _triple(value: Any) -> tuple[float, float, float]:
    """Estimate, low, high of a score, or a number alone; NaN for none."""
    if isinstance(value, Mapping):
        return _plain(value["estimate"]), _plain(value["low"]), _plain(value["high"])
    return _plain(value), math.nan, math.nan


def _plain(value: float | None) -> float:
    return math.nan if value is None else float(value)
