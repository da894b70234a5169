"""Judging weather ensembles: the scores of contenders side by side, made of the means of their `statistics`."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from scigen.metrics import ensemble
from scigen.metrics.bootstrap import ratio_interval
from scigen.metrics.histogram import quantiles
from scigen.metrics.report import plain, plain_interval
from scigen.weather.pairing import pair
from scigen.weather.statistics import merge, statistics, survey

log = logging.getLogger(__name__)

__all__ = ["evaluate", "merge", "statistics", "survey", "to_json"]

LEVELS = (0.5, 0.9)
"""Coverage levels asked for; the nearest ones that M members give are reported."""
QUANTILES = (0.001, 0.01, 0.99, 0.999)
"""Tail quantiles, over all times and cells."""
SHARE = 1e-3
"""Wavenumbers that hold more of the truth's variance than this count for the worst power ratio."""


def evaluate(
    truth: xr.Dataset,
    samples: Mapping[str, xr.Dataset],
    *,
    factor: int | None = None,
    block: int = 1,
    seed: int = 0,
) -> xr.Dataset:
    """Judge contenders side by side on the times that all have.

    Args:
        truth: dims (time, Y, X) [units in attrs]; it may hold more variables, times and cells than the samples.
        samples: by name, dims (time, member, Y, X), or without `member`; attrs may hold `scigen_nfe` (network calls a
            member) and `scigen_role` (exact, teacher, student, interpolation). Any may be lazy and larger than memory.
        factor: cells a side of the coarse cells whose means should be conserved; None leaves that out.
        block: times a block of the bootstrap; longer than the weather's memory if the times follow closely.
        seed: of bootstrap and rank ties.

    Returns:
        Scores with the dimensions model, variable, reference, interval (estimate, low, high: 95 %), level, rank,
        wavenumber, quantile. In physical units: crps, rmse and bias (of the ensemble mean), spread, conservation,
        quantile_value, quantile_truth; squared: power (of a member), power_truth. Ratios: spread_skill, crps_ratio,
        power_ratio (power_ratio_worst: the one farthest from 1 where variance_share > 0.001; power_ratio_where: at
        which wavenumber), coverage (the nominal level really used in coverage_nominal), rank_histogram (shares),
        rank_deviation, variance_share, wet_share and wet_share_truth (rain rates). What a single member cannot say is
        NaN. Coordinates of model: nfe, role, members; of variable: units. attrs: samples (times), block, factor.

    Raises:
        UserError: if the archives do not fit together, or a value is not finite.
    """
    truth, paired = pair(truth, samples)
    edges = survey(truth)
    stats = {}
    for model, ds in paired.items():
        log.info("judging %s: %d times x %d members", model, ds.sizes["time"], ds.sizes["member"])
        stats[model] = statistics(truth, ds, factor=factor, edges=edges, name=model, seed=seed)
    rows = [_scores(s, block, seed) for s in stats.values()]
    report = xr.concat(rows, xr.Variable("model", np.array(list(stats))), join="outer")
    some = next(iter(stats.values()))
    report["power_truth"] = some["power_truth"].mean("time")
    report["variance_share"] = report["power_truth"] / report["power_truth"].sum("wavenumber")
    report["power_ratio"] = report["power"] / report["power_truth"]
    report["power_ratio_where"] = _worst(report["power_ratio"], report["variance_share"])
    report["power_ratio_worst"] = _power_ratios(stats, report["power_ratio_where"], block, seed)
    report["wet_share_truth"] = some["wet_truth"].mean("time", skipna=False)
    report["quantile_truth"] = _tails(some["histogram_truth"], some["edges"])
    report["crps_ratio"] = _crps_ratios(stats, block, seed)
    report = report.assign_coords(
        interval=["estimate", "low", "high"],
        nfe=("model", [float(samples[m].attrs.get("scigen_nfe", math.nan)) for m in stats]),
        role=("model", np.array([str(samples[m].attrs.get("scigen_role", m)) for m in stats])),
        members=("model", [s.attrs["members"] for s in stats.values()]),
        units=("variable", np.array([str(truth[v].attrs.get("units", "")) for v in truth.data_vars])),
    )
    report.attrs = {"samples": truth.sizes["time"], "block": block, **({"factor": factor} if factor else {})}
    return report


def to_json(report: xr.Dataset) -> dict[str, Any]:
    """The report as JSON types: model → variable → numbers, lists for spectra and histograms; NaN becomes null.

    Every variable's numbers repeat the model's nfe, members and role and the number of samples, so that a line of them
    stands alone.
    """
    out: dict[str, Any] = {}
    for model in map(str, report["model"].values):
        out[model] = {}
        for variable in map(str, report["variable"].values):
            one = report.sel(model=model, variable=variable)
            numbers: dict[str, Any] = {
                "nfe": plain(one["nfe"]), "members": int(one["members"]), "role": str(one["role"].values),
                "samples": int(report.attrs["samples"]), "units": str(one["units"].values),
            }  # fmt: skip
            for key in (
                "crps",
                "rmse",
                "bias",
                "spread",
                "conservation",
                "rank_deviation",
                "power_ratio_where",
                "wet_share",
                "wet_share_truth",
            ):
                if key in one:
                    numbers[key] = plain(one[key])
            numbers["spread_skill"] = plain_interval(one["spread_skill"])
            numbers["power_ratio_worst"] = plain_interval(one["power_ratio_worst"])
            numbers["crps_ratio"] = {
                str(r): plain_interval(one["crps_ratio"].sel(reference=r)) for r in one["reference"].values
            }
            numbers["coverage"] = {
                f"{level:g}": {
                    k: plain(one[n].sel(level=level))
                    for k, n in (("nominal", "coverage_nominal"), ("observed", "coverage"))
                }
                for level in one["level"].values
            }
            numbers["quantiles"] = {
                f"{q:g}": {
                    k: plain(one[n].sel(quantile=q))
                    for k, n in (("truth", "quantile_truth"), ("samples", "quantile_value"))
                }
                for q in one["quantile"].values
            }
            numbers["rank_histogram"] = plain(one["rank_histogram"][: int(one["members"]) + 1])
            for key in ("wavenumber", "power", "power_truth", "power_ratio", "variance_share"):
                numbers[key] = plain(one[key])
            out[model][variable] = numbers
    return out


def _scores(stats: xr.Dataset, block: int, seed: int) -> xr.Dataset:
    """Scores of one contender from its statistics."""
    members = stats.attrs["members"]
    kept = ["crps", "error", "squared_error", "variance", "ranks", "power", "wet"]
    mean = stats[kept].mean("time", skipna=False)
    out = xr.Dataset(
        {
            "crps": mean["crps"],
            "bias": mean["error"],
            "rmse": np.sqrt(mean["squared_error"]),
            "spread": np.sqrt(mean["variance"]),
            "rank_histogram": mean["ranks"],
            "power": mean["power"],
            "wet_share": mean["wet"],
        }
    )
    if "conservation" in stats:
        out["conservation"] = np.sqrt(stats["conservation"].mean("time"))
    variables = stats["variable"].values
    ratio = [
        ratio_interval(v, e, block=block, seed=seed, root=True)
        for v, e in zip(stats["variance"].values, stats["squared_error"].values, strict=True)
    ]
    out["spread_skill"] = (("variable", "interval"), np.array(ratio) * np.sqrt((members + 1) / members))
    out["rank_deviation"] = ("variable", ensemble.rank_deviation(mean["ranks"].values))
    hits, nominal = np.full((len(variables), len(LEVELS)), np.nan), np.full(len(LEVELS), np.nan)
    if members > 1:
        for i, level in enumerate(LEVELS):
            hits[:, i], nominal[i] = ensemble.coverage(mean["ranks"].values, level)
    out["coverage"] = (("variable", "level"), hits)
    out["coverage_nominal"] = (("level",), nominal)
    out["quantile_value"] = _tails(stats["histogram"], stats["edges"])
    return out.assign_coords(level=list(LEVELS))


def _worst(ratio: xr.DataArray, share: xr.DataArray) -> xr.DataArray:
    """The wavenumber where power ratios are farthest from one, of those whose share of the variance exceeds `SHARE`."""
    with np.errstate(divide="ignore"):
        distance = abs(xr.apply_ufunc(np.log, ratio.where(share > SHARE)))
    at = distance.fillna(-1.0).argmax("wavenumber")
    known = distance.notnull().any("wavenumber")
    return ratio["wavenumber"].isel(wavenumber=at).drop_vars("wavenumber").where(known)


def _power_ratios(stats: Mapping[str, xr.Dataset], where: xr.DataArray, block: int, seed: int) -> xr.DataArray:
    """Power over the truth's at one wavenumber each, (model, variable, interval)."""
    values = np.full((*where.shape, 3), np.nan)
    for i, model in enumerate(stats.values()):
        for j, k in enumerate(where.values[i]):
            if np.isfinite(k):
                one = model.isel(variable=j).sel(wavenumber=int(k))
                values[i, j] = ratio_interval(one["power"].values, one["power_truth"].values, block=block, seed=seed)
    return xr.DataArray(values, dims=(*where.dims, "interval"))


def _tails(counts: xr.DataArray, edges: xr.DataArray) -> xr.DataArray:
    """Tail quantiles (variable, quantile) of histograms (variable, bin)."""
    values = [quantiles(c, e, QUANTILES) for c, e in zip(counts.values, edges.values, strict=True)]
    return xr.DataArray(
        values, coords={"variable": counts["variable"], "quantile": list(QUANTILES)}, dims=("variable", "quantile")
    )


def _crps_ratios(stats: Mapping[str, xr.Dataset], block: int, seed: int) -> xr.DataArray:
    """CRPS of every model over that of every other one, (model, reference, variable, interval)."""
    series = [s["crps"].values for s in stats.values()]
    values = [
        [[ratio_interval(a, b, block=block, seed=seed) for a, b in zip(mine, theirs, strict=True)] for theirs in series]
        for mine in series
    ]
    names = np.array(list(stats))
    coords = {"model": names, "reference": names, "variable": next(iter(stats.values()))["variable"]}
    return xr.DataArray(np.array(values), coords=coords, dims=("model", "reference", "variable", "interval"))
