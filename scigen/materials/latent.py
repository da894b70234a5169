"""Microstructures in the latent space of an autoencoder: what a diffusion model of large volumes works in.

A network sample is (z − mean) / std, channel by channel, of the encoder's mean z of a volume's indicators, so that its
variance is one as the preconditioning expects; decoding gives scores of the phases, which become labels as those of the
voxels' own codec do.
"""

from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.codec import Index
from scigen.core.networks.allowed import AUTOENCODERS, construct
from scigen.core.networks.autoencoder import Autoencoder
from scigen.core.operator import Operator
from scigen.errors import UserError
from scigen.materials.physics import MicrostructureCodec
from scigen.materials.traced import TracedLatent

LATENT = "latent"
"""Variable of a training split that holds what the autoencoder made of it, (specimen, C, *S / factor)."""
ROWS = 256
"""Rows whose statistics are summed at a time."""


class Indicators(MicrostructureCodec):
    """One indicator a phase, (B, P, Z, Y, X): what an autoencoder learns, whatever the fractions are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(P, Z, Y, X)."""
        return (len(self.phases), *super().shape[1:])

    @property
    def measured(self) -> Operator | None:
        """Nothing: an autoencoder sees the whole volume."""
        return None

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """1 where a phase is, 0 elsewhere."""
        return one_hot(np.asarray(truth["phase"].isel(specimen=index).values), len(self.phases))

    def scores(self, x: Tensor, share: Tensor) -> Tensor:
        """Indicators, or what an autoencoder gives for them, are scores already."""
        return x


class LatentCodec(MicrostructureCodec):
    """A codec of microstructures whose network samples are an autoencoder's latent."""

    def __init__(self, *args: Any, autoencoder: Autoencoder, centre: Any, spread: Any, **own: Any) -> None:
        """Set the codec.

        Args:
            args: of `MicrostructureCodec`, as are the other keywords.
            autoencoder: trained; frozen here.
            centre: mean of each channel of the latent over the training split.
            spread: its standard deviation.
            own: further keywords.

        Raises:
            UserError: for known voxels, which a latent space cannot be held to, or a size that is no multiple of the
                autoencoder's factor.
        """
        super().__init__(*args, **own)
        if self.inpaint:
            raise UserError(INPAINT)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.centre, self.spread = (np.asarray(v, np.float32) for v in (centre, spread))
        autoencoder.check(super().shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels of the latent, *S / factor)."""
        return (self.autoencoder.latent, *(n // self.autoencoder.factor for n in super().shape[1:]))

    @property
    def measured(self) -> Operator | None:
        """Nothing: what is linear in the voxels is not in the latent."""
        return None

    @property
    def scale(self) -> int:
        """Voxels a side that one cell of the latent spans."""
        return self.autoencoder.factor

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Normalised latents (B, C, *S / factor) of the true labels; those that were made before are used."""
        if LATENT in truth:
            latent = torch.from_numpy(np.array(truth[LATENT].isel(specimen=index).values, np.float32))
        else:
            labels = np.asarray(truth["phase"].isel(specimen=index).values)
            latent = encode_each(self.autoencoder, one_hot(labels, len(self.phases)))
        return (latent - self._each(self.centre)) / self._each(self.spread)

    def scores(self, x: Tensor, share: Tensor) -> Tensor:
        """What the decoder gives for network samples, (B, P, *S), one at a time: memory stays bounded."""
        device = next(self.autoencoder.parameters()).device
        latent = x * self._each(self.spread).to(x) + self._each(self.centre).to(x)
        with torch.inference_mode():
            return torch.cat([self.autoencoder.decode(one[None].to(device).float()).cpu() for one in latent])

    def traced(self) -> TracedLatent:
        """Quantities in, labels out."""
        return TracedLatent(self, self.autoencoder, self._each(self.centre), self._each(self.spread))

    def typical(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Latents have no fractions to be about: the samples themselves."""
        return self.encode(truth, inputs, index)

    def like(self, **changes: Any) -> "LatentCodec":
        """The same but for these arguments of the constructor."""
        return LatentCodec(
            **(self.arguments | changes), autoencoder=self.autoencoder, centre=self.centre, spread=self.spread
        )

    def to(self, device: torch.device) -> None:
        """Move the autoencoder."""
        self.autoencoder.to(device)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Arguments and the autoencoder's as JSON; its weights and the latent's statistics as arrays."""
        settings, arrays = super().state()
        kind = type(self.autoencoder)
        settings["autoencoder"] = {"class": f"{kind.__module__}.{kind.__qualname__}", "args": self.autoencoder.args}
        weights = self.autoencoder.state_dict()
        arrays |= {f"autoencoder.{k}": v.detach().cpu().contiguous().numpy() for k, v in weights.items()}
        return settings, arrays | {"centre": self.centre, "spread": self.spread}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`.

        Raises:
            UserError: if the autoencoder's class is not allow-listed.
        """
        own = dict(settings)
        kind = own.pop("autoencoder")
        network = construct(kind["class"], AUTOENCODERS, "autoencoder")(**kind["args"])
        prefix = "autoencoder."
        network.load_state_dict(
            {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in arrays.items() if k.startswith(prefix)}
        )
        plain = MicrostructureCodec.restore(own, {})
        return cls(**plain.arguments, autoencoder=network, centre=arrays["centre"], spread=arrays["spread"])

    def _each(self, values: np.ndarray) -> Tensor:
        """(C,) to (1, C, 1, 1, 1)."""
        return torch.from_numpy(values)[None, :, None, None, None]


def one_hot(labels: np.ndarray, phases: int) -> Tensor:
    """Indicators (B, P, *S) float32 of labels (B, *S)."""
    return torch.from_numpy(np.stack([labels == p for p in range(phases)], axis=1)).float()


def encode_each(autoencoder: Autoencoder, x: Tensor) -> Tensor:
    """Latents (B, C, *S / factor) of indicators (B, P, *S), one volume at a time, on the CPU."""
    device = next(autoencoder.parameters()).device
    with torch.inference_mode():
        return torch.cat([autoencoder.encode(one[None].to(device)).cpu() for one in x]).clone()


def indicators(codec: MicrostructureCodec) -> Indicators:
    """The codec that an autoencoder is trained with.

    Raises:
        UserError: for a codec with known voxels.
    """
    if codec.inpaint:
        raise UserError(INPAINT)
    return Indicators(**codec.arguments)


def latent_codec(codec: MicrostructureCodec, autoencoder: Autoencoder, latents: np.ndarray) -> LatentCodec:
    """A codec in the autoencoder's latent space.

    Args:
        codec: of the voxels.
        autoencoder: trained.
        latents: what it makes of the training split, (specimens, C, *S / factor).
    """
    total, square = np.zeros(latents.shape[1]), np.zeros(latents.shape[1])
    for lo in range(0, len(latents), ROWS):
        part = np.asarray(latents[lo : lo + ROWS], np.float64)
        total += part.sum(axis=(0, 2, 3, 4))
        square += np.square(part).sum(axis=(0, 2, 3, 4))
    count = latents.size / latents.shape[1]
    centre = total / count
    spread = np.sqrt(np.maximum(square / count - centre**2, 1e-12))
    return LatentCodec(**codec.arguments, autoencoder=autoencoder, centre=centre, spread=spread)


def with_latents(truth: xr.Dataset, latents: np.ndarray) -> xr.Dataset:
    """True fields, and what an autoencoder makes of them: `LatentCodec.encode` then need not."""
    return truth.assign({LATENT: (("specimen", "channel", "latent_z", "latent_y", "latent_x"), latents)})


INPAINT = (
    "Known voxels condition a network of voxels, and a latent space has none: use data.known=0 with autoencoder=, or"
    " leave autoencoder out."
)
