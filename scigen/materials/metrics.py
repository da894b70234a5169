"""Judging generated microstructures: their descriptors beside those of held-out specimens under the same conditions."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.materials.quantities import AXES, DIFFUSIVITY, FRACTION
from scigen.materials.statistics import describe_all, phase_names
from scigen.metrics.bootstrap import ratio_interval
from scigen.metrics.distance import wasserstein
from scigen.metrics.report import plain, plain_interval, reference

log = logging.getLogger(__name__)

COMPARED = ("surface", "mean_chord", "euler", "connected", "effective_diffusivity", "triple_line")
"""Descriptors whose distributions are compared."""
TARGET = "target_"
"""Prefix of coordinates of samples that say what they were asked for."""


def evaluate(
    truth: xr.Dataset,
    samples: Mapping[str, xr.Dataset],
    *,
    transport: Sequence[str] | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> xr.Dataset:
    """Judge contenders side by side on the specimens that all have.

    Args:
        truth: phase (specimen, z, y, x), held-out labels.
        samples: by name, phase (specimen, member, z, y, x), with coordinates target_… of what was asked for; attrs may
            hold `scigen_nfe` and `scigen_role`. They may be lazy.
        transport: phases whose diffusivity is solved for; None takes those with a target, else the first.
        workers: processes.
        seed: of the bootstrap.
        progress: called with contender, volumes done, volumes in all.

    Returns:
        By model, and phase where it says so: fraction_error (mean of |φ − target| of the raw output, fractions, phase);
        two_point_error (phase: mean over lags and axes of |mean S₂ − the truth's| / φ(1−φ)) and its two_point_floor,
        what as many real specimens would have by chance; surface_ratio (phase, interval), triple_line_ratio
        (interval); diffusivity_r2 and diffusivity_rmse (of achieved against target, all conductors and axes),
        diffusivity_r2_fraction (the same of a cubic in the volume fraction, the baseline); diversity (variance of
        radial S₂ among members of a condition, summed over lags and phases) with diversity_ratio (interval) to the
        teacher's, and structure_ratio, the same of (S₂ − φ²)/φ(1−φ), which scatter of φ does not move; both
        and freedom, its degrees of freedom; wasserstein (descriptor: distance of distributions over the held-out's
        standard deviation); curves two_point, two_point_radial (with the truth's and its band), lineal_path; scatter:
        achieved and target diffusivity. attrs: samples.

    Raises:
        UserError: if the archives do not fit together.
    """
    truth, samples = _paired(truth, samples)
    phases = phase_names(truth)
    some = next(iter(samples.values()))
    if transport is None:
        told = [p for p in phases if f"{TARGET}{DIFFUSIVITY}_{p}_z" in some.coords]
        transport = told or phases[:1]
    real = describe_all(truth, transport, workers).isel(member=0)
    found: dict[str, xr.Dataset] = {}
    for name, ds in samples.items():
        total = ds.sizes["specimen"] * ds.sizes.get("member", 1)
        log.info("judging %s: %d volumes", name, total)
        tell = (lambda n, name=name, total=total: progress(name, n, total)) if progress else None
        found[name] = describe_all(ds, transport, workers, tell)
    targets = {name: _targets(ds, real, phases, transport) for name, ds in samples.items()}
    rows = [_scores(found[n], real, targets[n], seed) for n in found]
    report = xr.concat(rows, xr.Variable("model", np.array(list(found))), join="outer", coords="minimal")
    report = report.assign_coords(
        interval=["estimate", "low", "high"],
        nfe=("model", [float(ds.attrs.get("scigen_nfe", math.nan)) for ds in samples.values()]),
        role=("model", np.array([str(ds.attrs.get("scigen_role", n)) for n, ds in samples.items()])),
        members=("model", [s.sizes["member"] for s in found.values()]),
    )
    report["diversity_ratio"] = _diversity(found, report, seed, _spread)
    report["structure_ratio"] = _diversity(found, report, seed, _structure)
    for key in ("two_point", "two_point_radial", "lineal_path"):
        report[f"{key}_truth"] = real[key].mean("specimen")
    low, high = _band(real["two_point_radial"].values, seed)
    report["band_low"], report["band_high"] = (real["two_point_radial"].dims[1:], low), (("phase", "lag"), high)
    report["diffusivity_truth"] = real["effective_diffusivity"]
    report["fraction_truth"] = real["volume_fraction"]
    report.attrs = {
        "samples": truth.sizes["specimen"], "unit": str(truth.attrs.get("voxel_unit", "voxel")),
        "voxel_size": list(np.atleast_1d(truth.attrs.get("voxel_size", [1.0] * 3))),
    }  # fmt: skip
    return report


def _paired(truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """The specimens that all have."""
    if not samples:
        raise UserError("There are no samples to judge.")
    for name, ds in {"truth": truth, **samples}.items():
        if "phase" not in ds or "specimen" not in ds["phase"].dims:
            raise UserError(f"{name} has no variable phase with a dimension specimen.")
        if phase_names(ds) != phase_names(truth):
            raise UserError(f"{name} has the phases {phase_names(ds)}, the truth {phase_names(truth)}.")
    keys = truth["specimen"].values
    for ds in samples.values():
        keys = keys[np.isin(keys, ds["specimen"].values)]
    if not len(keys):
        raise UserError("Truth and samples share no specimen: judge samples of conditions that the truth answers.")
    return truth.sel(specimen=keys), {n: ds.sel(specimen=keys) for n, ds in samples.items()}


def _targets(
    ds: xr.Dataset, real: xr.Dataset, phases: Sequence[str], transport: Sequence[str]
) -> dict[str, np.ndarray]:
    """What was asked for; of quantities that were left free, the held-out specimen's own."""

    def told(name: str, own: np.ndarray) -> np.ndarray:
        key = f"{TARGET}{name}"
        values = np.asarray(ds[key].values, np.float64) if key in ds.coords else np.full(len(own), np.nan)
        return np.where(np.isnan(values), own, values)

    share = real["volume_fraction"].values
    d = real["effective_diffusivity"].values
    return {
        "fraction": np.stack([told(f"{FRACTION}_{p}", share[:, i]) for i, p in enumerate(phases)], 1),
        "diffusivity": np.stack(
            [
                np.stack([told(f"{DIFFUSIVITY}_{p}_{a}", d[:, i, k]) for k, a in enumerate(AXES)], 1)
                for i, p in enumerate(transport)
            ],
            1,
        ),
    }


def _scores(own: xr.Dataset, real: xr.Dataset, target: Mapping[str, np.ndarray], seed: int) -> xr.Dataset:
    """Scores of one contender."""
    out = xr.Dataset()
    share = own["volume_fraction"].values
    out["fraction_error"] = ("phase", np.abs(share - target["fraction"][:, None]).mean((0, 1)))
    out["fraction_bias"] = ("phase", (share - target["fraction"][:, None]).mean((0, 1)))
    phi = real["volume_fraction"].values  # (S, P)
    spread = (phi * (1 - phi))[:, :, None, None]
    off = (own["two_point"].mean("member").values - real["two_point"].values) / np.maximum(spread, 1e-6)
    out["two_point_error"] = ("phase", np.abs(off.mean(0)).mean((1, 2)))
    chance = off.std(0, ddof=1) * math.sqrt(2 / math.pi / len(off)) if len(off) > 1 else np.full_like(off[0], np.nan)
    out["two_point_floor"] = ("phase", chance.mean((1, 2)))
    for key in ("surface", "triple_line"):
        mine, theirs = own[key].mean("member").values, real[key].values
        if key == "triple_line":
            value = ratio_interval(mine, theirs, seed=seed) if theirs.any() else (np.nan,) * 3
            out["triple_line_ratio"] = ("interval", np.array(value))
        else:
            each = [ratio_interval(mine[:, p], theirs[:, p], seed=seed) for p in range(mine.shape[1])]
            out["surface_ratio"] = (("phase", "interval"), np.array(each))
    out["percolates"] = own["percolates"].mean(("specimen", "member"))
    out["percolates_truth"] = real["percolates"].mean("specimen")
    got, wanted = own["effective_diffusivity"].values, target["diffusivity"][:, None]
    error, about = got - wanted, wanted - wanted.mean(0, keepdims=True)
    total = float(np.broadcast_to(about, got.shape).__pow__(2).sum())
    out["diffusivity_r2"] = 1 - float((error**2).sum()) / total if total > 0 else math.nan
    out["diffusivity_rmse"] = float(np.sqrt((error**2).mean()))
    out["diffusivity_bias"] = float(error.mean())
    out["diffusivity_r2_fraction"] = _fraction_only(real, target)
    radial = own["two_point_radial"]
    if own.sizes["member"] > 1:
        out["diversity"] = float(radial.var("member", ddof=1).sum(("phase", "lag")).mean())
        out["freedom"] = float(own.sizes["specimen"] * (own.sizes["member"] - 1))
    else:
        out["diversity"], out["freedom"] = math.nan, 0.0
    values = [_distance(own[k], real[k]) for k in COMPARED]
    out["wasserstein"] = ("descriptor", np.array(values))
    for key in ("two_point", "two_point_radial", "lineal_path"):
        out[key] = own[key].mean(("specimen", "member"))
    out["diffusivity"] = own["effective_diffusivity"].mean("member")
    out["diffusivity_spread"] = own["effective_diffusivity"].std("member", ddof=0)
    out["diffusivity_target"] = (own["effective_diffusivity"].isel(member=0).dims, target["diffusivity"])
    return out.assign_coords(descriptor=list(COMPARED))


def _fraction_only(real: xr.Dataset, target: Mapping[str, np.ndarray]) -> float:
    """R² of a cubic in the conductor's fraction, fitted to these very targets: an upper bound of what φ alone tells."""
    phases = list(real["phase"].values)
    left, total = 0.0, 0.0
    for i, p in enumerate(real["conductor"].values):
        phi = target["fraction"][:, phases.index(p)]
        for k in range(3):
            y = target["diffusivity"][:, i, k]
            degree = min(3, len(np.unique(phi)) - 1)
            fit = np.polynomial.Polynomial.fit(phi, y, degree)(phi) if degree > 0 else np.full_like(y, y.mean())
            left, total = left + float(((y - fit) ** 2).sum()), total + float(((y - y.mean()) ** 2).sum())
    return 1 - left / total if total > 0 else math.nan


def _distance(own: xr.DataArray, real: xr.DataArray) -> float:
    """Wasserstein-1 distance of a descriptor's distributions over the held-out's spread, mean over phases and axes."""
    mine = own.transpose("specimen", "member", ...).values.astype(float)
    theirs = real.values.astype(float)
    mine, theirs = mine.reshape(-1, *mine.shape[2:]).reshape(-1, theirs[0].size), theirs.reshape(len(theirs), -1)
    out = []
    for a, b in zip(mine.T, theirs.T, strict=True):
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        if len(a) and len(b) > 1 and b.std() > 0:
            at = (np.arange(200) + 0.5) / 200
            out.append(float(wasserstein(np.quantile(a, at), np.quantile(b, at))) / float(b.std()))
    return float(np.mean(out)) if out else math.nan


def _band(curves: np.ndarray, seed: int, draws: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean of curves (S, …) under resampling of specimens."""
    rng = np.random.default_rng(seed)
    pick = rng.integers(0, len(curves), (draws, len(curves)))
    means = np.stack([curves[p].mean(0) for p in pick])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def _spread(ds: xr.Dataset) -> np.ndarray:
    """Variance of radial S₂ among the members of each specimen, (specimens,)."""
    return ds["two_point_radial"].var("member", ddof=1).sum(("phase", "lag")).values


def _structure(ds: xr.Dataset) -> np.ndarray:
    """The same of the normalised covariance (S₂ − φ²)/φ(1−φ); a volume that lacks a phase has none of it."""
    s2, phi = ds["two_point_radial"], ds["volume_fraction"]
    left = phi * (1 - phi)
    covariance = ((s2 - phi**2) / left.where(left > 0)).fillna(0.0)
    return covariance.var("member", ddof=1).sum(("phase", "lag")).values


def _diversity(
    found: Mapping[str, xr.Dataset], report: xr.Dataset, seed: int, variance: Callable[[xr.Dataset], np.ndarray]
) -> xr.DataArray:
    """A variance among members over that of the teacher with most calls, (model, interval)."""
    names, roles, nfe = list(found), report["role"].values, np.nan_to_num(report["nfe"].values, nan=-1)
    teachers = [i for i, r in enumerate(roles) if r == "teacher"]
    values = np.full((len(names), 3), np.nan)
    if teachers:
        best = names[max(teachers, key=lambda i: nfe[i])]
        if found[best].sizes["member"] > 1:
            for i, n in enumerate(names):
                if found[n].sizes["member"] > 1:
                    values[i] = ratio_interval(variance(found[n]), variance(found[best]), seed=seed)
    return xr.DataArray(values, dims=("model", "interval"))


def quality(report: xr.Dataset) -> xr.Dataset:
    """One number a contender, see `scigen.core.domain.Domain.quality`: structure, and diversity.

    The S₂ error has no interval: it is a distance of means over all specimens.
    """
    against = reference(report, "teacher")
    error = report["two_point_error"].max("phase")
    score = np.full((report.sizes["model"], 3), np.nan)
    if against:
        score[:, 0] = error / float(error.sel(model=against))
    out = xr.Dataset({"score": (("model", "interval"), score)}, coords={"interval": ["estimate", "low", "high"]})
    out["spread"] = report["diversity_ratio"].sel(interval="estimate", drop=True) ** 0.5
    names = {"score": "S₂ error of the worst phase", "spread": "diversity of members over the teacher's"}
    return out.assign_coords(model=report["model"]).assign_attrs(names | {"reference": against or ""})


def to_json(report: xr.Dataset) -> dict[str, Any]:
    """The report as JSON types: model → numbers; NaN becomes null."""
    out: dict[str, Any] = {}
    phases = [str(p) for p in report["phase"].values]
    for model in map(str, report["model"].values):
        one = report.sel(model=model)
        row: dict[str, Any] = {
            "nfe": plain(one["nfe"]), "members": int(one["members"]), "role": str(one["role"].values),
            "samples": int(report.attrs["samples"]),
        }  # fmt: skip
        for key in ("fraction_error", "fraction_bias", "two_point_error", "two_point_floor"):
            row[key] = dict(zip(phases, plain(one[key]), strict=True))
        row["surface_ratio"] = {p: plain_interval(one["surface_ratio"].sel(phase=p)) for p in phases}
        row["triple_line_ratio"] = plain_interval(one["triple_line_ratio"])
        row["diversity_ratio"] = plain_interval(one["diversity_ratio"])
        row["structure_ratio"] = plain_interval(one["structure_ratio"])
        for key in (
            "diffusivity_r2", "diffusivity_r2_fraction", "diffusivity_rmse", "diffusivity_bias", "diversity", "freedom"
        ):  # fmt: skip
            row[key] = plain(one[key])
        row["wasserstein"] = dict(zip(map(str, one["descriptor"].values), plain(one["wasserstein"]), strict=True))
        row["percolates"] = {p: plain(one["percolates"].sel(phase=p)) for p in phases}
        if "process_rmse" in one:
            row["process_rmse"] = dict(zip(map(str, one["parameter"].values), plain(one["process_rmse"]), strict=True))
        out[model] = row
    return out
