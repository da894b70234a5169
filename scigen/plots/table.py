"""Tables whose rows are built once and shown in the terminal (rich) and on the report page (HTML)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console, ConsoleOptions
from rich.table import Table as RichTable
from rich.text import Text

NOTHING = "–"
"""What stands for a number that there is not."""

Cell = tuple[str, str]
"""What must be seen, and the detail beside it (an interval), which a narrow terminal leaves out; it may be empty."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: heading, short.
        hint: what the number means and which value is wished for; shown where the reader points at the heading.
        numeric: aligned right, never broken.
        minor: left out first where a terminal is too narrow for all.
    """

    title: str
    hint: str = ""
    numeric: bool = True
    minor: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns; cells are plain text, whatever characters they hold. `rich` prints it as it is.

    Attributes:
        title: of the table.
        columns: as many as each row has cells.
        rows: cells (`number`, `interval`, or a pair of texts).
        notes: sentences below the table.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Check that rows fit the columns."""
        bad = [len(row) for row in self.rows if len(row) != len(self.columns)]
        if bad:
            raise ValueError(f"A row has {bad[0]} cells for {len(self.columns)} columns.")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        """`console.print(table)` prints it as the console is wide."""
        yield self.rich(options.max_width)

    def rich(self, width: int = 120) -> RichTable:
        """The table for a terminal: minor columns, then details, are left out until it fits; no cell is markup.

        Args:
            width: of the terminal [characters].
        """
        everything = range(len(self.columns))
        major = [i for i in everything if not self.columns[i].minor]
        stages = ((everything, True), (major, True), (major, False))
        chosen, detail = next((s for s in stages if self._width(*s) <= width), stages[-1])
        table = RichTable(
            title=Text(self.title), title_justify="left", title_style="bold", caption_justify="left", box=None,
            caption=Text("\n".join(self.notes)) if self.notes else None, pad_edge=False,
            padding=(0, 1) if detail else (0, 1, 0, 0),
        )  # fmt: skip
        for i in chosen:
            column = self.columns[i]
            table.add_column(Text(column.title), justify="right" if column.numeric else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_line(row[i], detail)) for i in chosen))
        return table

    def _repr_html_(self) -> str:
        """In notebooks, with hints where the reader points; all texts escaped."""

        def cells(kind: str, texts: Sequence[str], hints: Sequence[str]) -> str:
            sides = ["right" if c.numeric else "left" for c in self.columns]
            parts = [
                f'<{kind} style="text-align:{side}" title="{escape(hint)}">{words}</{kind}>'
                for side, words, hint in zip(sides, texts, hints, strict=True)
            ]
            return f"<tr>{''.join(parts)}</tr>"

        none = [""] * len(self.columns)
        head = cells("th", [escape(c.title) for c in self.columns], [c.hint for c in self.columns])
        small = ' <small style="opacity:.65">'
        body = [
            cells("td", [escape(a) + (f"{small}{escape(b)}</small>" if b else "") for a, b in row], none)
            for row in self.rows
        ]
        notes = "".join(f'<p style="opacity:.65">{escape(note)}</p>' for note in self.notes)
        table = f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
        return f"<b>{escape(self.title)}</b>{table}{notes}"

    def _width(self, columns: Sequence[int], detail: bool) -> int:
        """Characters that the table takes if only headings are broken, between words."""
        total = 2 * len(columns)
        for i in columns:
            words = [len(w) for w in self.columns[i].title.split()]
            total += max(words + [len(_line(row[i], detail)) for row in self.rows], default=0)
        return total


def _line(cell: Cell, detail: bool) -> str:
    """A cell on one line."""
    return " ".join(part for part in (cell if detail else cell[:1]) if part)


def text(words: object) -> Cell:
    """A cell of plain text."""
    return str(words), ""


def number(value: float | None, digits: int = 3) -> Cell:
    """A number with so many significant digits, a dash for none; never in exponents between 1e-4 and 1e6.

    Args:
        value: the number; None and NaN give a dash.
        digits: significant ones, at most; integer parts are kept whole.
    """
    if value is None or math.isnan(value):
        return text(NOTHING)
    if math.isinf(value):
        return text("∞" if value > 0 else "−∞")
    if value and not 1e-4 <= abs(value) < 1e6:
        return text(f"{value:.{digits - 1}e}".replace("-", "−"))
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return text(f"{value:.{max(0, digits - whole)}f}".replace("-", "−"))


def interval(values: ArrayLike, decimals: int = 3) -> Cell:
    """Estimate and, as its detail, the interval: ("1.012", "[1.003–1.021]"); no detail where there is none.

    Args:
        values: (estimate, low, high).
        decimals: digits after the point.
    """
    estimate, low, high = (float(v) for v in np.asarray(values, np.float64))
    if math.isnan(estimate):
        return text(NOTHING)
    detail = "" if math.isnan(low) else f"[{low:.{decimals}f}–{high:.{decimals}f}]"
    return f"{estimate:.{decimals}f}", detail
