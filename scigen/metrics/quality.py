"""One number a contender: its main score over the converged teacher's, and whether its spread tells its error."""

from typing import Any

import numpy as np
import xarray as xr

from scigen.metrics.report import plain, plain_interval, reference


def quality(report: xr.Dataset) -> xr.Dataset:
    """The main score and the spread of every contender, from a report with `crps_ratio` and `spread_skill`.

    Of several variables it is the one where a contender does worst; of several groups of samples, all of them.

    Args:
        report: of a field's `evaluate`: crps_ratio (model, interval, …), with `reference` if there are several, and
            spread_skill (model, …).

    Returns:
        `score` (model, interval): ratio to the reference, smaller is better, NaN where none is known; `spread` (model):
        spread over skill, 1 is right. attrs: score, spread (what they are), reference (name, or "").
    """
    against = reference(report, "teacher") or reference(report, "exact") or ""
    whole = report.sel(group="all", drop=True) if "all" in np.atleast_1d(report.get("group", "")) else report
    ratio, skill = whole["crps_ratio"], whole["spread_skill"]
    if "reference" in ratio.dims:
        ratio = ratio.sel(reference=against, drop=True) if against else ratio.isel(reference=0, drop=True) * np.nan
    if "interval" in skill.dims:
        skill = skill.sel(interval="estimate", drop=True)
    score = _worst(ratio, ratio.sel(interval="estimate", drop=True))
    with np.errstate(divide="ignore"):
        spread = _worst(skill, abs(xr.apply_ufunc(np.log, skill)))
    both = {"score": score.transpose("model", "interval"), "spread": spread}
    out = xr.Dataset({k: v.reset_coords(drop=True) for k, v in both.items()})
    several = " of the worst variable" if "variable" in ratio.dims else ""
    out.attrs = {"score": f"fair CRPS{several}", "spread": f"spread–skill{several}", "reference": against}
    return out


def as_json(summary: xr.Dataset) -> dict[str, Any]:
    """A summary as JSON types: contender → score (estimate, low, high) and spread, and under `_` what they are."""
    out: dict[str, Any] = {"_": {k: str(v) for k, v in summary.attrs.items()}}
    for model in map(str, summary["model"].values):
        one = summary.sel(model=model)
        out[model] = {"score": plain_interval(one["score"]), "spread": plain(one["spread"])}
    return out


def _worst(values: xr.DataArray, by: xr.DataArray) -> xr.DataArray:
    """The values of the variable where `by` is largest; themselves where there is one."""
    if "variable" not in values.dims:
        return values
    at = by.fillna(-np.inf).argmax("variable")
    return values.isel(variable=at).drop_vars("variable", errors="ignore")
