"""The report of `judging` as JSON types."""

from typing import Any

import numpy as np
import xarray as xr

from scigen.metrics.report import plain, plain_interval


def to_json(report: xr.Dataset) -> dict[str, Any]:
    """Model → variable → numbers; scores of groups under `groups`, NaN as null.

    Every variable's numbers repeat role, network calls and members of the model and the number of samples, so that a
    line of them stands alone.
    """
    out: dict[str, Any] = {}
    for model in map(str, report["model"].values):
        out[model] = {v: _one(report.sel(model=model, variable=v), report) for v in map(str, report["variable"].values)}
    return out


def _one(one: xr.Dataset, report: xr.Dataset) -> dict[str, Any]:
    """One contender on one variable."""
    members = int(one["members"])
    numbers: dict[str, Any] = {
        "nfe": plain(one["nfe"]), "members": members, "role": str(one["role"].values),
        "units": str(one["units"].values), "samples": int(report.attrs["samples"]), "block": int(report.attrs["block"]),
        "reference": report.attrs["reference"],
    }  # fmt: skip
    numbers |= _scores(one, "all")
    numbers["climate"] = plain(one["climate"])
    numbers |= {key: plain(one[key]) for key in ("missing", "lost", "copies")}
    numbers["rank_histogram"] = plain(one["rank"].sel(group="all")[: members + 1])
    numbers["coverage_nominal"] = dict(zip(map(str, one["level"].values), plain(one["coverage_nominal"]), strict=True))
    numbers["thresholds"] = {
        str(label): {
            "value": plain(one["threshold_value"].sel(threshold=label)),
            **{
                key: plain(one[f"brier_{key}"].sel(group="all", threshold=label))
                for key in ("score", "fair", "reliability", "resolution", "uncertainty", "skill")
            },
            **{
                f"{key}_by_bin": plain(one[f"reliability_{key}"].sel(threshold=label))
                for key in ("forecast", "observed", "share")
            },
        }
        for label in one["threshold"].values
    }
    numbers["quantiles"] = {
        f"{q:g}": {
            "truth": plain(one["quantile_truth"].sel(quantile=q)),
            "samples": plain(one["quantile_value"].sel(quantile=q)),
        }
        for q in one["quantile"].values
    }
    if "power" in one:
        numbers["wavenumber"] = plain(one["wavenumber"])
        numbers["power"], numbers["power_truth"] = (plain(one[k].sel(group="all")) for k in ("power", "power_truth"))
    numbers["worst"] = {
        str(int(i)): c for i, c in zip(one["worst"].values, plain(one["worst_crps"]), strict=True) if np.isfinite(i)
    }
    numbers["spread_error"] = {k: plain(one[f"{k}_bin"]) for k in ("spread", "error", "share")}
    groups = [str(g) for g in one["group"].values if g != "all"]
    if groups:
        numbers["groups"] = {g: _scores(one, g) for g in groups}
    return numbers


def _scores(one: xr.Dataset, group: str) -> dict[str, Any]:
    """Scores of one group with their intervals, and against the reference."""
    mine = one.sel(group=group)
    found: dict[str, Any] = {"scores": {}, "against": {}}
    for score in map(str, one["score"].values):
        if np.isfinite(mine["value"].sel(score=score, interval="estimate")):
            found["scores"][score] = plain_interval(mine["value"].sel(score=score))
        versus = mine["against"].sel(score=score)
        if np.isfinite(versus.sel(interval="estimate")):
            kind = str(one["kind"].sel(score=score).values)
            low, high = (float(versus.sel(interval=k)) for k in ("low", "high"))
            found["against"][score] = {
                kind: plain_interval(versus), "significant": excludes(low, high, 1.0 if kind == "ratio" else 0.0),
            }  # fmt: skip
    found["ranks"] = {k: plain(mine[f"rank_{k}"]) for k in ("chi_square", "p", "deviation")}
    return found


def quality(report: xr.Dataset) -> xr.Dataset:
    """The main score and the spread of every contender, as `scigen.core.domain.Domain.quality` has them."""
    whole, chosen = report.sel(group="all", drop=True), str(report.attrs["reference"])
    ratio = whole["against"].sel(score="crps", drop=True).copy()
    ratio.loc[{"model": chosen}] = 1.0
    names = list(map(str, report["score"].values))
    value = whole["value"].sel(interval="estimate", drop=True)
    skill = value.sel(score="spread_skill", drop=True) if "spread_skill" in names else value.isel(score=0) * np.nan
    at = ratio.sel(interval="estimate", drop=True).fillna(-np.inf).argmax("variable")
    off = xr.apply_ufunc(lambda v: np.abs(np.log(v)), skill.where(skill > 0)).fillna(-np.inf).argmax("variable")
    both = {"score": ratio.isel(variable=at).transpose("model", "interval"), "spread": skill.isel(variable=off)}
    out = xr.Dataset({k: v.reset_coords(drop=True) for k, v in both.items()})
    several = " of the worst variable" if report.sizes["variable"] > 1 else ""
    out.attrs = {"score": f"fair CRPS{several}", "spread": f"spread–skill{several}", "reference": chosen}
    return out


def excludes(low: float, high: float, value: float) -> bool | None:
    """Whether an interval excludes a value; None where there is no interval."""
    return None if np.isnan(low) else bool(low > value or high < value)
