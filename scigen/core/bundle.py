"""Bundle: a trained denoiser with all that it takes to sample it, in one safetensors file.

The file holds the weights, the codec's arrays and one JSON header: network and its arguments, σ grid, variables with
units, grid, statistics, provenance. It loads without Lightning or Hydra, and runs no code but the classes listed here.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scigen.core import addressed
from scigen.core.card import card, small
from scigen.core.codec import Codec
from scigen.core.denoise import Denoiser, DenoiserModule, FlowMap
from scigen.core.guide import Consistent, Weighed
from scigen.core.lazy import Source, variable
from scigen.core.networks.allowed import NETWORKS, construct
from scigen.core.networks.tiled import Tiled
from scigen.core.sample import Counted
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.io.geolocation import mapping_attribute

FORMAT = "scigen-bundle-1"
CODECS = (
    "scigen.weather.physics.DownscalingCodec",
    "scigen.materials.physics.MicrostructureCodec",
    "scigen.materials.latent.LatentCodec",
    "scigen.mri.physics.ReconstructionCodec",
)
PRECISIONS = ("fp32", "bf16")
ROW_CELLS = 2**21
"""Cells of a compute batch, about: memory stays bounded for large fields."""
MOST_ROWS = {"cpu": 16}
"""Rows of a compute batch at most, by device: a CPU is no faster with more, and the last batch is padded; else 64."""
MEMBER = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
SEED_RULE = "philox4x32-10, key = blake2b(seed|sample), counter = (position, member, draw, channel), Box-Muller"


@dataclass
class Bundle:
    """A trained model, teacher or student alike.

    Attributes:
        network: F, built from `network_class` (allow-listed) and `network_args`.
        sigma_data: of the preconditioning.
        codec: between archives and the network.
        sampling: default sampler and grid.
        domain: the field's name.
        role: "teacher" or "student".
        provenance: data fingerprint, configuration, versions, training facts; JSON types.
        precision: fp32, or bf16 for the network's convolutions and matrix products (autocast).
        two_times: whether the network is a flow map's (`FlowMap`) rather than a denoiser's.
    """

    network: nn.Module
    network_class: str
    network_args: dict[str, Any]
    sigma_data: float
    codec: Codec
    sampling: Sampling
    domain: str
    role: str
    provenance: dict[str, Any] = field(default_factory=dict)
    two_times: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Assemble the denoiser: preconditioned, and held to the measurement where the codec says so.

        Raises:
            UserError: if the sampler is for a flow map and the network is none.
        """
        if self.sampling.two_times and not self.two_times:
            raise UserError(
                f"Sampler {self.sampling.sampler} samples flow maps, and this model is a denoiser: use few_step, or a"
                " teacher's sampler."
            )
        kind = FlowMap if self.two_times else Denoiser
        self.denoiser: DenoiserModule = kind(self.network, self.sigma_data)
        if self.codec.measured is not None:
            self.denoiser = (Weighed if self.codec.noisy else Consistent)(self.denoiser, self.codec.measured)
        self.denoiser.eval().requires_grad_(False)

    def __repr__(self) -> str:
        """One line a person can read."""
        parameters = sum(p.numel() for p in self.network.parameters())
        shape = " × ".join(map(str, self.codec.shape[1:]))
        return (
            f"<scigen {self.domain} {self.role}: {', '.join(self.codec.variables)} on {shape},"
            f" {self.network_class.rsplit('.', 1)[-1]} of {parameters / 1e6:.2f} M parameters,"
            f" {self.sampling.sampler} with {len(self.sampling.sigmas)} steps>"
        )

    def to(self, device: torch.device) -> "Bundle":
        """Move the network to a device; returns the bundle itself."""
        self.denoiser.to(device)
        self.codec.to(device)
        return self

    def quick(self, precision: str = "fp32", compiled: bool = False) -> "Bundle":
        """The same model with the network in another precision, or compiled by `torch.compile`, where that is faster.

        Raises:
            UserError: for an unknown precision.
        """
        if precision not in PRECISIONS:
            raise UserError(f"precision={precision}: expected {' or '.join(PRECISIONS)}.")
        out = replace(self, precision=precision)
        if compiled:
            out.inner.network = torch.compile(self.network)  # type: ignore[assignment]
        return out

    @property
    def inner(self) -> Denoiser | FlowMap:
        """The preconditioned network alone, without what holds it to a measurement."""
        inner = self.denoiser
        while isinstance(inner, Consistent | Weighed):
            inner = inner.denoiser
        assert isinstance(inner, Denoiser | FlowMap)
        return inner

    def relocate(self, static: xr.Dataset) -> "Bundle":
        """The same model in another region, given by the static fields there (see `Codec.relocate`).

        Raises:
            UserError: if the fields do not fit, or the network was built for the size of its own region.
        """
        return self.placed(self.codec.relocate(static))

    def placed(self, codec: Codec) -> "Bundle":
        """The same model with the codec of another region, or size.

        Raises:
            UserError: if the network was built for the size of its own region, or cannot join the ends of this one.
        """
        fixed = getattr(self.network, "fixed_size", None)
        if fixed is not None and tuple(fixed) != codec.shape[1:]:
            raise UserError(
                f"{self.network_class.rsplit('.', 1)[-1]} was built for {tuple(fixed)} cells, and the new region has"
                f" {codec.shape[1:]}. scigen's U-Net takes any size (network=unet)."
            )
        step = getattr(self.network, "multiple", 1)
        wraps = getattr(self.network, "periodic", ())
        if any(p and n % step for p, n in zip(wraps, codec.shape[1:], strict=False)):
            cells = [n * codec.scale for n in codec.shape[1:]]
            raise UserError(
                f"size={cells}: along axes that wrap around this model makes multiples of {step * codec.scale} cells."
            )
        return replace(self, codec=codec)

    def tiled(self, size: int | Sequence[int], overlap: int | None = None) -> "Bundle":
        """The same model run on tiles, so that memory holds the features of one and not of the whole field.

        Noise, measurements and the sampler stay those of the whole field. Networks of finite radius give the same
        fields to rounding; others are blended, see `Tiled`, and change.

        Args:
            size: cells of a tile along each axis, or along all, of the network's grid; an axis that is no longer than
                a tile stays whole.
            overlap: cells that neighbouring tiles share where they are blended; None: see `Tiled`.

        Raises:
            UserError: for tiles that do not fit the network or the fields.
        """
        network = Tiled(self.network, size, overlap=overlap)
        network.spans(self.codec.shape[1:])
        return replace(self, network=network)

    def fingerprint(self) -> str:
        """16 hex digits of all that samples depend on: network and weights, codec, sampling."""
        digest = hashlib.sha256()
        settings, arrays = self.codec.state()
        network = [self.network_class, self.network_args, self.sigma_data, self.two_times]
        digest.update(json.dumps([settings, *network, asdict(self.sampling)]).encode())
        for _, value in sorted(self.network.state_dict().items()):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for _, array in sorted(arrays.items()):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def header(self) -> dict[str, Any]:
        """All that the file says beside its tensors, as JSON types."""
        settings, _ = self.codec.state()
        return dict(
            format=FORMAT, domain=self.domain, role=self.role, sigma_data=self.sigma_data, two_times=self.two_times,
            network={"class": self.network_class, "args": self.network_args},
            codec={"class": f"{type(self.codec).__module__}.{type(self.codec).__qualname__}", "settings": settings},
            sampling=asdict(self.sampling), provenance=self.provenance,
        )  # fmt: skip

    def card(self, judged: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The model card (`scigen.core.card`): `scigen fit` writes it beside the bundle, with what it measured.

        Args:
            judged: content of a metrics.json; None for a card that says `unknown` of calibration.
        """
        made = {"seed_rule": SEED_RULE} | self.provenance
        return card(
            self.header() | {"provenance": made}, fingerprint=self.fingerprint(), shape=self.codec.shape,
            parameters=sum(p.numel() for p in self.network.parameters()), variables=self.codec.variables,
            purpose=self.codec.purpose, calls=self.nfe(), judged=judged,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """A small card in notebooks."""
        return small(self.card())

    def save(self, path: str | Path) -> Path:
        """Write the bundle, whole or not at all; returns the path."""
        path = Path(path)
        header, (_, arrays) = self.header(), self.codec.state()
        tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"codec.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, metadata={"scigen": json.dumps(header, allow_nan=False)})
        os.replace(partial, path)
        return path

    def draw(
        self, condition: dict[str, Tensor], samples: list[str], members: list[int], seed: int, steps: int | None = None
    ) -> tuple[Tensor, int]:
        """Sample once per row.

        Args:
            condition: batch first, B rows.
            samples: the B sample coordinates that address the noise.
            members: the B member numbers.
            seed: of the ensemble.
            steps: number of levels; the default if None.

        Returns:
            Physical fields (B, C, *S) and the number of network calls per member.
        """
        x, condition, calls = self.generate(condition, samples, members, seed, steps)
        with torch.inference_mode():
            return self.codec.after(len(self.sampling.grid(steps))).decode(x, condition), calls

    def generate(
        self, condition: dict[str, Tensor], samples: list[str], members: list[int], seed: int, steps: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """Network samples (B, C, *S), the condition that they were made from, and the calls: arguments as of `draw`."""
        grid = self.sampling.grid(steps)
        device = next(self.network.parameters()).device

        def noise(draw: int) -> Tensor:
            rows = [
                addressed.normal(seed, s, m, self.codec.shape, draw=draw, origin=self.codec.origin)
                for s, m in zip(samples, members, strict=True)
            ]
            return torch.from_numpy(np.stack(rows)).to(device)

        seen = self.codec.perturbed(condition, samples, members, seed) if self.sampling.jumps else condition
        condition, seen = ({k: v.to(device) for k, v in c.items()} for c in (condition, seen))
        counted = Counted(self.denoiser)
        x = grid[0] * noise(0)
        reduced = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False), reduced:
            fresh = [noise(i + 1) for i in range(self.sampling.noises(len(grid)))]
            x = self.codec.settled(self.sampling.run(counted, x, grid, seen, fresh), condition)
            return x, condition, counted.nfe

    def blocks(
        self,
        inputs: xr.Dataset,
        members: int | Sequence[int],
        *,
        seed: int = 0,
        steps: int | None = None,
        batch: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Sample prepared inputs in order of their samples, at one fixed compute batch.

        The last batch is padded, so that the network always runs on `batch` rows and a field does not depend on what
        else was asked for.

        Args:
            inputs: what `codec.prepare` returned.
            members: M, or the M member numbers.
            seed: of the ensemble.
            steps: number of levels; the default if None.
            batch: rows of a compute batch; None for `rows`.
            progress: called with the number of fields done after each batch.

        Yields:
            (position of the first sample, physical fields (T, M, C, *S) float32), consecutive.
        """
        batch = self.rows if batch is None else batch
        numbers = range(members) if isinstance(members, int) else members
        if len(numbers) < 1 or batch < 1:
            raise UserError(f"members={members} and batch={batch} must be at least 1.")
        self.sampling.grid(steps)
        keys, each = self.codec.samples(inputs), len(numbers)
        total, done = len(keys) * each, 0
        open_block: list[np.ndarray] = []
        for first in range(0, total, batch):
            rows = [min(i, total - 1) for i in range(first, first + batch)]
            low, high = rows[0] // each, rows[-1] // each + 1
            own = self.codec.condition(inputs, slice(low, high))
            pick = torch.tensor([r // each - low for r in rows])
            condition = {k: v[pick] for k, v in own.items()}
            fields, _ = self.draw(
                condition, [keys[r // each] for r in rows], [numbers[r % each] for r in rows], seed, steps
            )
            useful = min(batch, total - first)
            open_block += list(fields[:useful].to("cpu", torch.float32).numpy())
            whole = len(open_block) // each
            if whole:
                block = np.stack(open_block[: whole * each])
                yield done, block.reshape(whole, each, *block.shape[1:])
                done, open_block = done + whole, open_block[whole * each :]
            if progress:
                progress(useful)

    def sample(
        self,
        archive: xr.Dataset,
        members: int | Sequence[int] = 16,
        seed: int = 0,
        steps: int | None = None,
        batch: int | None = None,
    ) -> xr.Dataset:
        """The ensemble of an archive, as `scigen sample` writes it, generated where it is indexed.

        Nothing is made before values are asked for, and then only the samples and members that they are of:
        `ensemble["t2m"].sel(time="2019-03-25").mean("member")` makes one day. `ensemble.load()` makes everything.

        Args:
            archive: as for `scigen sample`: the bundle's fine grid (then it is coarsened) or its coarse grid.
            members: M, or the M member numbers.
            seed: of the ensemble.
            steps: number of levels; the default if None.
            batch: rows of a compute batch; None for `rows`.

        Raises:
            UserError: if the archive does not fit.

        Returns:
            The variables as (sample, member, *space) with coordinates, units and provenance.
        """
        batch = self.rows if batch is None else batch
        numbers = list(range(members)) if isinstance(members, int) else list(members)
        if len(numbers) < 1 or batch < 1:
            raise UserError(f"members={members} and batch={batch} must be at least 1.")
        self.sampling.grid(steps)
        inputs = self.codec.prepare(archive)
        layout = self.codec.layout(inputs, archive)
        source = Source(partial(self.blocks, seed=seed, steps=steps, batch=batch), inputs, layout, numbers)
        out = layout.coords.assign_coords(member=("member", numbers, MEMBER))
        where = mapping_attribute(out)
        for c, (name, attrs) in enumerate(self.codec.variables.items()):
            out[name] = variable(source, c, self.codec.dtypes.get(name, "float32"), attrs | where)
        return out.assign_attrs(self.attributes(members=len(numbers), seed=seed, steps=steps, batch=batch))

    @property
    def rows(self) -> int:
        """Rows of a compute batch where none are asked for: as many as have ROW_CELLS cells, from 1 to MOST_ROWS."""
        most = MOST_ROWS.get(next(self.network.parameters()).device.type, 64)
        cells = np.array(self.codec.shape[1:])
        if isinstance(self.network, Tiled):
            cells = np.minimum(cells, self.network.sides(len(cells)))
        return int(np.clip(ROW_CELLS // np.prod(cells), 1, most))

    def nfe(self, steps: int | None = None) -> int:
        """Network calls per member."""
        return self.sampling.calls(steps)

    def attributes(self, *, members: int, seed: int, steps: int | None, batch: int) -> dict[str, Any]:
        """Provenance for the attributes of a samples archive."""
        return dict(
            scigen_bundle=self.fingerprint(), scigen_role=self.role, scigen_domain=self.domain,
            scigen_nfe=self.nfe(steps), scigen_sampler=self.sampling.sampler, scigen_seed=seed,
            scigen_members=members, scigen_compute_batch=batch, scigen_threads=torch.get_num_threads(),
            scigen_seed_rule=SEED_RULE, scigen_precision=self.precision, **self._tiles(), **self.codec.attributes,
        )  # fmt: skip

    def _tiles(self) -> dict[str, Any]:
        """What tiles add to the attributes: those that are blended change samples."""
        if not isinstance(self.network, Tiled):
            return {}
        sides = list(self.network.sides(len(self.codec.shape) - 1))
        return {"scigen_tile": sides, "scigen_tiles_exact": int(self.network.exact)}


def load(path: str | Path) -> Bundle:
    """Load a bundle.

    Raises:
        UserError: if the file is missing, cut short, no bundle, or names a class that is not allow-listed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no bundle at {path}. A finished `scigen fit` prints where its bundles are.")
    try:
        with safetensors.safe_open(path, framework="np") as f:
            header = json.loads((f.metadata() or {}).get("scigen", "{}"))
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}). Copy it again or fit again.") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} is no scigen bundle of format {FORMAT!r}, but {found or 'something else'!r}.")
    try:
        network_args = header["network"]["args"]
        network_class = construct(header["network"]["class"], NETWORKS, "network")
        codec_class = construct(header["codec"]["class"], CODECS, "codec")
        arrays = {k.removeprefix("codec."): v.numpy() for k, v in tensors.items() if k.startswith("codec.")}
        codec = codec_class.restore(dict(header["codec"]["settings"]), arrays)
        two_times = bool(header.get("two_times", False))
        scalars = codec.scalars + (FlowMap.FEATURES if two_times else 0)
        sizes = dict(channels=codec.shape[0], condition_fields=codec.fields, condition_scalars=scalars)
        if any(network_args.get(k, 0) != v for k, v in sizes.items()):
            raise ValueError(f"the codec needs a network with {sizes}, it is one with {network_args}")
        network = network_class(**network_args)
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
        sampling = Sampling(**{**header["sampling"], "sigmas": tuple(header["sampling"]["sigmas"])})
        return Bundle(
            network, header["network"]["class"], network_args, header["sigma_data"], codec, sampling,
            header["domain"], header["role"], header["provenance"], two_times,
        )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # whatever goes wrong where a header lies
        raise UserError(
            f"The bundle {path} does not fit its own description ({type(error).__name__}: {error})."
            " Was it edited, or made by another version?"
        ) from error


def versions() -> dict[str, str]:
    """Versions of what a bundle's numbers depend on."""
    import scigen

    return dict(scigen=scigen.__version__, python=sys.version.split()[0], torch=torch.__version__, numpy=np.__version__)
