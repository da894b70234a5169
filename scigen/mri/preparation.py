"""What the network's condition needs of scans beside themselves: scale, phase, zero-filled image, prior mean.

Slices with as many coils and masks of one kind are prepared together, without coils that are absent; no slice depends
on another.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.mri.operator import AXES, Sense, posterior_mean
from scigen.mri.scaling import scales, smooth_phase

COILS = 64
"""Coil images that are prepared at once."""
LEAST_NOISE = 2e-3
"""Of scaled images: below it single precision would lose in the prior what it gains in the measurement."""
TOLERANCE = 1e-4
"""Of the conjugate gradients' residual."""


class Lines(Sense):
    """A where, if all masks are of lines, whole along ky, transforms along y cancel in AᴴA."""

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        """Set coil maps and mask."""
        super().__init__(maps, mask)
        self.axes = AXES[1:] if bool((mask == mask[:, :1]).all()) else AXES

    def normal(self, image: Tensor) -> Tensor:
        """AᴴA of complex images (B, Y, X)."""
        seen = self._where[:, None] * torch.fft.fftn(self.maps * image[:, None], dim=self.axes)
        return (self.maps.conj() * torch.fft.ifftn(seen, dim=self.axes)).sum(1)


def derived(scans: xr.Dataset, spectrum: Tensor, iterations: int, conditional: bool = True) -> xr.Dataset:
    """What is made of the k-space of slices, scaled but for the scale itself.

    Args:
        scans: `kspace`, `mask`, `sens_maps`, `noise_std`, checked.
        spectrum: of the Gaussian prior, (Y, X).
        iterations: of conjugate gradients at most.
        conditional: whether the prior's mean given the measurement is wanted; else it is 0.

    Returns:
        By slice: `scale`, `noise`, `energy` ‖y‖² and `count` of complex numbers measured; (slice, y, x): `aliased` Aᴴy,
        `prior_mean`, `phase` (modulus 1), `density`.
    """
    live = live_coils(scans)
    out: dict[str, np.ndarray] = {}
    mask = scans["mask"].values
    kinds = np.stack([live.sum(1), (mask == mask[:, :1]).all((1, 2))], axis=1)
    for kind in np.unique(kinds, axis=0):
        index = np.flatnonzero((kinds == kind).all(1))
        step = max(1, COILS // max(int(kind[0]), 1))
        for part in (index[i : i + step] for i in range(0, len(index), step)):
            sense, kspace = scan_of(scans, part, live)
            noise = torch.from_numpy(np.asarray(scans["noise_std"].values[part], np.float64))
            for name, found in derived_of(sense, kspace, noise, spectrum, iterations, conditional).items():
                values = found.numpy()
                out.setdefault(name, np.empty((len(live), *values.shape[1:]), values.dtype))[part] = values
    return xr.Dataset({n: (("slice", "y", "x")[: v.ndim], v) for n, v in out.items()})


def scan_scales(scans: xr.Dataset) -> np.ndarray:
    """The scale of every slice, (slices,)."""
    live = live_coils(scans)
    out = np.empty(len(live), np.float32)
    for i in range(0, len(live), COILS):
        part = np.arange(i, min(i + COILS, len(live)))
        sense, kspace = scan_of(scans, part, live)
        out[part] = scales(sense.combine(kspace)).numpy()
    return out


def live_coils(scans: xr.Dataset) -> np.ndarray:
    """Which coils of every slice have a map, (slice, coil) bool."""
    return np.stack([(m != 0).any((1, 2)) for m in scans["sens_maps"].values])


def scan_of(scans: xr.Dataset, part: np.ndarray, live: np.ndarray) -> tuple[Sense, Tensor]:
    """A and y (B, coils, Y, X) of some slices, with as many coils as the slice has that has most."""
    most = max(int(live[part].sum(1).max()), 1)
    order = np.argsort(~live[part], axis=1, kind="stable")[:, :most]
    maps, kspace = (
        torch.from_numpy(
            np.stack([scans[n].values[i][o] for i, o in zip(part, order, strict=True)]).astype(np.complex64)
        )
        for n in ("sens_maps", "kspace")
    )
    return Lines(maps, torch.from_numpy(scans["mask"].values[part])), kspace


def derived_of(
    sense: Sense, kspace: Tensor, noise_std: Tensor, spectrum: Tensor, iterations: int, conditional: bool = True
) -> dict[str, Tensor]:
    """What `derived` gives, of some slices, from A, y (B, coils, Y, X) and the noise (B,)."""
    scale = scales(sense.combine(kspace))
    aliased = sense.combine(kspace / scale[:, None, None, None].to(torch.complex64))
    noise = noise_std.double() / scale.double()
    noise = noise.clamp_min(LEAST_NOISE).float()
    density, mean = sense.density(), torch.zeros_like(aliased)
    if conditional:
        # single precision leaves 1e-4 to 3e-3 of the mean to chance, most for one coil; double takes 1.75 times as long
        precision = spectrum.double().reciprocal().expand(scale.shape[0], -1, -1)
        precise = type(sense)(sense.maps.to(torch.complex128), sense.mask)
        start = torch.zeros_like(precise.maps[:, 0])
        mean = posterior_mean(
            precise, start, precise.combine(kspace / scale[:, None, None, None]), noise, precision, precise.density(),
            iterations, TOLERANCE,
        ).to(aliased.dtype)  # fmt: skip
    live = sense.maps.abs().amax((2, 3)) > 0
    seen = (sense.mask[:, None] * kspace * live[:, :, None, None]).to(torch.complex128).abs().square()
    return {
        "scale": scale, "noise": noise, "aliased": aliased, "prior_mean": mean, "phase": smooth_phase(aliased),
        "density": density, "energy": seen.sum((1, 2, 3)) / scale.double() ** 2,
        "count": sense.mask.double().sum((1, 2)) * live.sum(1),
    }  # fmt: skip
