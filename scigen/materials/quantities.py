"""What a microstructure is conditioned on: fractions, transport, process parameters; any subset, the rest free."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from scigen.errors import UserError

AXES = ("z", "y", "x")
FRACTION, DIFFUSIVITY = "volume_fraction", "effective_diffusivity"


@dataclass(frozen=True)
class Quantity:
    """One number of a specimen.

    Attributes:
        name: such as volume_fraction_pore, effective_diffusivity_pore_z, coarsening_time.
        kind: volume_fraction, effective_diffusivity or process.
        log: whether it is normalised as its logarithm.
        mean: over the training specimens, of the logarithm where `log`.
        std: likewise.
        low: least value of the training specimens.
        high: largest.
    """

    name: str
    kind: str
    log: bool = False
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 1.0

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """To zero mean and unit spread over the training specimens; NaN stays NaN."""
        own = np.log(np.maximum(values, 1e-12)) if self.log else np.asarray(values, np.float64)
        return (own - self.mean) / self.std

    def fitted(self, values: np.ndarray) -> "Quantity":
        """With the statistics of training values (N,)."""
        own = np.log(values) if self.log else values
        std = float(own.std())
        return Quantity(
            self.name, self.kind, self.log, float(own.mean()), std if std > 1e-9 else 1.0,
            float(values.min()), float(values.max()),
        )  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return asdict(self)


def quantities(phases: Sequence[str], transport: Sequence[str], process: Sequence[str]) -> list[Quantity]:
    """All quantities: a fraction a phase, a diffusivity a conducting phase and axis, the process parameters.

    Process parameters are positive scales (a time, a ratio), normalised as logarithms.
    """
    out = [Quantity(f"{FRACTION}_{p}", FRACTION) for p in phases]
    out += [Quantity(f"{DIFFUSIVITY}_{p}_{a}", DIFFUSIVITY) for p in transport for a in AXES]
    return out + [Quantity(name, "process", log=True) for name in process]


def fractions_of(inputs: xr.Dataset, phases: Sequence[str]) -> np.ndarray:
    """Volume fractions (specimens, P) of prepared inputs, NaN where they are free."""
    return np.stack([np.asarray(inputs[f"{FRACTION}_{p}"].values, np.float64) for p in phases], axis=1)


def complete(inputs: xr.Dataset, phases: Sequence[str]) -> xr.Dataset:
    """Inputs whose fractions are checked; where all but one are given, the last follows.

    Raises:
        UserError: for fractions outside [0, 1] or that do not add up to 1.
    """
    share = fractions_of(inputs, phases)
    bad = np.isfinite(share) & ((share < 0) | (share > 1))
    if bad.any():
        i, p = np.argwhere(bad)[0]
        raise UserError(
            f"{FRACTION}_{phases[p]}={share[i, p]:g} (specimen {i}): a volume fraction lies between 0 and 1."
        )
    free, total = np.isnan(share), np.nansum(share, axis=1)
    over = (total > 1 + 1e-4) | (~free.any(1) & (abs(total - 1) > 1e-4))
    if over.any():
        i = int(np.argmax(over))
        told = ", ".join(f"{p} {v:g}" for p, v in zip(phases, share[i], strict=True) if np.isfinite(v))
        raise UserError(
            f"Volume fractions add up to {total[i]:.4g} (specimen {i}: {told}): they must add up to 1. Leave one out"
            " and it follows."
        )
    last = free.sum(1) == 1
    share[last] = np.where(free[last], np.maximum(1 - total[last], 0.0)[:, None], share[last])
    dim = inputs[f"{FRACTION}_{phases[0]}"].dims
    return inputs.assign({f"{FRACTION}_{p}": (dim, share[:, i]) for i, p in enumerate(phases)})


def check_transport(inputs: xr.Dataset, known: Sequence[Quantity], phases: Sequence[str]) -> None:
    """Refuse diffusivities that no microstructure of these fractions has: D_eff/D₀ ≤ φ, the parallel bound.

    Raises:
        UserError: naming the value, the bound and the remedy.
    """
    for q in known:
        if q.kind != DIFFUSIVITY:
            continue
        phase = next(p for p in phases if q.name == f"{DIFFUSIVITY}_{p}_{q.name[-1]}")
        values = np.asarray(inputs[q.name].values, np.float64)
        bound = np.nan_to_num(np.asarray(inputs[f"{FRACTION}_{phase}"].values, np.float64), nan=1.0)
        wrong = np.isfinite(values) & ((values < 0) | (values > bound + 1e-6))
        if wrong.any():
            i = int(np.argmax(wrong))
            raise UserError(
                f"{q.name}={values[i]:g} (specimen {i}) is impossible: D_eff/D₀ lies between 0 and the volume fraction"
                f" of {phase}, {bound[i]:g} here, which straight channels reach (τ = 1). Lower it, or raise the"
                " fraction."
            )


def outside(inputs: xr.Dataset, known: Sequence[Quantity]) -> list[str]:
    """Sentences about given values outside the range of the training specimens."""
    out = []
    for q in known:
        values = np.asarray(inputs[q.name].values, np.float64)
        slack = 0.02 * (q.high - q.low)
        far = values[np.isfinite(values) & ((values < q.low - slack) | (values > q.high + slack))]
        if far.size:
            out.append(
                f"{q.name}={far[0]:g} lies outside what was trained on, {q.low:.3g} to {q.high:.3g}"
                + (f" ({far.size} specimens)" if far.size > 1 else "")
            )
    return out


def asked(words: Mapping[str, object], known: Sequence[Quantity], specimens: int) -> xr.Dataset:
    """Inputs from words such as {volume_fraction_pore: 0.4}, one specimen or as many as a list has values.

    Raises:
        UserError: for an unknown name, no number, or lists of different lengths.
    """
    names = [q.name for q in known]
    count, rows = specimens, {}
    for name, value in words.items():
        if name not in names:
            raise UserError(f"condition.{name} is unknown to this bundle; it takes {', '.join(names)}.")
        try:
            numbers = np.atleast_1d(np.asarray(value, np.float64))
        except (TypeError, ValueError) as error:
            raise UserError(f"condition.{name}={value!r}: expected a number, or a list with one a specimen.") from error
        if numbers.size > 1 and count not in (1, numbers.size):
            raise UserError(f"condition.{name} has {numbers.size} values, where there are {count} specimens.")
        rows[name], count = numbers, max(count, numbers.size)
    data = {n: ("specimen", np.broadcast_to(rows.get(n, np.full(1, np.nan)), count).copy()) for n in names}
    return xr.Dataset(data, coords={"specimen": np.arange(count)})
