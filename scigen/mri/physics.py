"""Reconstruction as y = M F S x + n: the codec between scans and the network.

A slice is scaled by what its own k-space says, and a network sample is what a Gaussian prior with the training images'
power spectrum leaves open: r = e^{−iφ}(x − μ)/std, with μ = E[x | y] of that prior, and φ the phase of the smoothed
zero-filled image, so that the real part of r runs along the signal.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core import addressed
from scigen.core.codec import Codec, Index, Layout
from scigen.core.operator import Operator
from scigen.errors import UserError
from scigen.mri.checks import check_scans
from scigen.mri.export import FORMATS, export
from scigen.mri.lazy import open_lazily
from scigen.mri.operator import Measured, to_channels, to_complex, with_noise
from scigen.mri.preparation import derived, scan_scales
from scigen.mri.reading import open_scans
from scigen.mri.spectrum import on_grid, radial_profile
from scigen.mri.traced import TracedReconstruction

CHUNK = 64
"""Slices that are encoded at once."""
GEOMETRY = ("affine", "voxel_size", "depth", "recon_shape")
"""Attributes of scans that say where images lie; those that differ by subject are JSON."""
NOTICE = "Research use only, not for diagnosis."


class ReconstructionCodec(Codec):
    """k-space in, complex images out."""

    def __init__(
        self, size: Sequence[int], coils: int, profile: np.ndarray, std: float, *, iterations: int = 12,
        conditional: bool = True,
    ) -> None:  # fmt: skip
        """Set the codec.

        Args:
            size: pixels along y, x.
            coils: at most; scans with fewer have zero maps for the rest.
            profile: power of one part of a k-space coefficient of scaled images, at the frequencies of `radii`, (R,).
            std: of residuals, of scaled images.
            iterations: of conjugate gradients in every network call at most.
            conditional: whether the network sees the measurement. If not it learns a prior of images, μ is 0, and the
                measurement comes in at sampling alone.
        """
        self.size, self.coils, self.std = (int(size[0]), int(size[1])), int(coils), float(std)
        self.iterations, self.conditional = iterations, conditional
        self.profile = np.asarray(profile, np.float64)
        self._spectrum = torch.from_numpy(on_grid(self.profile, self.size))

    @property
    def shape(self) -> tuple[int, ...]:
        """(2, Y, X): real and imaginary part."""
        return (2, *self.size)

    @property
    def fields(self) -> int:
        """The prior's mean and the zero-filled image, complex, and the mask."""
        return 5

    @property
    def scalars(self) -> int:
        """Noise level, share of k-space that is sampled, number of coils: logarithms."""
        return 3

    @property
    def measured(self) -> Operator | None:
        """A, with the Gaussian prior that weighs measurements."""
        operator = Measured(self._spectrum, self.std, self.iterations)
        operator.learnt = self.conditional
        return operator

    @property
    def noisy(self) -> bool:
        """k-space has noise."""
        return True

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """Real and imaginary part, in the units of the input."""
        return {
            "image_re": {"long_name": "real part of the image", "units": "1", "comment": "scale of the input"},
            "image_im": {"long_name": "imaginary part of the image", "units": "1", "comment": "scale of the input"},
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """What these images are for."""
        return {"notice": NOTICE}

    @property
    def purpose(self) -> dict[str, Any]:
        """Research use only."""
        return {
            "use": "Research use only: images from undersampled k-space, with an ensemble that tells what is open.",
            "not": "Diagnosis, treatment or any other clinical decision.",
            "limits": [
                "What was not measured comes from the training images: a structure in all members is no proof of it.",
                "Anatomy, contrast, coils, masks or noise other than in training make the spread too narrow.",
                "Consistency with the data says nothing on the frequencies that were not sampled.",
            ],
        }

    def open(self, path: str) -> xr.Dataset:
        """Scans at a path: fastMRI HDF5, zarr, netCDF, npz; a target is not needed. Large ones are prepared lazily."""
        found = open_lazily(path, self.prepared)
        return open_scans(path) if found is None else found

    def prepare(self, archive: xr.Dataset) -> xr.Dataset:
        """Scans, checked, with all that conditions need: see `prepared`.

        Raises:
            UserError: if the archive has no k-space that fits, see `check_scans`.
        """
        if "prior_mean" in archive:
            return archive
        return self.prepared(check_scans(archive))

    def prepared(self, scans: xr.Dataset) -> xr.Dataset:
        """Scans with `scale`, and by slice, scaled: `aliased` Aᴴy, `prior_mean` μ, `phase`, `density` (slice, y, x).

        Raises:
            UserError: if the images have another size, or more coils, than the model was made for.
        """
        size = tuple(scans.sizes[d] for d in ("ky", "kx"))
        if size != self.size:
            raise UserError(
                f"The scans have {size[0]} × {size[1]} points of k-space, this model makes {self.size[0]} ×"
                f" {self.size[1]} pixels: crop or pad the k-space to that."
            )
        if scans.sizes["coil"] > self.coils:
            raise UserError(
                f"The scans have {scans.sizes['coil']} coils, this model takes {self.coils} at most: compress them, or"
                f" fit with data.scan.coils up to {scans.sizes['coil']}."
            )
        keep = [n for n in scans.data_vars if n not in ("kspace", "image")]
        return scans[keep].merge(derived(scans, self._spectrum, 2 * self.iterations, self.conditional))

    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """Names of the slices."""
        return [str(s) for s in inputs["slice"].values]

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """What networks see, the scan, and what `decode` needs.

        Returns:
            "fields" (B, 5, Y, X), "scalars" (B, 3); complex "mean", "aliased", "phase" (B, Y, X) and "sens_maps"
            (B, coils, Y, X); "mask", "density" (B, Y, X), "noise", "scale", "energy" ‖y‖² and "count" of complex
            numbers measured (B,). Scaled, all of them.
        """
        part = inputs.isel(slice=index)
        out = {
            name: torch.from_numpy(np.array(part[variable].values, dtype=kind))
            for name, variable, kind in (
                ("mean", "prior_mean", np.complex64), ("aliased", "aliased", np.complex64),
                ("phase", "phase", np.complex64), ("mask", "mask", np.float32), ("density", "density", np.float32),
                ("noise", "noise", np.float32), ("scale", "scale", np.float32), ("energy", "energy", np.float64),
                ("count", "count", np.float64),
            )
        }  # fmt: skip
        maps = np.zeros((len(out["scale"]), self.coils, *self.size), np.complex64)
        maps[:, : part.sizes["coil"]] = part["sens_maps"].values
        return self.seen(out | {"sens_maps": torch.from_numpy(maps)})

    def seen(self, scan: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A scan's tensors, as `condition` names them, and the "fields" and "scalars" that networks see of them."""
        out = dict(scan)
        back = out["phase"].conj()
        seen = [to_channels(back * out["mean"]), to_channels(back * out["aliased"]), out["mask"][:, None] - 0.5]
        out["fields"] = torch.cat(seen, dim=1)
        live = (out["sens_maps"].abs().amax((2, 3)) > 0).sum(1)
        share = out["mask"].mean((1, 2)).clamp_min(1e-3)
        out["scalars"] = torch.stack([out["noise"].log() / 2 + 2, share.log() + 1.7, live.float().log()], dim=1)
        if not self.conditional:
            out |= {n: torch.zeros_like(out[n]) for n in ("fields", "scalars")}
        return out

    def perturbed(
        self, condition: dict[str, Tensor], samples: Sequence[str], members: Sequence[int], seed: int
    ) -> dict[str, Tensor]:
        """With noise of the scan's own level on every member's k-space: Aᴴ(y + n′)."""
        return with_noise(condition, self.kspace_noise(samples, members, seed))

    def kspace_noise(self, samples: Sequence[str], members: Sequence[int], seed: int) -> Tensor:
        """Unit noise of every member's k-space, (B, coils, 2, Y, X)."""
        shape = (2 * self.coils, *self.size)
        rows = [addressed.normal(seed, f"kspace|{s}", m, shape) for s, m in zip(samples, members, strict=True)]
        return torch.from_numpy(np.stack(rows)).unflatten(1, (self.coils, 2))

    def traced(self) -> TracedReconstruction:
        """k-space, mask, maps and noise level in, images out."""
        return TracedReconstruction(self)

    @property
    def spectrum(self) -> Tensor:
        """Power of one part of a k-space coefficient of scaled images, (Y, X)."""
        return self._spectrum

    def settled(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Samples whose data are as far from the measurement as its noise is: see `Measured.settled`."""
        return Measured(self._spectrum, self.std, self.iterations, condition).settled(x)

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Residuals (B, 2, Y, X) of the true images over the prior's mean."""
        part, own = inputs.isel(slice=index), truth.isel(slice=index)
        image = own["image_re"].values + 1j * own["image_im"].values
        scaled = image / part["scale"].values[:, None, None] - part["prior_mean"].values
        r = np.conj(part["phase"].values) * scaled / self.std
        return to_channels(torch.from_numpy(r.astype(np.complex64)))

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images (B, 2, Y, X) in the units of the k-space."""
        image = condition["mean"] + self.std * condition["phase"] * to_complex(x.to(condition["phase"].real.dtype))
        return to_channels(condition["scale"][:, None, None] * image)

    def scored(self, fields: np.ndarray) -> np.ndarray:
        """Magnitudes."""
        return np.hypot(fields[..., 0:1, :, :], fields[..., 1:2, :, :])

    def layout(self, inputs: xr.Dataset, archive: xr.Dataset | None = None) -> Layout:
        """Slices with their subjects."""
        keep = {n: ("slice", inputs[n].values.astype(object)) for n in ("slice", "subject") if n in inputs.coords}
        coords = xr.Dataset(coords=keep | {d: (d, np.arange(n)) for d, n in zip("yx", self.size, strict=True)})
        place = {k: v for k, v in inputs.attrs.items() if k in GEOMETRY}
        words = {k: json.dumps(v) for k, v in place.items() if isinstance(v, Mapping)}
        coords.attrs = {k: np.ravel(v).tolist() if np.ndim(v) else v for k, v in place.items()} | words
        return Layout(coords, ("slice", "y", "x"))

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of other programs, and pictures."""
        return tuple(FORMATS)

    def export(self, archive: xr.Dataset, stem: Path, formats: Sequence[str]) -> list[Path]:
        """fastMRI's HDF5, NIfTI volumes of mean and spread, or a panel as png."""
        return export(archive, stem, formats) if formats else []

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Sizes as JSON, the power spectrum as an array."""
        settings = dict(
            size=list(self.size),
            coils=self.coils,
            std=self.std,
            iterations=self.iterations,
            conditional=self.conditional,
        )
        return settings, {"profile": self.profile}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""
        own = dict(settings)
        return cls(own.pop("size"), own.pop("coils"), arrays["profile"], own.pop("std"), **own)


def fitted(scans: xr.Dataset, images: np.ndarray, conditional: bool = True) -> tuple[ReconstructionCodec, xr.Dataset]:
    """The codec with the statistics of training scans and their images (slice, y, x) complex; the scans, prepared."""
    size, coils = images.shape[-2:], scans.sizes["coil"]
    profile = radial_profile(images / scan_scales(scans)[:, None, None])
    codec = ReconstructionCodec(size, coils, profile, 1.0, conditional=conditional)
    inputs = codec.prepared(scans)
    square = [
        float(
            codec.encode(truth_of(images[low : low + CHUNK]), inputs.isel(slice=slice(low, low + CHUNK)), slice(None))
            .square()
            .sum()
        )
        for low in range(0, len(images), CHUNK)
    ]
    std = (sum(square) / (2 * images.size)) ** 0.5
    return ReconstructionCodec(size, coils, profile, std, conditional=conditional), inputs


def truth_of(images: np.ndarray) -> xr.Dataset:
    """Complex images (slice, y, x) as the variables that samples have."""
    parts = {"image_re": images.real, "image_im": images.imag}
    return xr.Dataset({n: (("slice", "y", "x"), v.astype(np.float32)) for n, v in parts.items()})
