"""Tables: numbers as people read them, any text as it is."""

import io
import math

import pytest
from rich.console import Console

from scigen.plots.table import Column, Table, interval, number, text


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1.23456, 3, "1.23"), (0.0123456, 3, "0.0123"), (1234.5, 3, "1234"), (40, 2, "40"), (0, 3, "0.00"),
        (-0.5, 2, "−0.50"), (1.2e-7, 2, "1.2e−07"), (3e8, 3, "3.00e+08"), (None, 3, "–"), (math.nan, 3, "–"),
        (math.inf, 3, "∞"), (-math.inf, 3, "−∞"),
    ],
)  # fmt: skip
def test_numbers(value, digits, shown):
    assert number(value, digits) == (shown, "")


def test_intervals():
    assert interval([1.01234, 1.0, 1.02]) == ("1.012", "[1.000–1.020]")
    assert interval([1.01234, math.nan, math.nan], 2) == ("1.01", "")
    assert interval([math.nan] * 3) == ("–", "")


def shown(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


EVIL = Table(
    "t2m [K]",
    [Column("name", numeric=False), Column("÷"), Column("members", minor=True)],
    [[text("[red]a[/red]"), ("1.0", "[0.9–1.1]"), text(19)]],
    ["a note [x]"],
)


def test_the_terminal_shows_every_cell_and_reads_none_as_markup():
    lines = shown(EVIL, 100)
    assert lines[0] == "t2m [K]" and lines[2].split() == ["[red]a[/red]", "1.0", "[0.9–1.1]", "19"]
    assert lines[-1] == "a note [x]"


def test_a_narrow_terminal_leaves_out_minor_columns_then_details():
    assert shown(EVIL, 34)[2].split() == ["[red]a[/red]", "1.0", "[0.9–1.1]"]
    assert shown(EVIL, 24)[2].split() == ["[red]a[/red]", "1.0"]


def test_a_terminal_that_is_too_narrow_for_anything_folds_and_loses_nothing():
    joined = "".join("".join(line.split()) for line in shown(EVIL, 8))
    assert "1.0" in joined and all(letter in joined for letter in "[red]a")


def test_rows_must_fit_the_columns():
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Table("t", [Column("a")], [[text(1), text(2)]])


def test_notebooks_show_a_table_with_every_text_escaped():
    evil = "<script>1</script>"
    one = Table(evil, [Column("name", evil, numeric=False), Column("value")], [[(evil, ""), ("1.0", "[0–2]")]], [evil])
    html = one._repr_html_()
    assert "<script>" not in html and html.count("&lt;script&gt;") == 4
    assert html.count("<tr>") == 2 and "1.0" in html and "[0–2]</small>" in html
