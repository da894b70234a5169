"""Judging ensembles of any field: every score with its interval, contenders side by side."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.metrics import ensemble, reliability
from scigen.metrics.bootstrap import memory, resampled
from scigen.metrics.derive import columns, compared, scores
from scigen.metrics.flatness import flatness
from scigen.metrics.grouping import Group, groups, regions
from scigen.metrics.histogram import quantiles
from scigen.metrics.matching import Match, match
from scigen.metrics.reading import BLOCK_BYTES
from scigen.metrics.report import reference
from scigen.metrics.streaming import stream
from scigen.metrics.survey import Survey, survey
from scigen.metrics.tally import SPREADS, Plan, Tally
from scigen.progress import progress

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

TAILS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
"""Quantiles of the distribution of values that are told."""


WORST = 3
"""Samples with the largest CRPS that are named."""


@dataclass(frozen=True)
class Settings:
    """What is asked for: the keys of configs/evaluate.yaml."""

    variables: Sequence[str] | None = None
    sample: str | None = None
    groups: Sequence[str] = ()
    bins: Mapping[str, Sequence[float]] = field(default_factory=dict)
    mask: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    quantiles: Sequence[float] = (0.5, 0.9, 0.99)
    levels: Sequence[float] = (0.5, 0.8, 0.9)
    block: int | None = None
    draws: int = 1000
    reference: str | None = None
    budget: int = BLOCK_BYTES
    workers: int = 1
    seed: int = 0


Areas = Callable[[Match], tuple[Array, Sequence[bool]]]
"""(weights (cells,) of mean one, which dimensions of space close) of a match."""


def plain_areas(one: Match) -> tuple[Array, Sequence[bool]]:
    """All cells alike, no dimension closes."""
    return np.ones(int(np.prod(one.shape, dtype=int))), [False] * len(one.shape)


def evaluate(
    truth: xr.Dataset,
    samples: Mapping[str, xr.Dataset],
    settings: Settings | None = None,
    areas: Areas = plain_areas,
) -> xr.Dataset:
    """Judge contenders side by side.

    Args:
        truth: dims (sample, …space), in physical units; may be lazy and larger than memory, and hold more.
        samples: by contender, dims (sample, member, …) or without `member`. attrs may hold `scigen_role`, `scigen_nfe`.
        settings: what is asked for.
        areas: weights of the cells.

    Returns:
        `value` (model, variable, group, score, interval: estimate, low, high at 95 %) in physical units, of the scores
        that `derive.scores` tells, and `against` (the same dimensions): ratio to the reference, or difference where
        `kind` (score) says so. `rank` (model, variable, group, k) shares, `rank_chi_square`, `rank_p` and
        `rank_deviation`; `brier_*` (model, variable, group, threshold) of Murphy's decomposition; `reliability_*`
        (model, variable, threshold, probability); `power`, `power_truth` (…, group, wavenumber); `quantile_value`,
        `quantile_truth` (…, quantile); `spread_bin`, `error_bin`, `share_bin` (…, bin of spread); `worst`,
        `worst_crps` (…, place), positions of the samples where it is largest; `copies`, the share of members that
        repeat another; `missing`, the share of values that the truth lacks, and `lost`, that the members lack.
        Coordinates of model: role, nfe, members; of variable: units. attrs: samples, reference, block and notes.

    Raises:
        UserError: if they do not fit together.
    """
    settings = settings or Settings()
    matches, notes = match(truth, samples, settings.variables, settings.sample)
    roles = {m: str(ds.attrs.get("scigen_role", m)) for m, ds in samples.items()}
    calls = {m: float(ds.attrs.get("scigen_nfe", math.nan)) for m, ds in samples.items()}
    whole = []
    chosen = _reference(roles, calls, settings.reference)
    blocks = []
    for one in matches:
        report, block = _variable(one, truth, settings, areas, chosen, notes)
        whole.append(report)
        blocks.append(block)
    report = xr.concat(whole, xr.Variable("variable", np.array([m.name for m in matches])), join="outer")
    report = report.assign_coords(
        interval=["estimate", "low", "high"],
        role=("model", np.array([roles[m] for m in samples])),
        nfe=("model", [calls[m] for m in samples]),
        units=("variable", np.array([m.units for m in matches])),
        kind=("score", np.array([compared(str(s)) or "" for s in report["score"].values])),
    )
    report.attrs = {
        "samples": max(len(m.labels) for m in matches), "reference": chosen, "block": max(blocks), "notes": notes,
    }  # fmt: skip
    for note in notes:
        log.warning("%s", note)
    return report


def _reference(roles: Mapping[str, str], calls: Mapping[str, float], wanted: str | None) -> str:
    """The contender that others are held against: the one asked for, the converged teacher, or the first."""
    if wanted is not None:
        if wanted not in roles:
            raise UserError(f"reference={wanted} is not among the samples {list(roles)}.")
        return wanted
    table = xr.Dataset(
        coords={
            "model": list(roles),
            "role": ("model", list(roles.values())),
            "nfe": ("model", list(calls.values())),
        }
    )
    return reference(table, "teacher") or next(iter(roles))


def _variable(
    one: Match, truth: xr.Dataset, settings: Settings, areas: Areas, chosen: str, notes: list[str]
) -> tuple[xr.Dataset, int]:
    """The report of one variable, and the samples of a block of the bootstrap."""
    known = survey(one, settings.budget)
    area, closes = areas(one)
    masks = regions(one, settings.mask, truth)
    found = groups(one, settings.groups, settings.bins, truth)
    found += [Group(f"region={n}", found[0].cases, i + 1) for i, n in enumerate(masks)]
    levels = settings.thresholds.get(one.name)
    thresholds = np.array(known.quantiles(settings.quantiles) if levels is None else levels, np.float64)
    labels = [f"q{q:g}" for q in settings.quantiles] if levels is None else [f"{t:g}" for t in thresholds]
    plans, tallies = {}, {}
    for model, array in one.samples.items():
        plans[model] = Plan(
            members=array.sizes["member"], shape=one.shape, groups=found, levels=tuple(settings.levels),
            weights=np.stack([area, *(area * w for w in masks.values())]), thresholds=thresholds, events=tuple(labels),
            edges=known.edges, scale=known.scale,
            spectra=one.layout.gridded and min(one.shape, default=0) >= 4, periodic=tuple(closes),
        )  # fmt: skip
        with progress(f"{one.name}, {model}", len(one.labels), "samples") as advance:
            tallies[model] = stream(
                one, model, plans[model], budget=settings.budget, workers=settings.workers, progress=advance
            )
    _say(one, known, tallies, plans, notes)
    block, inflation = _memory(tallies, settings.block)
    rows = [_row(tallies[m], plans[m], known, inflation) for m in tallies]
    report = xr.concat(rows, xr.Variable("model", np.array(list(tallies))), join="outer")
    numbers, against = _intervals(tallies, plans, known, chosen, block, settings)
    names = list(dict.fromkeys(k for p in numbers.values() for k in p))
    dims = ("model", "group", "score", "interval")
    for key, table in (("value", numbers), ("against", against)):
        empty = np.full((len(found), 3), np.nan)
        values = np.array([[table[m].get(s, empty) for s in names] for m in tallies])
        report[key] = (dims, np.moveaxis(values, 2, 1))
    report = report.assign_coords(
        score=names, group=[g.name for g in found], members=("model", [p.members for p in plans.values()])
    )
    truth_tails = quantiles(next(iter(tallies.values())).sums["histogram_truth"], known.edges, TAILS)
    report["quantile_truth"] = ("quantile", truth_tails)
    report["threshold_value"] = ("threshold", thresholds)
    report["climate"], report["missing"] = known.std, known.missing
    return report.assign_coords(quantile=list(TAILS), threshold=np.array(labels)), block


def _memory(tallies: Mapping[str, Tally], block: int | None) -> tuple[int, float]:
    """Samples a block and inflation of variances: the longest memory of squared errors and CRPS of any contender."""
    found = [
        memory(t.series[k][..., 0].sum(1) / np.maximum(t.series["weight"][..., 0].sum(1), 1e-300))
        for t in tallies.values()
        for k in ("crps", "squared_error")
    ]
    return block or max(b for b, _ in found), max(i for _, i in found)


def _row(tally: Tally, plan: Plan, known: Survey, inflation: float) -> xr.Dataset:
    """What is not a score with an interval, of one contender."""
    sums, members = tally.sums, plan.members
    out = xr.Dataset()
    shares = sums["rank"] / np.maximum(sums["rank"].sum(-1, keepdims=True), 1e-300)
    out["rank"] = (("group", "k"), shares if members > 1 else np.full_like(shares, np.nan))
    tests = [
        flatness(
            sums["rank"][g], sums["rank_square"][g], sums["rank_weight"][g], float(sums["weight_square"][g]),
            int((group.cases[tally.index].any(1)).sum()), inflation,
        )
        for g, group in enumerate(plan.groups)
    ]  # fmt: skip
    out["rank_chi_square"] = ("group", [t.chi_square if members > 1 else np.nan for t in tests])
    out["rank_p"] = ("group", [t.p if members > 1 else np.nan for t in tests])
    out["rank_deviation"] = (
        "group",
        ensemble.rank_deviation(sums["rank"]) if members > 1 else np.full(len(tests), np.nan),
    )
    out["coverage_nominal"] = (
        "level",
        [ensemble.central_interval(members, v)[1] if members > 1 else np.nan for v in plan.levels],
    )
    for key, values in reliability.brier(sums["reliability"]).items():
        out[f"brier_{key}"] = (("group", "threshold"), values)
    bins = np.array([reliability.reliability(c) for c in sums["reliability"][0]]).reshape(-1, 3, reliability.BINS)
    for i, key in enumerate(("forecast", "observed", "share")):
        out[f"reliability_{key}"] = (("threshold", "probability"), bins[:, i])
    if plan.spectra:
        fields = np.array([(tally.series["fields"] * g.cases[tally.index]).sum() for g in plan.groups])
        with np.errstate(divide="ignore", invalid="ignore"):
            for key in ("power", "power_truth"):
                out[key] = (("group", "wavenumber"), sums[key] / fields[:, None] * plan.scale**2)
        out = out.assign_coords(wavenumber=np.arange(1, sums["power"].shape[1] + 1))
    out["quantile_value"] = ("quantile", quantiles(sums["histogram"], plan.edges, TAILS))
    weight, variance, error = sums["spread_bins"]
    with np.errstate(divide="ignore", invalid="ignore"):
        out["spread_bin"] = ("bin", np.sqrt(variance / weight) * plan.scale)
        out["error_bin"] = ("bin", np.sqrt(error / weight) * plan.scale)
        out["share_bin"] = ("bin", weight / weight.sum())
    count = float(sums["copies"][members, members]) * (members - 1)
    out["copies"] = float(tally.series["copies"].sum()) / count if count else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        crps = tally.series["crps"][..., 0].sum(1) / tally.series["weight"][..., 0].sum(1) * plan.scale
    worst = np.argsort(np.nan_to_num(crps, nan=-np.inf))[::-1][:WORST]
    out["worst"], out["worst_crps"] = ("place", worst), ("place", crps[worst])
    out["lost"] = float(sums["points"][2] / sums["points"][0])
    return out.assign_coords(level=list(plan.levels), bin=np.arange(len(SPREADS) - 1), k=np.arange(members + 1))


def _intervals(
    tallies: Mapping[str, Tally], plans: Mapping[str, Plan], known: Survey, chosen: str, block: int, settings: Settings
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
    """Scores, and scores against the reference, (group, 3) by model and score."""
    numbers: dict[str, dict[str, list[Array]]] = {m: {} for m in tallies}
    against: dict[str, dict[str, list[Array]]] = {m: {} for m in tallies}
    for g in range(len(next(iter(plans.values())).groups)):
        drawn: dict[str, dict[str, Array]] = {}
        for model, tally in tallies.items():
            cols = columns(tally, plans[model], g)
            wide = {k: v.reshape(len(v), -1) for k, v in cols.items()}
            stacked = np.concatenate(list(wide.values()), 1)
            means = stacked.mean(0, keepdims=True)
            if len(stacked) >= 2 * block:
                again = resampled(stacked, draws=settings.draws, block=block, seed=settings.seed)
            else:
                again = np.full((1, stacked.shape[1]), np.nan)
            stops = np.cumsum([v.shape[1] for v in wide.values()])[:-1]
            parts = np.split(np.concatenate([means, again]), stops, axis=1)
            sums = {k: p if cols[k].ndim > 1 else p[:, 0] for k, p in zip(wide, parts, strict=True)}
            drawn[model] = scores(sums, plans[model], known.std)
        for model, table in drawn.items():
            for score, values in table.items():
                numbers[model].setdefault(score, []).append(_three(values))
                base = drawn[chosen].get(score)
                kind = compared(score)
                if base is None or kind is None or model == chosen:
                    continue
                with np.errstate(divide="ignore", invalid="ignore"):
                    other = values / base if kind == "ratio" else values - base
                against[model].setdefault(score, []).append(_three(other))
    full = len(next(iter(plans.values())).groups)

    def filled(table: dict[str, list[Array]]) -> dict[str, Array]:
        """A score that a region cannot have is NaN there: joint ones come for the first groups only."""
        return {k: np.array(v + [np.full(3, np.nan)] * (full - len(v))) for k, v in table.items()}

    return {m: filled(t) for m, t in numbers.items()}, {m: filled(t) for m, t in against.items()}


def _three(values: Array) -> Array:
    """Estimate, low and high of an estimate and its resamples."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(drawn) < max(len(values) // 2, 1):
        return np.array([values[0], np.nan, np.nan])
    return np.array([values[0], *np.quantile(drawn, [0.025, 0.975])])


def _say(one: Match, known: Survey, tallies: Mapping[str, Tally], plans: Mapping[str, Plan], notes: list[str]) -> None:
    """What a reader must know of the values themselves."""
    name = one.name
    if (
        known.edges[0] == known.edges[-1]
        or known.std == 0
        or len(np.unique(known.values[:: max(len(known.values) // 1000, 1)])) == 1
    ):
        notes.append(f"'{name}' of the truth hardly varies: ratios to its variance say nothing.")
    if known.missing:
        never = f", of them all of {100 * known.never:.3g} % of the cells" if known.never else ""
        notes.append(
            f"{100 * known.missing:.3g} % of the values of '{name}' are missing in the truth{never}: left out."
        )
    for model, tally in tallies.items():
        total, absent, lost = tally.sums["points"]
        if total == absent + lost:
            raise UserError(f"'{name}' of samples '{model}' has no value where the truth has one.")
        if lost:
            notes.append(
                f"samples '{model}' lack {100 * lost / total:.3g} % of the values of '{name}' that the truth has: "
                "judged where both have one."
            )
        if plans[model].members < 2:
            notes.append(f"samples '{model}' have a single member: spread, ranks and coverage cannot be said.")
            continue
        _say_copies(name, model, tally, plans[model].members, notes)


def _say_copies(name: str, model: str, tally: Tally, members: int, notes: list[str]) -> None:
    """Members that repeat one another."""
    fields = tally.sums["copies"][members, members]
    share = tally.series["copies"].sum() / max(fields * (members - 1), 1)
    pairs = np.argwhere(np.tril(tally.sums["copies"][:members, :members] > 0.5 * fields, -1))
    if len(pairs):
        told = ", ".join(f"{b} and {a}" for a, b in pairs[:4].tolist()) + (", …" if len(pairs) > 4 else "")
        notes.insert(
            0,
            f"COPIES: members of samples '{model}' are copies of one another in '{name}' ({told}, counted from 0). The "
            f"ensemble is smaller than it looks; {100 * share:.3g} % of its members repeat an earlier one.",
        )
    elif share > 0.05:
        notes.insert(
            0, f"COPIES: {100 * share:.3g} % of the members of samples '{model}' repeat an earlier one in '{name}'."
        )
