"""The main table of a report: one row a contender, its cost, its score beside the teacher's, its calibration."""

import numpy as np
import xarray as xr

from scigen.plots.table import NOTHING, Cell, Column, Table, interval, number, text


def main_table(summary: xr.Dataset, report: xr.Dataset) -> Table:
    """The main table.

    Args:
        summary: score (model, interval) and spread (model), with what they are in attrs (`Domain.quality`).
        report: with the coordinate nfe of model.
    """
    against = str(summary.attrs["reference"])
    words, calibrated = str(summary.attrs["score"]), str(summary.attrs["spread"])
    columns = [
        Column("contender", numeric=False),
        Column("calls", "network calls a member (NFE)"),
        *([Column("score", f"{words} over that of {against}, with a 95 % interval; small")] if against else []),
        Column("spread", f"{calibrated}; 1 is right, below it an ensemble is too sure"),
    ]
    rows: list[list[Cell]] = []
    for model in map(str, summary["model"].values):
        one, nfe = summary.sel(model=model), float(report["nfe"].sel(model=model))
        rows.append(
            [
                text(model),
                text(f"{nfe:g}" if nfe > 0 else NOTHING),
                *([interval(one["score"].values) if model != against else text(1)] if against else []),
                number(float(np.asarray(one["spread"])), 3),
            ]
        )
    told = f"Score: {words}, over that of {against}; small is good. " if against else ""
    notes = [f"{told}Spread: {calibrated}; 1 is right."]
    return Table("The answer in one table", columns, rows, notes)
