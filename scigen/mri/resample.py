"""Images with fewer pixels, by the centre of their k-space: what a scan of lower resolution would have seen."""

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.fourier import fft2c, ifft2c


def low_passed(ds: xr.Dataset, size: int) -> xr.Dataset:
    """Images of size × size pixels over the same field of view, after padding to a square.

    The mean of an image stays, ringing at edges is the scan's own. The affine, where there is one, follows.

    Args:
        ds: `image` (slice, y, x); attributes `affine`, from voxels x, y, z to mm, and `voxel_size` (z, y, x) [mm].
        size: pixels a side, at most those of the longer side.

    Raises:
        UserError: for more pixels than there are.
    """
    image = np.asarray(ds["image"].values, np.complex64)
    full = max(image.shape[1:])
    if not 1 < size <= full:
        raise UserError(
            f"data.size={size}: the images have {image.shape[1]} × {image.shape[2]} pixels; expected 2 to {full}."
        )
    before = [full // 2 - n // 2 for n in image.shape[1:]]  # the centre, n // 2, stays the centre
    pads = [(b, full - n - b) for b, n in zip(before, image.shape[1:], strict=True)]
    start = full // 2 - size // 2
    out = np.empty((len(image), size, size), np.complex64)
    for i, one in enumerate(image):
        kspace = fft2c(np.pad(one, pads))[start : start + size, start : start + size]
        out[i] = ifft2c(kspace) * (size / full)
    made = ds.drop_vars(["image", *(c for c in ("y", "x") if c in ds.coords)])
    made["image"] = (("slice", "y", "x"), out)
    step = full / size
    if ds.attrs.get("affine") is not None:
        turn = np.diag([step, step, 1.0, 1.0])
        turn[:2, 3] = [full // 2 - b - size // 2 * step for b in reversed(before)]
        made.attrs["affine"] = (np.asarray(ds.attrs["affine"], np.float64).reshape(4, 4) @ turn).tolist()
    if ds.attrs.get("voxel_size") is not None:
        z, y, x = ds.attrs["voxel_size"]
        made.attrs["voxel_size"] = [z, y * step, x * step]
    return made
