"""The materials domain: microstructures, tied together for fitting and judging."""

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.core.networks.autoencoder import Autoencoder
from scigen.errors import UserError
from scigen.materials import metrics, plots, tables
from scigen.materials.baseline import level_cuts
from scigen.materials.blocks import cut
from scigen.materials.data import measure, tell, training, whole
from scigen.materials.latent import indicators, latent_codec, with_latents
from scigen.materials.physics import MicrostructureCodec
from scigen.materials.process import ProcessModel, reader, with_process
from scigen.materials.quantities import FRACTION, quantities
from scigen.materials.specimens import Specimens, open_specimens
from scigen.materials.synth import Process, make
from scigen.materials.volumes import Phases
from scigen.plots.table import Table
from scigen.progress import progress

log = logging.getLogger(__name__)


class Materials(Domain):
    """Microstructures of labelled phases under conditions."""

    name = "materials"

    def __init__(
        self,
        path: str | Sequence[str] | None = None,
        phases: Phases | None = None,
        voxel_size: float | Sequence[float] | None = None,
        unit: str | None = None,
        shape: Sequence[int] | None = None,
        dtype: str = "uint8",
        variable: str | None = None,
        periodic: bool | Sequence[bool] = False,
        process: Sequence[str] | None = None,
        block: int | Sequence[int] | None = None,
        blocks: int = 1024,
        copies: int = 4,
        symmetry: str = "transverse",
        transport: Sequence[str] | None = None,
        known: float = 0.2,
        given: Sequence[str] = (FRACTION,),
        split: Sequence[float] = (0.7, 0.05, 0.25),
        workers: int = 1,
        synth: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Set where the data are and what of them is used: the keys of `data` in configs/domain/materials.yaml."""
        self.path, self.process, self.block, self.blocks = path, process, block, blocks
        self.reading = dict(
            phases=phases, voxel_size=voxel_size, unit=unit, shape=shape, dtype=dtype, variable=variable,
            periodic=periodic,
        )  # fmt: skip
        self.copies, self.symmetry, self.transport, self.told = copies, symmetry, transport, known
        self.reader: ProcessModel | None = None
        self.given, self.split, self.workers, self.seed = tuple(given), tuple(split), workers, seed
        known_keys = [f.name for f in fields(Process)]
        self.settings = dict(synth or {})
        if unknown := [k for k in self.settings if k not in known_keys]:
            raise UserError(f"data.synth.{unknown[0]}: the default data know {', '.join(known_keys)}.")
        if copies < 1 or blocks < 1 or not 0 <= known <= 1:
            raise UserError(f"data.copies={copies}, data.blocks={blocks}: at least 1; data.known={known}: from 0 to 1.")
        share = np.asarray(self.split, float)
        if len(share) != 3 or (share < 0).any() or abs(share.sum() - 1) > 1e-6 or share[0] == 0 or share[2] == 0:
            raise UserError(
                f"data.split={list(self.split)}: three shares, of training, validation and test, that add up to 1;"
                " training and test need one."
            )

    def synth(self, path: Path) -> Path:
        """Make the default specimens at `path` (zarr) unless they are there."""
        if not path.exists():
            process = Process(**self.settings)
            log.info("making the default data, %d simulations, at %s", process.simulations, path)
            with progress("simulations", process.simulations, "simulations") as advance:
                made = make(process, lambda done: advance(done, ""))
            partial = path.with_name(path.name + ".partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                made.chunk(specimen=64).to_zarr(partial, mode="w", consolidated=True)
            partial.rename(path)
        return path

    def open(self, cache: Path, codec: Codec | None = None) -> Data:
        """Read the volumes (or make the default ones under `cache`), cut, measure and split them."""
        path: Any = self.path
        reading: dict[str, Any] = self.reading
        if path is None:
            digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True, default=list).encode()).hexdigest()[:8]
            path = str(self.synth(cache / f"materials-{digest}.zarr"))
            reading = {}
        specimens = open_specimens(path, process=self.process, **reading)
        names = list(specimens.phases)
        transport = list(self.transport) if self.transport is not None else names[:1]
        if unknown := [p for p in transport if p not in names]:
            raise UserError(f"data.transport={unknown[0]}: the phases are {', '.join(names)}.")
        cutting = cut(specimens, self.block, self.split, self.blocks, self.seed)
        every = [b for part in cutting.blocks.values() for b in part]
        values = measure(specimens, cutting, every, transport, cache, self.workers)
        bounds = np.cumsum([0, *(len(part) for part in cutting.blocks.values())])
        of = {
            name: {k: v[bounds[i] : bounds[i + 1]] for k, v in values.items()}
            for i, name in enumerate(cutting.blocks)
        }  # fmt: skip
        known = quantities(names, transport, list(specimens.process))
        if codec is None:
            codec = MicrostructureCodec(
                cutting.size, names, [q.fitted(of["train"][q.name]) for q in known], periodic=cutting.periodic,
                voxel_size=specimens.volumes[0].voxel_size, unit=specimens.volumes[0].unit, inpaint=self.told > 0,
                mean=[float(of["train"][f"{FRACTION}_{p}"].mean()) for p in names],
            )  # fmt: skip
        elif not isinstance(codec, MicrostructureCodec):
            raise UserError("The teacher's bundle is not one for microstructures.")
        else:
            codec = _same(codec, specimens, cutting.size, cutting.periodic, [q.name for q in known], self.told > 0)
        if specimens.process:
            self.reader = reader(specimens, cutting, cutting.blocks["train"], of["train"])
        train = training(
            specimens, cutting, cutting.blocks["train"], of["train"], known, copies=self.copies,
            symmetry=self.symmetry, known=self.told, seed=self.seed,
        )  # fmt: skip
        rest = {}
        for name in ("validation", "test"):
            truth = whole(specimens, cutting, cutting.blocks[name], of[name])
            rest[name] = Split(truth, tell(truth, known, self.given))
        source = str(self.path) if self.path is not None else f"default data ({path})"
        return Data(train, rest["validation"], rest["test"], codec, specimens.fingerprint(), source)

    def indicators(self, codec: Codec) -> Codec:
        """Indicators of the phases."""
        assert isinstance(codec, MicrostructureCodec)
        return indicators(codec)

    def latent(self, codec: Codec, autoencoder: Autoencoder, train: Split, latents: np.ndarray) -> tuple[Codec, Split]:
        """Volumes in the latent space of an autoencoder."""
        assert isinstance(codec, MicrostructureCodec)
        own = latent_codec(codec, autoencoder, latents)
        return own, Split(with_latents(train.truth, latents), train.inputs)

    def standard(self, archive: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
        """The archive itself: labels have one name."""
        return archive

    def baselines(self, codec: Codec, split: Split) -> dict[str, xr.Dataset]:
        """Level cuts of Gaussian fields with each specimen's own two-point function and fractions, two of each."""
        assert isinstance(codec, MicrostructureCodec)
        truth = split.truth["phase"]
        made = [
            level_cuts(labels, len(codec.phases), codec.periodic, 2, str(key))
            for key, labels in zip(truth["specimen"].values, truth.values, strict=True)
        ]
        out = codec.layout(split.inputs).coords.copy()
        out["phase"] = (("specimen", "member", "z", "y", "x"), np.stack(made), codec.variables["phase"])
        return {"Gaussian level cut": out.assign_attrs(codec.attributes)}

    def evaluate(self, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """Structure, transport, diversity of contenders; process parameters where a fit has learnt to read them."""
        report = metrics.evaluate(truth, samples, transport=self.transport, workers=self.workers)
        if self.reader is not None and all(n in truth for n in self.reader.names):
            report = with_process(report, self.reader, truth, samples)
        return report

    def quality(self, report: xr.Dataset) -> xr.Dataset:
        """S₂ error over the converged teacher's, and the standard deviation of S₂ among members over the teacher's."""
        return metrics.quality(report)

    def tables(self, report: xr.Dataset) -> Sequence[Table]:
        """Structure and transport, then distributions."""
        return tables.tables(report)

    def verdict(self, report: xr.Dataset) -> str:
        """Each student beside the teacher and the held-out specimens."""
        return tables.verdict(report)

    def to_json(self, report: xr.Dataset) -> dict[str, Any]:
        """All numbers."""
        return metrics.to_json(report)

    def figures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Blocks, S₂ curves, target against achieved."""
        return plots.figures(report, truth, samples, folder)


def _same(
    codec: MicrostructureCodec, specimens: Specimens, size: Sequence[int], periodic: Sequence[bool],
    known: Sequence[str], inpaint: bool,
) -> MicrostructureCodec:  # fmt: skip
    """A given teacher's codec for these blocks.

    Raises:
        UserError: if the specimens are not of the kind that the teacher knows.
    """
    if codec.phases != list(specimens.phases):
        raise UserError(
            f"The teacher's phases are {', '.join(codec.phases)}; these specimens have {', '.join(specimens.phases)}:"
            " name them alike with data.phases=."
        )
    theirs = [q.name for q in codec.known]
    if theirs != list(known):
        raise UserError(f"The teacher is conditioned on {', '.join(theirs)}, these data have {', '.join(known)}.")
    if codec.wraps != tuple(periodic) or codec.inpaint != inpaint:
        raise UserError(
            f"The teacher was made with periodic={list(codec.wraps)} and {'with' if codec.inpaint else 'without'} known"
            f" voxels; these data are periodic={list(periodic)}, data.known is {'above 0' if inpaint else '0'}."
        )
    first = specimens.volumes[0]
    if not np.allclose(codec.voxel_size, first.voxel_size, rtol=1e-3) or codec.unit != first.unit:
        raise UserError(
            f"The teacher's voxels are {codec.voxel_size} {codec.unit}, these {first.voxel_size} {first.unit}."
        )
    return codec.like(size=tuple(size))
