"""What is seen to before scans are used: mask, damaged lines, coils, maps, centring, noise.

Scale is never touched: a k-space of 1e-6 passes as it is.
"""

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.centring import require_centred
from scigen.mri.layout import IMAGE, KSPACE, MAPS, MASK
from scigen.mri.receivers import maps_of, noise_of
from scigen.mri.sampled import given_mask, inferred, intersection, keyed, named_axes, refuse, without_damage


def check_scans(ds: xr.Dataset, repair: bool = False) -> xr.Dataset:
    """Scans as the rest of scigen expects them, with all that was amended logged.

    The mask becomes bool (slice, ky, kx); where none is given it is inferred. Samples count where mask and k-space
    agree that they were taken. Dead coils are dropped, maps normalised, or estimated where there are none. If maps were
    not normalised, a complex `image` is scaled by √Σ|S|², so that it still belongs to the k-space; a real one is taken
    for a root sum of squares, which is so already. Unknown noise is estimated, see `estimate_noise`. The attribute
    `sens_maps` is "estimated" where maps were. A checked dataset passes as it is.

    Args:
        ds: `kspace` (slice, coil, ky, kx), and optionally `mask`, `sens_maps`, `noise_std`, `image`.
        repair: whether lines with NaN or infinite values become unsampled.

    Raises:
        UserError: if something is missing, damaged, empty, shifted or contradictory.
    """
    name = str(ds.encoding.get("source", "The scan"))
    ds = keyed(named_axes(ds, name), name)
    kspace = np.array(ds["kspace"].values, np.complex64)
    keys = [str(k) for k in ds["slice"].values]
    nonzero = kspace != 0  # so are NaN
    refuse(~nonzero.any((1, 2, 3)), keys, name, "is zero everywhere in k-space: leave this slice out")
    live = nonzero.any((2, 3))
    mask = given_mask(ds, name)
    if mask is None:
        mask = inferred(nonzero, live, keys, name)
    refuse(~mask.any((1, 2)), keys, name, "has an empty mask: give the mask that says which samples were taken")
    mask = without_damage(kspace, mask, keys, name, repair)
    mask = intersection(kspace, mask, name)
    refuse(~mask.any((1, 2)), keys, name, "has no sample that mask and k-space agree on: give the mask of this scan")
    kspace *= mask[:, None]
    require_centred(kspace, name)
    live = (kspace != 0).any((2, 3))
    image = _image(ds, kspace.shape, name)
    maps, factor = maps_of(ds, kspace, mask, live, keys, name)
    if image is not None and factor is not None and image.imag.any():
        image = (image * factor).astype(np.complex64)
    noise = noise_of(ds, kspace, mask, live, name)
    out = ds.drop_vars([v for v in ("kspace", "mask", "sens_maps", "noise_std", "image") if v in ds])
    out = out.assign(kspace=(KSPACE, kspace), mask=(MASK, mask), sens_maps=(MAPS, maps), noise_std=("slice", noise))
    if image is not None:
        out = out.assign(image=(IMAGE, image))
    if "sens_maps" not in ds:
        out = out.assign_attrs(sens_maps="estimated")
    out.encoding["source"] = name
    return out


def _image(ds: xr.Dataset, shape: tuple[int, ...], name: str) -> np.ndarray | None:
    """The truth (slice, y, x) complex64, if there is one."""
    if "image" not in ds:
        return None
    if set(ds["image"].dims) != set(IMAGE):
        raise UserError(f"{name}: 'image' has the dimensions {ds['image'].dims}, expected {IMAGE}.")
    image = np.array(ds["image"].transpose(*IMAGE).values, np.complex64)
    if image.shape[1:] != shape[2:]:
        raise UserError(
            f"{name}: 'image' is {image.shape[1:]}, k-space {shape[2:]}: give both on one grid, or no image."
        )
    if not np.isfinite(image).all():
        raise UserError(f"{name}: 'image' is NaN or infinite at {(~np.isfinite(image)).sum()} pixels: mend it.")
    return image
