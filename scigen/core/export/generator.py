"""The generator: noise and conditions in physical units in, physical fields out, as one module of tensors.

All that a bundle does lies inside: the condition's normalisation, every step of the sampler at fixed levels, what holds
samples to a measurement, and the way back to physical units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import scigen
from scigen.core import addressed
from scigen.core.bundle import Bundle
from scigen.core.networks.tiled import Tiled
from scigen.core.traced import Port
from scigen.errors import UserError

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest distance between an exported generator and its bundle, see `Traced.distance`."""


class Generator(nn.Module):
    """A bundle at a number of steps.

    Attributes:
        levels: σ of the calls.
        ports: what `forward` takes, in order, `noise` first.
        output: what it gives.
        name: of the network.
    """

    def __init__(self, bundle: Bundle, steps: int | None = None) -> None:
        """Assemble.

        Args:
            bundle: teacher or student, in its precision.
            steps: number of levels; the default if None.

        Raises:
            UserError: if the bundle cannot be sampled in so many steps, is run by tiles, or has a codec with no tensor
                part.
        """
        super().__init__()
        if isinstance(bundle.network, Tiled):
            raise UserError("export: tiles are a way to sample; export the model whole (leave tile= out).")
        self.levels = bundle.sampling.grid(steps)
        self.bundle, self.sampling, self.steps = bundle, bundle.sampling, steps
        self.denoiser, self.traced = bundle.denoiser, bundle.codec.after(len(self.levels)).traced()
        self.extra = self.traced.extra if bundle.sampling.jumps else None
        self.draws = 1 + self.sampling.noises(len(self.levels))
        shape = (self.draws, *bundle.codec.shape)
        noise = Port("noise", shape, "1", "standard normal noise, one draw where sampling starts and one a re-noising")
        self.ports = (noise, *((self.extra,) if self.extra else ()), *self.traced.inputs)
        self.output = self.traced.output
        self.name = bundle.network_class.rsplit(".", 1)[-1]
        self.eval().requires_grad_(False)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """One member a row.

        Args:
            inputs: the ports by name, batch first.

        Returns:
            Physical fields (B, C, *S).
        """
        noise = inputs["noise"]
        condition = self.traced.condition(inputs)
        seen = condition if self.extra is None else self.traced.perturbed(condition, inputs[self.extra.name])
        fresh = [noise[:, i] for i in range(1, self.draws)]
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=self.bundle.precision == "bf16"):
            x = self.sampling.run(self.denoiser, self.levels[0] * noise[:, 0], self.levels, seen, fresh)
            x = self.traced.settled(x, condition)
        return self.traced.decode(x, condition)

    def example(self, batch: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """Made-up inputs of so many rows, all ports by name, and what the bundle itself makes of them."""
        return self.case(self.traced.example(batch, seed), seed)

    def case(self, archive: xr.Dataset, seed: int = 0, member: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """The ports' tensors for one member of every sample of an archive, and the bundle's own fields (B, C, *S)."""
        codec = self.bundle.codec
        inputs = codec.prepare(archive)
        keys = list(codec.samples(inputs))
        members = [member] * len(keys)
        wanted, _ = self.bundle.draw(codec.condition(inputs, slice(None)), keys, members, seed, self.steps)
        device = next(self.denoiser.parameters()).device
        ports = {"noise": self._noise(keys, members, seed)}
        if self.extra is not None:
            ports[self.extra.name] = self.traced.noise(keys, members, seed)
        ports |= self.traced.feed(archive)
        return {n: v.to(device) for n, v in ports.items()}, wanted

    def describe(self) -> dict[str, Any]:
        """What a file of it says beside the numbers, as JSON types."""
        bundle = self.bundle
        return {
            "scigen": scigen.__version__, "bundle": bundle.fingerprint(), "domain": bundle.domain, "role": bundle.role,
            "sampler": self.sampling.sampler, "levels": self.levels, "calls": bundle.nfe(self.steps),
            "precision": bundle.precision, "inputs": [p.describe() for p in self.ports],
            "outputs": [self.output.describe()], "notes": self.traced.notes, **bundle.codec.attributes,
        }  # fmt: skip

    def _noise(self, keys: Sequence[str], members: Sequence[int], seed: int) -> Tensor:
        codec = self.bundle.codec
        rows = [
            [addressed.normal(seed, k, m, codec.shape, draw=d, origin=codec.origin) for d in range(self.draws)]
            for k, m in zip(keys, members, strict=True)
        ]
        return torch.from_numpy(np.array(rows))
