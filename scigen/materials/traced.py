"""Microstructures from tensors on: quantities and known voxels in, phases out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from scigen.core.traced import Port, Traced
from scigen.errors import UserError
from scigen.materials.known import UNKNOWN
from scigen.materials.quantities import FRACTION

if TYPE_CHECKING:
    from scigen.materials.physics import MicrostructureCodec

TRUNCATE = 4.0
"""Widths after which the Gaussian of scores is cut, as scipy cuts it."""


class TracedMicrostructure(Traced):
    """`MicrostructureCodec` without archives."""

    mean: Tensor
    corners: Tensor
    centre: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, codec: "MicrostructureCodec") -> None:
        """Take over a codec's numbers.

        Args:
            codec: of voxels or of a latent space.

        Raises:
            UserError: if phases are to get exactly their fractions, which takes a search that cannot be traced.
        """
        super().__init__()
        if codec.exact:
            raise UserError(
                "export: this model gives phases exactly their volume fractions (exact=true), by a search that no"
                " format holds: export with exact=false, and fractions are met to within the network's error."
            )
        self.codec, self.phases = codec, len(codec.phases)
        self.register_buffer("mean", torch.from_numpy(np.asarray(codec.mean, np.float64)))
        self.register_buffer("corners", torch.from_numpy(codec.corners))
        self.register_buffer("centre", torch.tensor([q.mean for q in codec.known], dtype=torch.float64))
        self.register_buffer("scale", torch.tensor([q.std for q in codec.known], dtype=torch.float64))
        self.logs = [q.log for q in codec.known]
        bias = codec.calibration.bias or (0.0,) * self.phases
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float64).reshape(-1, 1, 1, 1))
        names = tuple(q.name for q in codec.known)
        self.order = [names.index(f"{FRACTION}_{p}") for p in codec.phases]
        ports = [Port("quantities", (len(names),), "1", "what is asked for; NaN where it is free", names)]
        if codec.inpaint:
            said = f"labels of known voxels along z, y, x, from 0 to {self.phases - 1}; {UNKNOWN} where unknown"
            ports.append(Port("known", codec.size, "1", said, (), "uint8"))
        self.inputs = tuple(ports)
        legend = ", ".join(f"{i} {p}" for i, p in enumerate(codec.phases))
        self.output = Port("phase", (1, *codec.size), "1", f"labels along z, y, x: {legend}", ("phase",))

    def condition(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `MicrostructureCodec.condition`."""
        asked = inputs["quantities"].double()
        share = asked[:, self.order]
        free = share.isnan()
        left = (1 - share.nan_to_num(0.0).sum(1, keepdim=True)).clamp_min(0)
        share = torch.where(free & (free.sum(1, keepdim=True) == 1), left, share)  # the last follows
        columns = [
            share[:, self.order.index(i)] if i in self.order else asked[:, i] for i in range(len(self.logs))
        ]  # fmt: skip
        values = torch.stack(
            [v.clamp_min(1e-12).log() if log else v for v, log in zip(columns, self.logs, strict=True)], dim=1
        )
        values = (values - self.centre) / self.scale
        given = ~values.isnan()
        seen = torch.cat([torch.where(given, values, torch.zeros_like(values)), given.double()], dim=1).float()
        told = ~share.isnan().any(1)
        out = {"scalars": seen, "told": told, "base": self._base(share, told)}
        batch = asked.shape[0]
        if not self.codec.inpaint:
            if self.codec.measured is not None:
                out["measurement"] = torch.zeros(1, dtype=torch.float32, device=asked.device).expand(
                    batch, *self.codec.shape
                )
            return out
        labels = inputs["known"].long()
        b = self.codec.border
        if b:
            labels = functional.pad(labels, (b,) * 6, value=UNKNOWN)
        there = labels != UNKNOWN
        mask = there[:, None].float()
        own = self.corners[torch.where(there, labels, torch.zeros_like(labels))].movedim(-1, 1)
        x = (own - out["base"]).float() * mask
        rest = -x.sum((2, 3, 4), keepdim=True) / (1 - mask).sum((2, 3, 4), keepdim=True).clamp_min(1)
        out["measurement"] = x + rest * told[:, None, None, None, None] * (1 - mask)
        out["known"], out["fields"] = mask, torch.cat([x, mask], dim=1)
        return out

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """As `MicrostructureCodec.decode`: labels, float32."""
        raw = self.scores(x, condition)
        scores = self._smoothed(raw) + self.bias.to(raw.dtype)
        known = condition.get("known")
        if known is not None:  # what is told stays as it is
            scores = torch.where(known > 0, raw, scores)
        b = self.codec.border
        if b:
            z, y, x_ = (slice(b, b + n) for n in self.codec.size)
            scores = scores[:, :, z, y, x_]
        return scores.argmax(1, keepdim=True).float()

    def scores(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """v_p · (x + base), (B, P, *S)."""
        full = x.double() + condition["base"]
        return sum(full[:, c : c + 1] * self.corners[:, c].reshape(1, -1, 1, 1, 1) for c in range(self.phases - 1))  # type: ignore[return-value]

    def distance(self, found: Tensor, wanted: Tensor) -> float:
        """Share of voxels with another label."""
        return float((found != wanted).double().mean())

    def example(self, batch: int, seed: int) -> xr.Dataset:
        """Values between those of the training specimens; fractions that add up to 1; a known slab if it takes one."""
        rng, codec = np.random.default_rng(seed), self.codec
        share = rng.dirichlet(20 * np.maximum(codec.mean, 0.05), batch)
        out = {}
        for i, q in enumerate(codec.known):
            if i in self.order:
                out[q.name] = share[:, self.order.index(i)].astype(np.float32).astype(np.float64)
            else:  # transport may be impossible at these fractions: free
                free = q.kind != "process"
                values = rng.uniform(q.low, q.high, batch).astype(np.float32).astype(np.float64)
                out[q.name] = np.full(batch, np.nan) if free else values
        for p in codec.phases[-1:]:  # the last follows
            out[f"{FRACTION}_{p}"] = np.full(batch, np.nan)
        if batch > 1:  # a row that is told nothing but its process
            for p in codec.phases:
                out[f"{FRACTION}_{p}"][1] = np.nan
        ds = xr.Dataset({n: ("specimen", v) for n, v in out.items()}, coords={"specimen": np.arange(batch)})
        if codec.inpaint:
            labels = np.full((batch, *codec.size), UNKNOWN, np.uint8)
            labels[:, ::4] = rng.integers(0, self.phases, labels[:, ::4].shape)
            ds["known"] = (("specimen", "z", "y", "x"), labels)
        return ds

    def feed(self, archive: xr.Dataset) -> dict[str, Tensor]:
        """Of what an archive asks for."""
        inputs, codec = self.codec.prepare(archive), self.codec
        values = np.stack([np.asarray(inputs[q.name].values, np.float32) for q in codec.known], axis=1)
        out = {"quantities": torch.from_numpy(values)}
        if codec.inpaint:
            shape = (len(values), *codec.size)
            labels = inputs["known"].values if "known" in inputs else np.full(shape, UNKNOWN, np.uint8)
            out["known"] = torch.from_numpy(np.array(labels, np.uint8))
        return out

    def _base(self, share: Tensor, told: Tensor) -> Tensor:
        """Σ φ_p v_p, (B, P − 1, 1, 1, 1)."""
        own = torch.where(told[:, None], share, self.mean)
        return (own[:, :, None] * self.corners).sum(1)[..., None, None, None]

    def _smoothed(self, scores: Tensor) -> Tensor:
        """Scores (B, P, Z, Y, X) smoothed along their last three axes, as `calibration.smooth` does."""
        width = self.codec.calibration.width
        if not width:
            return scores
        reach = int(TRUNCATE * width + 0.5)
        place = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (place / width) ** 2)
        kernel = (kernel / kernel.sum()).to(scores)
        for axis, wraps in enumerate(self.codec.wraps, start=2):
            n = scores.shape[axis]
            cells = torch.arange(-reach, n + reach, device=scores.device)
            wide = scores.index_select(axis, cells % n if wraps else cells.clamp(0, n - 1))
            scores = sum(  # type: ignore[assignment]
                kernel[k] * wide.narrow(axis, k, n) for k in range(2 * reach + 1)
            )
        return scores


class TracedLatent(TracedMicrostructure):
    """`LatentCodec` without archives: an autoencoder's decoder gives the scores."""

    def __init__(self, codec: "MicrostructureCodec", autoencoder: torch.nn.Module, centre: Tensor, spread: Tensor):
        """Take over a codec's numbers.

        Args:
            codec: of the latent space.
            autoencoder: its decoder is used.
            centre: of each channel of the latent, (1, C, 1, 1, 1).
            spread: likewise.
        """
        super().__init__(codec)
        self.autoencoder = autoencoder
        self.register_buffer("latent_centre", centre)
        self.register_buffer("latent_spread", spread)

    def scores(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """What the decoder gives, (B, P, *S)."""
        return self.autoencoder.decode(x.float() * self.latent_spread + self.latent_centre)  # type: ignore[operator]
