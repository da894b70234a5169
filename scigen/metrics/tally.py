"""Statistics of an ensemble that add up: sums over samples, and a few numbers a sample for intervals.

Any number of blocks, judged in any order by any number of workers, merge into the tally of the whole.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.metrics import patches
from scigen.metrics.ensemble import central_interval
from scigen.metrics.grouping import Group
from scigen.metrics.histogram import histogram
from scigen.metrics.pointwise import Points
from scigen.metrics.spectra import annuli, power_spectrum

Array = NDArray[np.float64]

TILE = 2**20
"""Values of members worked on at once."""

SPECTRA = 4
"""Members of a field whose spectrum is taken: as many, the next ones for the next sample."""

BANDS = 16
"""Logarithmic bands of wavenumbers, at most, that the log-spectral distance is taken over."""

SPREADS = np.concatenate([[0.0], np.geomspace(1e-3, 10, 25), [np.inf]])
"""Edges of bins of spread over the truth's standard deviation."""

SAME = 1e-4
"""Two members whose projections differ by less than this share of what members usually differ by are copies."""


@dataclass(frozen=True)
class Plan:
    """What is counted of a variable.

    Attributes:
        members: of the contender.
        shape: of space.
        weights: (R, cells) of regions, the first everywhere; areas are in them.
        groups: whose sums are kept; the first is all.
        thresholds: (T,) [units].
        events: (T,) what exceeding them is called.
        levels: of coverage.
        edges: of the histogram [units].
        scale: that deviations are divided by [units].
        spectra: whether a spectrum makes sense.
        periodic: which dimensions of space close.
    """

    members: int
    shape: tuple[int, ...]
    weights: Array
    groups: Sequence[Group]
    thresholds: Array
    events: Sequence[str]
    levels: Sequence[float]
    edges: Array
    scale: float
    spectra: bool = False
    periodic: Sequence[bool] = ()

    def bands(self) -> NDArray[np.int64]:
        """The band of every wavenumber 1 … K."""
        count = int(annuli(self.shape, list(self.periodic)).max())
        edges = np.unique(np.geomspace(1, count + 1, min(BANDS, count) + 1).round().astype(int))
        return np.searchsorted(edges, np.arange(1, count + 1), "right") - 1


@dataclass(frozen=True)
class Tally:
    """Statistics of some samples.

    Attributes:
        index: (n,) which samples, by number.
        series: numbers of every sample: sums over its cells, (n, E, R) or with another dimension behind; of joint
            statistics (n, E, …).
        sums: over samples.
    """

    index: NDArray[np.int64]
    series: dict[str, Array]
    sums: dict[str, Array]

    def ordered(self) -> "Tally":
        """The same with samples in their order."""
        order = np.argsort(self.index, kind="stable")
        return Tally(self.index[order], {k: v[order] for k, v in self.series.items()}, self.sums)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for a in (self.index, *self.series.values(), *self.sums.values()))


def merge(*parts: Tally) -> Tally:
    """The tally of all samples of several tallies, in whatever order.

    Raises:
        UserError: if a sample is in two of them, or they count different things.
    """
    index = np.concatenate([p.index for p in parts])
    if len(np.unique(index)) < len(index):
        raise UserError("A sample is in two of the tallies that are to be merged: give each its own samples.")
    first = parts[0]
    for part in parts[1:]:
        same = all(part.sums[k].shape == v.shape for k, v in first.sums.items()) and set(part.sums) == set(first.sums)
        if not same:
            raise UserError("Only tallies of one plan merge: equal members, groups, thresholds, bins and cells.")
    series = {k: np.concatenate([p.series[k] for p in parts]) for k in first.series}
    return Tally(index, series, {k: np.sum([p.sums[k] for p in parts], axis=0) for k in first.sums})


def tally(plan: Plan, members: NDArray, truth: NDArray, index: NDArray[np.int64]) -> Tally:
    """Judge a block of samples.

    Args:
        plan: what to count.
        members: (n, M, E, cells) [units].
        truth: (n, E, cells) [units].
        index: (n,) numbers of the samples, which choose their places in groups and the members of spectra.
    """
    each = max(TILE // max(members[0].size, 1), 1)
    parts = [
        _tile(plan, members[lo : lo + each], truth[lo : lo + each], index[lo : lo + each])
        for lo in range(0, len(index), each)
    ]
    return parts[0] if len(parts) == 1 else merge(*parts)


def _tile(plan: Plan, members: NDArray, truth: NDArray, index: NDArray[np.int64]) -> Tally:
    n, count, cases, cells = members.shape
    x = np.ascontiguousarray(np.moveaxis(members, 1, 0)).reshape(count, -1)
    y = truth.ravel()
    p = Points.of(x, y, plan.thresholds, plan.scale)
    series, sums = _marginal(plan, p, index, (n, cases, cells))
    good = p.valid.reshape(n, cases, cells)
    weights = np.where(p.valid, np.broadcast_to(plan.weights[0], (n * cases, cells)).ravel(), 0.0)
    whole = bool(p.valid.all())
    even = whole and bool((plan.weights[0] == plan.weights[0, 0]).all())
    clean = x if whole else np.where(p.valid, x, 0)
    seen = y if whole else np.where(p.valid, y, 0)
    each = plan.weights[0, 0] if even else weights
    sums["histogram"] = sum((histogram(row, plan.edges, each) for row in clean), np.zeros(len(plan.edges) + 1))
    sums["histogram_truth"] = histogram(seen, plan.edges, each)
    lost = ~p.valid & np.isfinite(y)
    sums["points"] = np.array([y.size, (~np.isfinite(y)).sum(), lost.sum()], np.float64)
    series |= _joint(plan, clean, seen, good)
    series |= _copies(plan, clean, weights, (n, cases, cells), sums)
    if plan.spectra:
        _spectra(plan, clean.reshape(count, n, cases, cells), seen.reshape(n, cases, cells), good, index, series, sums)
    return Tally(np.asarray(index, np.int64), series, sums)


def _marginal(
    plan: Plan, p: Points, index: NDArray[np.int64], shape: tuple[int, int, int]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Statistics of points: means over cells of every sample, and counts by group."""
    n, cases, cells = shape
    count, fields = plan.members, n * cases
    series: dict[str, list[Array]] = {}
    ranks, counts = [], []
    number = np.arange(fields * cells) // cells
    levels = [central_interval(count, level)[0] for level in plan.levels] if count > 1 else []
    for weight in plan.weights:
        w = np.broadcast_to(weight, (fields, cells)) * p.valid.reshape(fields, cells)
        flat = w.ravel()

        def total(values: NDArray, w: Array = w) -> Array:
            return np.einsum("fc,fc->f", w, values.reshape(fields, cells).astype(np.float64))

        row = {
            "weight": w.sum(1),
            "crps": total(p.crps),
            "error": total(p.error),
            "absolute_error": total(np.abs(p.error)),
            "squared_error": total(p.error.astype(np.float64) ** 2),
            "variance": total(p.variance),
        }
        share = flat / (p.equal + 1)  # a truth that equals members shares its weight among the ranks it could have
        place = number * (count + 2) + p.below
        rank = np.bincount(place, share, fields * (count + 2))
        rank -= np.bincount(place + p.equal + 1, share, fields * (count + 2))
        rank = np.cumsum(rank.reshape(fields, count + 2), 1)[:, :-1]
        ranks.append(rank)
        for i, k in enumerate(levels):
            row[f"cover{i}"] = rank[:, k : count + 1 - k].sum(1)
        told = []
        for i, (above, hit) in enumerate(zip(p.above, p.hit, strict=True)):
            one = np.bincount((number * (count + 1) + above) * 2 + hit, flat, fields * (count + 1) * 2)
            told.append(one.reshape(fields, count + 1, 2))
            chance = np.arange(count + 1) / count
            score = told[-1][..., 0] @ chance**2 + told[-1][..., 1] @ (1 - chance) ** 2
            row[f"brier{i}"] = score - (told[-1].sum(-1) @ (chance * (1 - chance)) / (count - 1) if count > 1 else 0)
        counts.append(np.stack(told, 1) if told else np.zeros((fields, 0, count + 1, 2)))
        for key, values in row.items():
            series.setdefault(key, []).append(values.reshape(n, cases))
    sums: dict[str, Array] = {"rank": [], "rank_square": [], "rank_weight": [], "weight_square": [], "reliability": []}  # type: ignore[dict-item]
    for group in plan.groups:
        chosen = group.cases[index].astype(np.float64)
        mine = np.einsum("ne,nek->nk", chosen, ranks[group.region].reshape(n, cases, -1))
        own = np.einsum("ne,ne->n", chosen, series["weight"][group.region])
        for key, values in (
            ("rank", mine.sum(0)),
            ("rank_square", (mine**2).sum(0)),
            ("rank_weight", own @ mine),
            ("weight_square", (own**2).sum()),
            ("reliability", np.tensordot(chosen.ravel(), counts[group.region], 1)),
        ):
            sums[key].append(values)  # type: ignore[attr-defined]
    result = {k: np.array(v) for k, v in sums.items()}
    spread = np.sqrt(p.variance.astype(np.float64))
    w = np.broadcast_to(plan.weights[0], (fields, cells)).ravel() * p.valid
    where = np.searchsorted(SPREADS, spread, "right") - 1
    result["spread_bins"] = np.stack(
        [np.bincount(where, w * v, len(SPREADS) - 1) for v in (1.0, p.variance, p.error.astype(np.float64) ** 2)]
    )
    return {k: np.stack(v, -1) for k, v in series.items()}, result


def _joint(plan: Plan, x: NDArray, y: NDArray, good: NDArray[np.bool_]) -> dict[str, Array]:
    """Energy and variogram scores on patches: sums over patches, and their number."""
    n, cases, cells = good.shape
    places = patches.lay(plan.shape)
    sides = [min(patches.SIDE.get(len(plan.shape), 2), s) for s in plan.shape]
    pairs, weights = patches.choose_pairs(sides)
    fields = np.moveaxis(x.reshape(plan.members, n, cases, cells)[..., places], 0, -2).astype(np.float64) / plan.scale
    seen = y.reshape(n, cases, cells)[..., places].astype(np.float64) / plan.scale
    whole = good[..., places].all(-1)
    energy = patches.energy_scores(fields - seen[..., None, :])
    out = {"patches": whole.sum(-1).astype(np.float64), "energy": (energy * whole).sum(-1)}
    if pairs.shape[1]:
        out["variogram"] = (patches.variogram_scores(fields, seen, pairs, weights) * whole).sum(-1)
    return out


def _copies(
    plan: Plan, x: NDArray, weights: Array, shape: tuple[int, int, int], sums: dict[str, Array]
) -> dict[str, Array]:
    """How many members of a field repeat an earlier one, by projections on random directions; and of which pairs."""
    n, cases, cells = shape
    count = plan.members
    together = np.zeros((count, count))
    if count < 2:
        sums["copies"] = np.zeros((count + 1, count + 1))
        return {"copies": np.zeros((n, cases))}
    away = _directions(cells)
    first = x.reshape(count, n * cases, cells)
    seen = (first - first[0]).astype(np.float32) @ away.T  # (M, fields, 4)
    apart = np.abs(seen[:, None] - seen[None]).max(-1)  # (M, M, fields)
    usual = np.median(apart[np.triu_indices(count, 1)], axis=0)
    largest = apart.max((0, 1))
    usual = np.where(usual > 0, usual, largest)
    alive = largest > 0
    limit = SAME * usual if cells >= 16 else np.zeros_like(usual)
    same = (apart <= limit) & (alive | (weights.reshape(n * cases, cells).sum(1) > 0))
    together = same.sum(-1).astype(np.float64)
    earlier = np.tril(np.ones((count, count), bool), -1)
    repeats = (same & earlier[:, :, None]).any(1).sum(0)
    sums["copies"] = np.zeros((count + 1, count + 1))
    sums["copies"][:count, :count] = together
    sums["copies"][count, count] = n * cases
    return {"copies": repeats.reshape(n, cases).astype(np.float64)}


@functools.cache
def _directions(cells: int) -> NDArray[np.float32]:
    """Random directions (4, cells) of either sign."""
    rng = np.random.default_rng(1)
    sign = 1 - 2 * rng.integers(0, 2, (4, cells))
    return (sign * (0.5 + rng.random((4, cells)))).astype(np.float32)


def _spectra(
    plan: Plan, x: NDArray, y: NDArray, good: NDArray[np.bool_], index: NDArray[np.int64],
    series: dict[str, Array], sums: dict[str, Array],
) -> None:  # fmt: skip
    """Power of members and truth by wavenumber, of fields without a gap."""
    n = len(good)
    count, dims = plan.members, len(plan.shape)
    whole: Array = np.asarray(good.all(-1), np.float64)
    some = (index[:, None] * SPECTRA + np.arange(min(SPECTRA, count))) % count
    chosen = np.stack([x[some[i], i] for i in range(n)])  # (n, some, E, cells)
    told, true = (
        power_spectrum(v.reshape(*v.shape[:-1], *plan.shape) / plan.scale, list(plan.periodic), dims)[1]
        for v in (chosen, y)
    )
    power = np.asarray(told.mean(1)) * whole[..., None]
    seen = true * whole[..., None]
    bands = plan.bands()
    to_bands = np.eye(int(bands.max()) + 1)[bands]
    series["power"], series["power_truth"] = (np.asarray(v @ to_bands) for v in (power, seen))
    series["fields"] = whole
    chosen_by = [g.cases[index].astype(np.float64) for g in plan.groups]
    sums["power"] = np.array([np.tensordot(c, power, 2) for c in chosen_by])
    sums["power_truth"] = np.array([np.tensordot(c, seen, 2) for c in chosen_by])
