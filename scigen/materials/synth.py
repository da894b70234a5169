"""The default data: spinodal microstructures with exact volume fractions, and the parameters of their making."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.materials.assign import counts, largest_with
from scigen.materials.phasefield import CahnHilliard

log = logging.getLogger(__name__)

ATTRIBUTE = "scigen_process"
PROCESS = {
    "anisotropy": {"long_name": "gradient energy along z over that along y and x", "units": "1"},
    "coarsening_time": {"long_name": "time since the quench", "units": "1"},
}
NAMES = ("pore", "solid", "binder")
"""Phases of the default data, in order."""


@dataclass(frozen=True)
class Process:
    """How the default specimens are made.

    Attributes:
        size: voxels a side, or along z, y, x.
        phases: 2 or 3.
        simulations: number of independent simulations.
        snapshots: of each, at random times.
        anisotropy: range of the gradient energy along z over that along y and x, drawn log-uniformly. Below 1 layers
            form across z, above 1 columns along it: without it the volume fraction alone would fix the transport.
        time: range of coarsening times, drawn log-uniformly; three phases take twice as long.
        fraction: least volume fraction of any phase.
        kappa: gradient energy [voxel²]: the interface is √(2 kappa) voxels wide.
        seed: of everything.
    """

    size: int | tuple[int, int, int] = 32
    phases: int = 2
    simulations: int = 400
    snapshots: int = 3
    anisotropy: tuple[float, float] = (0.5, 2.0)
    time: tuple[float, float] = (40.0, 160.0)
    fraction: float = 0.25
    kappa: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            UserError: for numbers that make no specimens.
        """
        sides = (self.size,) * 3 if isinstance(self.size, int) else tuple(self.size)
        object.__setattr__(self, "size", sides)
        for key in ("anisotropy", "time"):
            low, high = (float(v) for v in getattr(self, key))
            object.__setattr__(self, key, (low, high))
            if not 0 < low <= high:
                raise UserError(f"data.synth.{key}={[low, high]}: expected 0 < low <= high.")
        if self.phases not in (2, 3):
            raise UserError(f"data.synth.phases={self.phases}: 2 or 3.")
        if len(sides) != 3 or min(sides) < 8:
            raise UserError(f"data.synth.size={list(sides)}: one or three numbers of at least 8 voxels.")
        if self.simulations < 3 or self.snapshots < 1 or self.kappa <= 0:
            raise UserError("data.synth: at least 3 simulations (one a split), 1 snapshot, and kappa above 0.")
        if not 0 < self.fraction * self.phases < 1:
            raise UserError(f"data.synth.fraction={self.fraction}: {self.phases} phases have room for less than that.")

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        assert not isinstance(self.size, int)
        return self.size

    def simulation(self, number: int) -> Iterator[tuple[np.ndarray, dict[str, float]]]:
        """Labels (Z, Y, X) and process parameters of the snapshots of one simulation."""
        rng = np.random.default_rng([self.seed, number])
        room = 1 - self.phases * self.fraction
        share = self.fraction + room * rng.dirichlet(np.ones(self.phases))
        ratio = math.exp(rng.uniform(math.log(self.anisotropy[0]), math.log(self.anisotropy[1])))
        slow = 1.0 if self.phases == 2 else 2.0
        low, high = map(math.log, self.time)
        times = np.sort(slow * np.exp(rng.uniform(low, high, self.snapshots))).tolist()
        run = CahnHilliard(self.sides, share.tolist(), (self.kappa * ratio, self.kappa, self.kappa), rng)
        wanted = counts(share, int(np.prod(self.sides)))
        for time, u in zip(times, run.snapshots(times), strict=True):
            yield largest_with(u, wanted), {"anisotropy": ratio, "coarsening_time": float(time)}

    def to_json(self) -> str:
        """The parameters as JSON."""
        return json.dumps(asdict(self))


def make(process: Process, progress: Callable[[int], None] | None = None) -> xr.Dataset:
    """Make the default specimens.

    Args:
        process: how.
        progress: called with the number of simulations done.

    Returns:
        phase (specimen, z, y, x) uint8; simulation, anisotropy, coarsening_time (specimen). Periodic, of unit voxels.
    """
    total = process.simulations * process.snapshots
    labels = np.empty((total, *process.sides), np.uint8)
    rows: list[dict[str, float]] = []
    for i in range(process.simulations):
        for own, row in process.simulation(i):
            labels[len(rows)] = own
            rows.append(row)
        if progress:
            progress(i + 1)
    names = NAMES[: process.phases]
    about = {"flag_values": np.arange(process.phases, dtype=np.uint8), "flag_meanings": " ".join(names)}
    out = xr.Dataset(
        {
            "phase": (("specimen", "z", "y", "x"), labels, about),
            "simulation": ("specimen", np.repeat(np.arange(process.simulations), process.snapshots)),
        },
        coords={"specimen": np.arange(total)},
        attrs={
            "title": "Spinodal microstructures", "voxel_size": [1.0, 1.0, 1.0], "voxel_unit": "voxel",
            "periodic": [1, 1, 1], ATTRIBUTE: process.to_json(),
        },
    )  # fmt: skip
    for name, attrs in PROCESS.items():
        out[name] = ("specimen", np.array([r[name] for r in rows]), attrs)
    return out
