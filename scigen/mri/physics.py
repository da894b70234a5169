"""Reconstruction as y = M F S x + n: the codec between scans and the network.

A slice is scaled by what its own k-space says, and a network sample is what a Gaussian prior with the training images'
power spectrum leaves open: r = e^{−iφ}(x − μ)/std, with μ = E[x | y] of that prior, and φ the phase of the smoothed
zero-filled image, so that the real part of r runs along the signal.
"""

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
from scigen.mri.operator import Measured, Sense, fft2c, ifft2c, posterior_mean, to_channels, to_complex
from scigen.mri.reading import open_scans

CHUNK = 64
"""Slices that are prepared at once."""
LEAST_NOISE = 2e-3
"""Of scaled images: below it single precision would lose in the prior what it gains in the measurement."""
GEOMETRY = ("affine", "voxel_size", "depth", "recon_shape")
"""Attributes of scans that say where images lie; those that differ by subject stay behind."""
NOTICE = "Research use only, not for diagnosis."


class ReconstructionCodec(Codec):
    """k-space in, complex images out."""

    def __init__(
        self, size: Sequence[int], coils: int, profile: np.ndarray, std: float, *, iterations: int = 12
    ) -> None:
        """Set the codec.

        Args:
            size: pixels along y, x.
            coils: at most; scans with fewer have zero maps for the rest.
            profile: power of one part of a k-space coefficient of scaled images, at the frequencies of `radii`, (R,).
            std: of residuals, of scaled images.
            iterations: of conjugate gradients in every network call at most.
        """
        self.size, self.coils, self.std, self.iterations = (
            (int(size[0]), int(size[1])),
            int(coils),
            float(std),
            iterations,
        )
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
        return Measured(self._spectrum, self.std, self.iterations)

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

    def open(self, path: str) -> xr.Dataset:
        """Scans at a path: fastMRI HDF5, zarr, netCDF, npz; a target is not needed."""
        return open_scans(path)

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
        rows = scans.sizes["slice"]
        out: dict[str, list[np.ndarray]] = {}
        for low in range(0, rows, CHUNK):
            part = scans.isel(slice=slice(low, low + CHUNK))
            for name, values in self._derived(part).items():
                out.setdefault(name, []).append(values)
        keep = [n for n in scans.data_vars if n not in ("kspace", "image")]
        ds = scans[keep]
        dims = {n: ("slice",) for n in ("scale", "noise", "energy", "count")}
        every = {n: (dims.get(n, ("slice", "y", "x")), np.concatenate(v)) for n, v in out.items()}
        return ds.assign(every)

    def scales(self, scans: xr.Dataset) -> np.ndarray:
        """The scale of every slice, (slices,)."""
        parts = [scans.isel(slice=slice(low, low + CHUNK)) for low in range(0, scans.sizes["slice"], CHUNK)]
        return np.concatenate([scales(sense_of(p).combine(kspace_of(p))).numpy() for p in parts])

    def _derived(self, part: xr.Dataset) -> dict[str, np.ndarray]:
        """What `prepared` adds, of some slices."""
        sense, kspace = sense_of(part), kspace_of(part)
        scale = scales(sense.combine(kspace))
        aliased = sense.combine(kspace / scale[:, None, None, None].to(torch.complex64))
        noise = torch.from_numpy(np.asarray(part["noise_std"].values, np.float64)) / scale.double()
        noise = noise.clamp_min(LEAST_NOISE).float()
        density = sense.density()
        precision = self._spectrum.reciprocal().float().expand(len(scale), *self.size)
        mean = posterior_mean(
            sense, torch.zeros_like(aliased), aliased, noise, precision, density, 2 * self.iterations, 1e-4
        )
        live = sense.maps.abs().amax((2, 3)) > 0
        seen = (sense.mask[:, None] * kspace * live[:, :, None, None]).to(torch.complex128).abs().square()
        found = {
            "scale": scale, "noise": noise, "aliased": aliased, "prior_mean": mean, "phase": smooth_phase(aliased),
            "density": density, "energy": seen.sum((1, 2, 3)) / scale.double() ** 2,
            "count": sense.mask.double().sum((1, 2)) * live.sum(1),
        }  # fmt: skip
        return {n: v.numpy() for n, v in found.items()}

    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """Names of the slices."""
        return [str(s) for s in inputs["slice"].values]

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """What networks see, the scan, and what `decode` needs.

        Returns:
            "fields" (B, 5, Y, X), "scalars" (B, 3); complex "mean", "aliased", "phase" (B, Y, X) and "sens_maps"
            (B, coils, Y, X); "mask", "density" (B, Y, X), "noise", "scale", "energy" ‖y‖² and "count" of complex numbers measured (B,).
            Scaled, all of them.
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
        out["sens_maps"] = torch.from_numpy(maps)
        back = out["phase"].conj()
        seen = [to_channels(back * out["mean"]), to_channels(back * out["aliased"]), out["mask"][:, None] - 0.5]
        out["fields"] = torch.cat(seen, dim=1)
        live = (out["sens_maps"].abs().amax((2, 3)) > 0).sum(1)
        share = out["mask"].mean((1, 2)).clamp_min(1e-3)
        out["scalars"] = torch.stack([out["noise"].log() / 2 + 2, share.log() + 1.7, live.float().log()], dim=1)
        return out

    def perturbed(
        self, condition: dict[str, Tensor], samples: Sequence[str], members: Sequence[int], seed: int
    ) -> dict[str, Tensor]:
        """With noise of the scan's own level on every member's k-space: Aᴴ(y + n′)."""
        shape = (2 * self.coils, *self.size)
        rows = [addressed.normal(seed, f"kspace|{s}", m, shape) for s, m in zip(samples, members, strict=True)]
        noise = torch.from_numpy(np.stack(rows)).unflatten(1, (self.coils, 2))
        noise = torch.complex(noise[:, :, 0], noise[:, :, 1]) * condition["noise"][:, None, None, None]
        own = Sense(condition["sens_maps"], condition["mask"]).combine(noise)
        return condition | {"aliased": condition["aliased"] + own}

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
        place = {k: v for k, v in inputs.attrs.items() if k in GEOMETRY and not isinstance(v, Mapping)}
        coords.attrs = {k: np.ravel(v).tolist() if np.ndim(v) else v for k, v in place.items()}
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
        settings = dict(size=list(self.size), coils=self.coils, std=self.std, iterations=self.iterations)
        return settings, {"profile": self.profile}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""
        own = dict(settings)
        return cls(own.pop("size"), own.pop("coils"), arrays["profile"], own.pop("std"), **own)


def sense_of(scans: xr.Dataset) -> Sense:
    """A of some scans."""
    maps = torch.from_numpy(np.asarray(scans["sens_maps"].values, np.complex64))
    return Sense(maps, torch.from_numpy(np.asarray(scans["mask"].values)))


def kspace_of(scans: xr.Dataset) -> Tensor:
    """y of some scans, (B, coils, Y, X) complex."""
    return torch.from_numpy(np.asarray(scans["kspace"].values, np.complex64))


def scales(aliased: Tensor) -> Tensor:
    """One number a slice that brings images to order 1: the 99th percentile of the smoothed zero-filled magnitude.

    It comes from the measured data alone, and hardly depends on the acceleration: low frequencies are all sampled.

    Args:
        aliased: Aᴴ y, (B, Y, X) complex.
    """
    smooth = ifft2c(low_pass(aliased.shape[-2:]).to(aliased.device) * fft2c(aliased))
    top = smooth.abs().flatten(1).quantile(0.99, dim=1)
    return torch.where(top > 0, top, torch.ones_like(top))


def smooth_phase(aliased: Tensor) -> Tensor:
    """e^{iφ} of the zero-filled image without its high frequencies, (B, Y, X) complex of modulus 1."""
    smooth = ifft2c(low_pass(aliased.shape[-2:]).to(aliased.device) * fft2c(aliased))
    size = smooth.abs()
    return torch.where(size > 0, smooth / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(smooth))


def low_pass(shape: Sequence[int]) -> Tensor:
    """Gaussian in k-space, of 4 % of the sampling frequency, (Y, X)."""
    return torch.from_numpy(np.exp(-0.5 * (radii(shape) / 0.04) ** 2).astype(np.float32))


def radii(shape: Sequence[int]) -> np.ndarray:
    """Length of the frequency of every centred k-space coefficient, cycles a pixel, (Y, X)."""
    axes = [(np.arange(n) - n // 2) / n for n in shape]
    return np.hypot(*np.meshgrid(*axes, indexing="ij"))


BINS = 48
"""Of the radial power spectrum, up to the corner of k-space, √½ cycles a pixel."""


def fitted(scans: xr.Dataset, images: np.ndarray) -> tuple[ReconstructionCodec, xr.Dataset]:
    """The codec with the statistics of training scans and their images (slice, y, x) complex; the scans, prepared."""
    size, coils = images.shape[-2:], scans.sizes["coil"]
    blank = ReconstructionCodec(size, coils, np.ones(BINS), 1.0)
    profile = radial_profile(images / blank.scales(scans)[:, None, None])
    codec = ReconstructionCodec(size, coils, profile, 1.0)
    inputs = codec.prepared(scans)
    square = [
        float(
            codec.encode(truth_of(images[low : low + CHUNK]), inputs.isel(slice=slice(low, low + CHUNK)), slice(None))
            .square()
            .sum()
        )
        for low in range(0, len(images), CHUNK)
    ]
    return ReconstructionCodec(size, coils, profile, (sum(square) / (2 * images.size)) ** 0.5), inputs


def truth_of(images: np.ndarray) -> xr.Dataset:
    """Complex images (slice, y, x) as the variables that samples have."""
    parts = {"image_re": images.real, "image_im": images.imag}
    return xr.Dataset({n: (("slice", "y", "x"), v.astype(np.float32)) for n, v in parts.items()})


def radial_profile(images: np.ndarray) -> np.ndarray:
    """Power of one part of a k-space coefficient by frequency, averaged over images (N, Y, X) complex: (BINS,).

    Bins without a coefficient take from their neighbours; none falls below 1e-6 of the largest.
    """
    power = np.zeros(images.shape[-2:])
    for low in range(0, len(images), CHUNK):
        chunk = torch.from_numpy(np.ascontiguousarray(images[low : low + CHUNK], np.complex64))
        power += fft2c(chunk).abs().square().double().sum(0).numpy() / 2
    power /= len(images)
    where = np.minimum((radii(power.shape) / np.sqrt(0.5) * BINS).astype(int), BINS - 1)
    count = np.bincount(where.ravel(), minlength=BINS)
    mean = np.bincount(where.ravel(), power.ravel(), BINS) / np.maximum(count, 1)
    mean = np.interp(np.arange(BINS), np.flatnonzero(count), mean[count > 0])
    return np.maximum(mean, 1e-6 * mean.max())


def on_grid(profile: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The radial spectrum at every coefficient, (Y, X), its logarithm interpolated."""
    at = radii(shape) / np.sqrt(0.5) * len(profile) - 0.5
    return np.exp(np.interp(at, np.arange(len(profile)), np.log(profile)))
