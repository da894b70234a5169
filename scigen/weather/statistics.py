"""Statistics of weather ensembles that average: numbers per time, to which any later block of times can be added.

Scores are made of their means (`metrics`), because a root or a ratio of means is not the mean of roots or ratios.
Area-weighted throughout, but for spectra.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.io.blocks import Forward
from scigen.metrics import ensemble
from scigen.metrics.histogram import bin_edges, histogram
from scigen.metrics.spectra import power_spectrum
from scigen.weather.area import block_means, cell_weights
from scigen.weather.grid import wraps
from scigen.weather.pairing import pair, space_dims

BLOCK_BYTES = 2**25
"""Members of one variable held in memory at once, as float64; the work on them takes a few times as much."""

WET = 0.1
"""Rain rate from which a cell counts as wet [mm h-1]."""

Array = NDArray[np.float64]
Parts = dict[str, tuple[tuple[str, ...], Any]]


def statistics(
    truth: xr.Dataset,
    samples: xr.Dataset,
    *,
    factor: int | None = None,
    edges: Mapping[str, np.ndarray] | None = None,
    name: str = "samples",
    seed: int = 0,
) -> xr.Dataset:
    """Statistics of one contender, per time and variable, whose plain means over time are meaningful.

    Args:
        truth: dims (time, Y, X).
        samples: dims (time, member, Y, X), or without `member` for a deterministic contender; may be lazy.
        factor: cells a side of the coarse cells whose means should be conserved; None leaves that out.
        edges: bin edges of the histograms by variable [units]; None takes them from the range of this truth. Blocks
            that are to be merged need the same edges.
        name: of the contender, for messages.
        seed: of the random order of ties in the ranks; with the time it fixes them, in whatever blocks times come.

    Returns:
        `crps` fair [units], `error` of the ensemble mean [units], `squared_error` and `variance` (ddof = 1) [units²],
        `conservation` (mean square of A x − A truth) [units²], for rain rates `wet` and `wet_truth` (share of wet
        cells), all (variable, time) area means; `ranks`
        (variable, time, rank) area shares; `power` of a member, averaged over members, and `power_truth`
        (variable, time, wavenumber) [units²]; `histogram`, `histogram_truth` (variable, bin) area-weighted counts over
        all times, on `edges` (variable, edge). NaN stands for what one member cannot say. attrs: members.

    Raises:
        UserError: if the two do not fit (`pair`) or a value is not finite.
    """
    truth, paired = pair(truth, {name: samples})
    samples = paired[name]
    dims = space_dims(truth)
    members, size = samples.sizes["member"], [truth.sizes[d] for d in dims]
    if factor is not None and not 1 <= factor <= min(size):
        raise UserError(f"factor={factor} leaves no coarse cell of {size[0]} x {size[1]} cells: take 1 … {min(size)}.")
    weights, closes = cell_weights(truth, dims), wraps(truth, dims)
    edges = survey(truth) if edges is None else edges
    if missing := set(map(str, truth.data_vars)) - set(edges):
        raise UserError(f"There are no bin edges for {sorted(missing)}: take those of survey(truth).")
    step = max(1, BLOCK_BYTES // (8 * members * size[0] * size[1]))
    variables = []
    for variable in map(str, truth.data_vars):
        blocks, wet = [], WET if truth[variable].attrs.get("units") == "mm h-1" else None
        drawn = _blocks(samples[variable], step, f"samples '{name}'")
        for (lo, y), (_, x) in zip(_blocks(truth[variable], step, "the truth"), drawn, strict=True):
            _check_finite(x, samples[variable], lo, f"samples '{name}'", "the archive is unfinished: sample it again")
            one = _block(y, np.moveaxis(x, 1, 0), weights, factor, edges[variable], closes, wet)
            blocks.append(one.assign(ranks=_ranks(samples[variable], x, y, lo, weights, seed)))
        variables.append(_join(blocks))
    result = xr.concat(variables, xr.Variable("variable", np.array(list(map(str, truth.data_vars)))))
    result = result.assign_coords(time=truth["time"])
    result.attrs = {"members": members}
    return result


def merge(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """One dataset of statistics from those of several blocks of times: times are strung together, histograms added.

    Raises:
        UserError: if the blocks differ in members or bin edges.
    """
    for part in parts[1:]:
        if part.attrs["members"] != parts[0].attrs["members"] or not np.array_equal(part["edges"], parts[0]["edges"]):
            raise UserError(
                "Only statistics with equal member counts and bin edges merge: pass the same edges to each block."
            )
    return _join(parts).assign_attrs(parts[0].attrs)


def survey(truth: xr.Dataset) -> dict[str, np.ndarray]:
    """Bin edges for every variable of the truth, half its range wider on both sides.

    Args:
        truth: dims (time, Y, X); may be lazy.

    Returns:
        (bins + 1,) edges [units] by variable.

    Raises:
        UserError: if the truth has a value that is not finite, naming variable and time.
    """
    dims = space_dims(truth)
    step = max(1, BLOCK_BYTES // (8 * truth.sizes[dims[0]] * truth.sizes[dims[1]]))
    edges = {}
    for variable, field in truth.data_vars.items():
        low, high = math.inf, -math.inf
        for lo, y in _blocks(field, step, "the truth"):
            _check_finite(y, field, lo, "the truth", "fill or leave out such times before comparing")
            low, high = min(low, float(y.min())), max(high, float(y.max()))
        edges[str(variable)] = bin_edges(low, high)
    return edges


def _blocks(field: xr.DataArray, step: int, what: str) -> Iterator[tuple[int, np.ndarray]]:
    """(first time, values float64) of blocks of `step` times; every chunk of the file is read once."""
    count = field.sizes["time"]
    source = Forward(field.to_dataset(name="field"), "time", what)
    for lo in range(0, count, step):
        yield lo, np.asarray(source[slice(lo, min(lo + step, count))]["field"].values, np.float64)


def _check_finite(values: np.ndarray, field: xr.DataArray, lo: int, who: str, remedy: str) -> None:
    """Every value of a block (time first) that starts at time `lo` is finite."""
    if not np.isfinite(values).all():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
        when = field["time"].values[lo + int(bad.argmax())]
        raise UserError(f"'{field.name}' of {who} has missing or infinite values, first at time {when}: {remedy}.")


def _block(
    y: Array, x: Array, weights: Array, factor: int | None, edges: Array, closes: bool, wet: float | None
) -> xr.Dataset:
    """Statistics of one block, but for the ranks: truth y (time, Y, X), members x (member, time, Y, X).

    `closes`: whether the columns go around the globe; `wet`: value from which a cell is wet, None where nothing is.
    """
    members = len(x)

    def mean(field: np.ndarray) -> np.ndarray:
        return (field * weights).mean((-2, -1))

    error = x.mean(0) - y
    none = np.full(len(y), np.nan)
    parts: Parts = {
        "crps": (("time",), mean(ensemble.fair_crps(x, y))),
        "error": (("time",), mean(error)),
        "squared_error": (("time",), mean(error**2)),
        "variance": (("time",), mean(x.var(0, ddof=1)) if members > 1 else none),
    }
    wavenumber, power = power_spectrum(x, (False, closes))
    parts["power"] = (("time", "wavenumber"), power.mean(0))
    parts["power_truth"] = (("time", "wavenumber"), power_spectrum(y, (False, closes))[1])
    if wet is not None:
        parts["wet"], parts["wet_truth"] = (("time",), mean((x >= wet).mean(0))), (("time",), mean(y >= wet))
    else:
        parts["wet"] = parts["wet_truth"] = (("time",), none)
    if factor is not None:
        coarse, area = block_means(x - y, weights, factor)
        parts["conservation"] = (("time",), (coarse**2 * area).mean((0, -2, -1)))
    parts["histogram"] = (("bin",), histogram(x, edges, weights))
    parts["histogram_truth"] = (("bin",), histogram(y, edges, weights))
    parts["edges"] = (("edge",), edges)
    return xr.Dataset(parts, coords={"wavenumber": wavenumber})


def _ranks(samples: xr.DataArray, x: Array, y: Array, lo: int, weights: Array, seed: int) -> xr.DataArray:
    """Area shares of the truth's ranks in a block that starts at time `lo`: (time, rank), NaN for a single member."""
    members = x.shape[1]
    shares = np.full((len(y), members + 1), np.nan)
    for i in range(len(y)) if members > 1 else ():
        rng = np.random.default_rng([seed, *str(samples["time"].values[lo + i]).encode()])
        rank = ensemble.ranks(x[i], y[i], rng)
        shares[i] = np.bincount(rank.ravel(), weights.ravel(), members + 1) / weights.size
    return xr.DataArray(shares, coords={"rank": np.arange(members + 1)}, dims=("time", "rank"))


def _join(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Blocks of statistics as one: what has a time is concatenated, histograms are added, edges are kept."""
    timed = [p[[k for k in p.data_vars if "time" in p[k].dims]] for p in parts]
    joined = xr.concat(timed, "time", join="exact")
    for key in ("histogram", "histogram_truth"):
        joined[key] = parts[0][key].copy(data=np.sum([p[key].values for p in parts], axis=0))
    joined["edges"] = parts[0]["edges"]
    return joined
