"""The ledger of spread as a table and a picture: what each part of the making takes or adds, by wavenumber."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from scigen.plots.style import OTHERS, ROLES, canvas, save
from scigen.plots.table import Cell, Column, Table, number, text

COLORS = {
    "prior": OTHERS[1], "solver": ROLES["teacher"], "teacher": OTHERS[3], "law": OTHERS[2],
    "student": ROLES["student"], "precision": ROLES["baseline"],
}  # fmt: skip

HINTS = {
    "prior": "the start has variance σ₀², where λ + σ₀² was due",
    "solver": "the teacher's sampler takes finite steps; 0 where the method does not learn from them",
    "teacher": "the trained teacher against the exact denoiser with the same sampler",
    "law": "the fixed point of the student's method on a Gaussian law",
    "student": "the trained student against that fixed point: capacity, training",
    "precision": "arithmetic: numbers of fewer bits",
}


class Spread(Protocol):
    """What is drawn of a ledger (`scigen.core.ledger.Ledger`)."""

    @property
    def wavenumber(self) -> NDArray[np.int64]:
        """(K,)."""

    @property
    def truth(self) -> NDArray[np.float64]:
        """(K,)."""

    @property
    def factors(self) -> Mapping[str, NDArray[np.float64]]:
        """By part, (K,)."""

    @property
    def predicted(self) -> NDArray[np.float64]:
        """(K,)."""

    @property
    def measured(self) -> NDArray[np.float64]:
        """(K,)."""

    @property
    def law(self) -> str:
        """In words."""

    @property
    def total(self) -> dict[str, float]:
        """Factors of the whole variance, predicted, measured."""


def table(name: str, ledgers: Mapping[str, Spread]) -> Table:
    """One row a variable: percent of the spread that each part adds or takes.

    Args:
        name: of the student.
        ledgers: by variable.
    """
    columns = [Column("variable", numeric=False)]
    columns += [Column(part, f"{hint} [% of the spread]; 0") for part, hint in HINTS.items()]
    columns += [
        Column("predicted", "spread over the exact law's by prior, solver and law alone, before anything is trained"),
        Column("measured", "spread of the student's ensembles over the exact law's; 1"),
    ]
    rows: list[list[Cell]] = []
    for variable, own in ledgers.items():
        total = own.total
        rows.append(
            [
                text(variable),
                *(text(f"{100 * (total[part] ** 0.5 - 1):+.1f} %".replace("-", "−")) for part in HINTS),
                number(total["predicted"] ** 0.5, 3),
                number(total["measured"] ** 0.5, 3),
            ]
        )
    notes = list(dict.fromkeys(f"Law: {own.law}." for own in ledgers.values()))
    notes.append("Spread: of members about their ensemble's mean. The parts multiply, each after those on its left.")
    return Table(f"The ledger of spread: {name}", columns, rows, notes)


def figure(ledgers: Mapping[str, Spread], path: str | Path) -> tuple[str, Path]:
    """Predicted and measured spread over the exact law's, and every part, by wavenumber: (caption, path)."""
    with canvas(3.4 * len(ledgers) + 0.4, 5.0) as page:
        axes = page.subplots(2, len(ledgers), squeeze=False, sharex=True)
        for (top, bottom), (variable, own) in zip(axes.T, ledgers.items(), strict=True):
            known = own.truth > 1e-9 * own.truth.max()
            k = own.wavenumber[known]
            for ax in (top, bottom):
                ax.axhline(1, color=ROLES["truth"], lw=1)
            for key, words, dash in (("predicted", "predicted", (0, (4, 2))), ("measured", "measured", "-")):
                ratio = np.sqrt(getattr(own, key)[known] / own.truth[known])
                top.plot(k, ratio, color=ROLES["student"], ls=dash, label=words)
            for part, factor in own.factors.items():
                bottom.plot(k, np.sqrt(factor[known]), color=COLORS[part], label=part)
            top.set_title(variable)
            bottom.set(xscale="log", xlabel="wavenumber [half waves across the region]")
            bottom.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            bottom.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            bottom.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].set_ylabel("spread over the exact law's")
        axes[1, 0].set_ylabel("factor of the spread")
        axes[0, 0].legend()
        axes[1, 0].legend(ncols=2)
        save(page, path)
    caption = (
        "The ledger of spread by wavenumber. Above: the student's spread over the exact law's, measured, and foretold"
        " by prior, solver and the method's law before training. Below: the parts whose product is measured."
    )
    return caption, Path(path)
