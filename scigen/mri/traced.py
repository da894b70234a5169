"""Reconstruction from tensors on: k-space, mask and coil maps in, images out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.traced import Port, Traced
from scigen.mri import synth
from scigen.mri.operator import Sense, with_noise
from scigen.mri.preparation import derived_of

if TYPE_CHECKING:
    from scigen.mri.physics import ReconstructionCodec


class TracedReconstruction(Traced):
    """`ReconstructionCodec` without archives; absent coils are zeros in k-space and maps."""

    complexes = True

    def __init__(self, codec: "ReconstructionCodec") -> None:
        """Take over a codec's numbers."""
        super().__init__()
        self.codec = codec
        coils, size = codec.coils, codec.size
        pairs = "real and imaginary part along the third dimension; centred, orthonormal Fourier transform"
        self.inputs = (
            Port("kspace", (coils, 2, *size), "1", f"k-space, 0 where not sampled or no coil: {pairs}"),
            Port("mask", size, "1", "1 where k-space is sampled, 0 elsewhere"),
            Port("sens_maps", (coils, 2, *size), "1", "maps of the coils, Σ|S|² = 1 on the object, 0 for absent ones"),
            Port("noise_std", (), "1", "standard deviation of the real part of k-space's noise, in its units"),
        )
        self.output = Port(
            "image", codec.shape, "1", "real and imaginary part of one member a row, in the units of k-space",
            tuple(codec.variables),
        )  # fmt: skip
        self.extra = Port("noise_kspace", (coils, 2, *size), "1", "standard normal noise, for each member's k-space")

    def condition(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `ReconstructionCodec.condition`."""
        kspace, maps = (
            torch.complex(inputs[n][:, :, 0].float(), inputs[n][:, :, 1].float()) for n in ("kspace", "sens_maps")
        )
        codec, sense = self.codec, Sense(maps, inputs["mask"].float())
        own = derived_of(
            sense, kspace, inputs["noise_std"], codec.spectrum.to(kspace.device), 2 * codec.iterations,
            codec.conditional,
        )  # fmt: skip
        return codec.seen(own | {"mean": own.pop("prior_mean"), "mask": sense.mask, "sens_maps": maps})

    def perturbed(self, condition: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """As `ReconstructionCodec.perturbed`."""
        return with_noise(condition, noise)

    def settled(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """As `ReconstructionCodec.settled`."""
        return self.codec.settled(x, condition)

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """As `ReconstructionCodec.decode`."""
        return self.codec.decode(x, condition)

    def noise(self, samples: Sequence[str], members: Sequence[int], seed: int) -> Tensor:
        """Of every member's k-space, (B, coils, 2, Y, X)."""
        return self.codec.kspace_noise(samples, members, seed)

    def example(self, batch: int, seed: int) -> xr.Dataset:
        """Scans of an ellipse with a smooth phase and some texture."""
        rows, columns = self.codec.size
        rng = np.random.default_rng(seed)
        y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
        inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 < 1
        texture = 1 + 0.3 * np.sin(9 * x + rng.uniform(0, 6, (batch, 1, 1))) * np.cos(7 * y)
        images = (inside * texture * np.exp(1j * (0.5 * x + 0.3 * y))).astype(np.complex64)
        keys = [f"example/{i}" for i in range(batch)]
        most = self.codec.coils
        return synth.scan(images, keys, seed, coils=(min(2, most), most), accelerations=(2, 3))

    def feed(self, archive: xr.Dataset) -> dict[str, Tensor]:
        """Of checked scans."""
        count = archive.sizes["coil"]
        out = {}
        for name in ("kspace", "sens_maps"):
            whole = np.zeros((archive.sizes["slice"], self.codec.coils, 2, *self.codec.size), np.float32)
            values = np.asarray(archive[name].values)
            whole[:, :count] = np.stack([values.real, values.imag], axis=2)
            out[name] = torch.from_numpy(whole)
        mask = torch.from_numpy(np.asarray(archive["mask"].values, np.float32))
        noise = torch.from_numpy(np.asarray(archive["noise_std"].values, np.float32))
        return {"kspace": out["kspace"], "mask": mask, "sens_maps": out["sens_maps"], "noise_std": noise}
