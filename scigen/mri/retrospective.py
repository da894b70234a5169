"""Fully sampled scans as undersampled ones: lines are left out of real k-space, and nothing is simulated but the mask.

The truth is the image of the whole k-space, combined by the maps. Its noise is the scan's own, so that it belongs to
the truth as well: the truth's data differ from the measurement by less than the noise, for one coil by nothing.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.coils import estimate
from scigen.mri.fourier import ifft2c
from scigen.mri.layout import IMAGE, MAPS, MASK
from scigen.mri.masks import mask

log = logging.getLogger(__name__)

WHOLE = 0.99
"""Share of a slice's acquired region that is sampled if the slice counts as fully sampled: stray zeros do no harm."""


def extents(taken: np.ndarray) -> np.ndarray:
    """First acquired column of every slice and the one after the last, (slice, 2).

    Args:
        taken: mask, (slice, ky, kx) bool.
    """
    lines: np.ndarray = taken.max(1)
    return np.stack([lines.argmax(1), lines.shape[1] - lines[:, ::-1].argmax(1)], axis=1)


def complete(taken: np.ndarray) -> np.ndarray:
    """Whether slices are fully sampled, (slice,) bool: everything in one block of columns around the centre.

    Columns at both ends may be missing, as scanners fill them with zeros; half of them, or more on one side than on the
    other by a sixteenth (partial Fourier), may not.

    Args:
        taken: mask, (slice, ky, kx) bool.
    """
    height, width = taken.shape[1:]
    first, last = extents(taken).T
    count = taken.sum((1, 2))
    symmetric = np.abs(first - (width - last)) <= width // 16
    return (count >= WHOLE * height * (last - first)) & (last - first > width / 2) & symmetric & taken.max(2).all(1)


def combined(scans: xr.Dataset) -> np.ndarray:
    """Σ conj(S) F⁻¹ k, (slice, y, x) complex64."""
    pairs = zip(scans["sens_maps"].values, scans["kspace"].values, strict=True)
    out = [(s.conj() * ifft2c(k)).sum(0) for s, k in pairs]
    return np.array(out, np.complex64)


def undersampled(
    scans: xr.Dataset,
    seed: int,
    *,
    accelerations: Sequence[float] = (4, 8),
    kinds: Sequence[str] = ("random", "equispaced"),
    acs: float | None = None,
    copy: int = 0,
) -> xr.Dataset:
    """Leave samples out of fully sampled scans.

    What is drawn for a slice depends on the seed and its key alone. Coils and noise are the scan's own. Maps that had
    to be estimated (the attribute `sens_maps`) are estimated once more, from the calibration region that remains, which
    is all that a faster scan would have had; the truth is then combined by them. Else a complex `image` is the truth.

    Args:
        scans: checked, see `scigen.mri.checks.check_scans`, and `complete`.
        seed: of the masks.
        accelerations: to choose from, of the columns that are acquired.
        kinds: of masks, to choose from.
        acs: see `scigen.mri.masks.mask`.
        copy: number of these scans among several of the same slices; names of all but the first end with it.

    Returns:
        `kspace`, `mask`, `sens_maps`, `noise_std`, `image` and of each slice `acceleration` (nominal), `coils` and
        `mask_kind`, with the coordinates of `scans`.

    Raises:
        UserError: if a slice is not fully sampled, or no mask can be drawn.
    """
    keys = [str(k) for k in scans["slice"].values]
    whole = scans["mask"].values
    if not complete(whole).all():
        at = int(np.flatnonzero(~complete(whole))[0])
        raise UserError(f"Slice {keys[at]} is not fully sampled: lines are left out of fully sampled scans alone.")
    if not (len(accelerations) and len(kinds)):
        raise UserError("data.scan: accelerations and kinds need one choice each at least.")
    taken, drawn = np.empty_like(whole), []
    for i, (key, extent) in enumerate(zip(keys, extents(whole).tolist(), strict=True)):
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, number])
        acceleration = float(accelerations[int(rng.integers(len(accelerations)))])
        kind = str(kinds[int(rng.integers(len(kinds)))])
        taken[i] = whole[i] & mask(kind, whole.shape[1:], acceleration, acs, rng, (extent[0], extent[1]))
        live = int((scans["kspace"].values[i] != 0).any((1, 2)).sum())
        drawn.append((acceleration, live, kind))
    out = scans.assign(kspace=scans["kspace"] * taken[:, None], mask=(MASK, taken))
    told = scans.attrs.get("sens_maps")
    if told is not None:  # "estimated", or of several files those of which it is true
        own = [s in told for s in scans["subject"].values] if isinstance(told, Mapping) else [True] * len(keys)
        out = out.assign(sens_maps=(MAPS, _estimated(out, np.array(own))))
    given = scans["image"].values if "image" in scans and told is None else np.zeros(1)
    image = given if given.imag.any() else combined(scans.assign(sens_maps=out["sens_maps"]))
    rows = [np.array(v) for v in zip(*drawn, strict=True)]
    out = out.assign(
        image=(IMAGE, image.astype(np.complex64)),
        acceleration=("slice", rows[0]), coils=("slice", rows[1]), mask_kind=("slice", rows[2]),
    )  # fmt: skip
    log.info("%d fully sampled slices: %.1f %% of their samples are kept.", len(keys), 100 * taken.sum() / whole.sum())
    return out.assign_coords(slice=[f"{k}|{copy}" for k in keys]) if copy else out


def _estimated(scans: xr.Dataset, which: np.ndarray) -> np.ndarray:
    """Maps of every slice, those of some from its calibration region, which are ones for a single coil."""
    maps = np.array(scans["sens_maps"].values)
    for i in np.flatnonzero(which):
        kspace = scans["kspace"].values[i]
        live = (kspace != 0).any((1, 2))
        try:
            maps[i, live] = 1 if live.sum() == 1 else estimate(kspace[live], scans["mask"].values[i])
        except UserError as error:
            raise UserError(f"slice {scans['slice'].values[i]}: {error}") from error
    return maps
