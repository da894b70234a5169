"""The exact bench in tables and a picture: one table a task, one row a contender and number of calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from scigen.plots.style import ROLES, canvas, grid_shape, save
from scigen.plots.table import NOTHING, Cell, Column, Table, number, text

COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "h")

Row = Mapping[str, Any]


def tables(rows: Sequence[Row], about: Mapping[str, str]) -> list[Table]:
    """One table a task.

    Args:
        rows: of the bench, with the scores of `scigen.core.bench.scores`; what a row lacks is a dash.
        about: by the name of each task, what it is.
    """
    return [_table(name, line, [r for r in rows if r["task"] == name]) for name, line in about.items()]


def _table(name: str, about: str, rows: Sequence[Row]) -> Table:
    """The table of one task."""
    nominal = next((100 * r["nominal"] for r in rows if "nominal" in r), 90.0)
    modes = any("minor_mode" in r for r in rows)
    columns = [
        Column("contender", numeric=False),
        Column("calls", "network calls a sample"),
        Column("W1", "Wasserstein-1 distance to the exact law, mean over coefficients, in standard deviations; 0"),
        Column("worst W1", "that of the worst coefficient; 0", minor=True),
        Column("variance", "of members over the exact law's, mean over coefficients; 1"),
        Column("worst variance", "that of the coefficient farthest from 1; 1", minor=True),
        Column(f"cover {nominal:.3g} %", "share of truths [%] inside the interval that should hold so many"),
        Column("rel. CRPS", "fair CRPS over that of the exact law with the same noise; 1"),
        Column("rel. energy", "fair energy score over that of the exact law with the same noise; 1"),
        *([Column("minor", "share of samples in the rarer mode")] if modes else []),
        Column("training", "cost in teacher steps, the common start included", minor=True),
        Column("a step", "cost of an optimiser step in teacher steps", minor=True),
    ]
    cells = [
        [
            text(row["contender"]),
            text(row.get("calls", NOTHING)),
            number(row.get("w1"), 2),
            number(row.get("w1_worst"), 2),
            number(row.get("variance"), 3),
            number(row.get("variance_worst"), 3),
            text(f"{100 * row['coverage']:.1f}" if "coverage" in row else NOTHING),
            number(row.get("crps"), 4),
            number(row.get("energy"), 4),
            *([number(row.get("minor_mode"), 3)] if modes else []),
            text(f"{row['cost']:.0f}" if "cost" in row else NOTHING),
            number(row.get("per_step"), 2),
        ]
        for row in rows
    ]
    notes = [f"{r['contender']}: {r['failed']}." for r in rows if "failed" in r]
    return Table(f"{name}: {about}", columns, cells, notes)


def markdown(table: Table) -> str:
    """A table as Markdown, for the docs: title, rows, notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    def shown(cell: Cell) -> str:
        return " ".join(part for part in cell if part)

    rule = ["--:" if c.numeric else ":--" for c in table.columns]
    body = [line([shown(cell) for cell in row]) for row in table.rows]
    head = [f"**{table.title}**", "", line([c.title for c in table.columns]), line(rule)]
    return "\n".join([*head, *body, *(f"\n{note}" for note in table.notes), ""])


def figure(rows: Sequence[Row], about: Mapping[str, str], path: str | Path) -> Path:
    """Error against network calls, a panel a task: lines of every contender, the exact law's own sampling error below.

    Args:
        rows: of the bench.
        about: by the name of each task, what it is.
        path: of the picture.
    """
    students = list(dict.fromkeys(r["contender"] for r in rows if r["role"] == "student"))
    down, across = grid_shape(len(about))
    with canvas(3.5 * across, 2.7 * down + 0.8) as page:
        panels = page.subplots(down, across, squeeze=False, sharex=True).ravel()
        for ax, name in zip(panels, about, strict=False):
            own = [r for r in rows if r["task"] == name and r.get("w1") is not None]
            for row in (r for r in own if r["role"] == "exact"):
                ax.axhline(row["w1"], color=ROLES["exact"], lw=1, ls=(0, (4, 2)), label="exact law, as many samples")
            _line(ax, own, "teacher", ROLES["truth"], ".", "teacher")
            for i, student in enumerate(students):
                _line(ax, own, student, COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], student)
            for row in (r for r in own if r["role"] == "external"):
                ax.axhline(row["w1"], color=ROLES["baseline"], lw=1, ls=(0, (1, 1)), label=row["contender"])
            ax.set_title(name)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel("network calls")
        for ax in panels[len(about) :]:
            ax.set_visible(False)
        panels[0].set_ylabel("W1 [std]")
        found = {t: h for ax in panels for h, t in zip(*ax.get_legend_handles_labels(), strict=True)}
        page.legend(found.values(), found.keys(), loc="outside lower center", ncols=5)
        return save(page, path)


def _line(ax: Any, rows: Sequence[Row], contender: str, color: str, marker: str, label: str) -> None:
    """The errors of a contender over its calls."""
    points = sorted((r["calls"], r["w1"]) for r in rows if r["contender"] == contender)
    if points:
        ax.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4.5, lw=1.2, label=label)
