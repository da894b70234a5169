"""Which samples of a scan count: axes, names of slices, and the mask that its k-space agrees with."""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.layout import KSPACE, MASK, canonical_mask

log = logging.getLogger(__name__)

TRANSPOSED = 0.1
"""Samples that mask and k-space disagree on, over those without ky and kx exchanged, from which they are exchanged."""


def named_axes(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset with its k-space in the usual order of axes."""
    if "kspace" not in ds.data_vars:
        raise UserError(f"{name} has no variable 'kspace': it has {', '.join(map(str, ds.data_vars)) or 'none'}.")
    kspace = ds["kspace"]
    if not {"ky", "kx"} <= set(kspace.dims) <= set(KSPACE):
        raise UserError(f"{name}: 'kspace' has the dimensions {kspace.dims}, expected {KSPACE}: rename them.")
    if kspace.dtype.kind != "c":
        raise UserError(
            f"{name}: 'kspace' is of {kspace.dtype}, expected complex64. Real and imaginary parts are two variables, "
            "kspace_re and kspace_im; in a bare array their axis is named by layout=…,reim or layout=…,coil+reim."
        )
    missing = [d for d in KSPACE if d not in kspace.dims]
    if "slice" in missing and "slice" in ds.dims:
        raise UserError(f"{name}: 'kspace' has no dimension 'slice', though others have: give the k-space of each.")
    if 0 in kspace.shape:
        raise UserError(f"{name}: 'kspace' is empty: {dict(kspace.sizes)}.")
    source = ds.encoding
    ds = ds.assign(kspace=kspace.expand_dims(missing).transpose(*KSPACE))
    ds.encoding = source
    return ds


def keyed(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset with unique words as slices, and their subjects."""
    source = ds.encoding
    if "slice" not in ds.coords:
        ds = ds.assign_coords(slice=[f"scan/{i}" for i in range(ds.sizes["slice"])])
    keys = [str(k) for k in ds["slice"].values]
    twice = sorted({k for k in keys if keys.count(k) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise UserError(f"{name}: the slice '{twice[0]}' is there twice: expected unique names, 'subject/number'.")
    ds = ds.assign_coords(slice=keys)
    if "subject" not in ds.coords:
        ds = ds.assign_coords(subject=("slice", np.array([k.rsplit("/", 1)[0] for k in keys], dtype=str)))
    ds.encoding = source
    return ds


def refuse(bad: np.ndarray | np.bool, keys: Sequence[str], name: str, what: str) -> None:
    """Refuse slices that are marked."""
    if bad.any():
        at = np.flatnonzero(bad)
        more = f" ({len(at)} such slices: {', '.join(keys[i] for i in at[:5])}{', …' * (len(at) > 5)})"
        raise UserError(f"{name}: slice {keys[at[0]]} {what}{more if len(at) > 1 else ''}.")


def given_mask(ds: xr.Dataset, name: str) -> np.ndarray | None:
    """The mask that is given, canonical."""
    if "mask" not in ds:
        return None
    s, _, h, w = ds["kspace"].shape
    mask = ds["mask"]
    if {"kx"} <= set(mask.dims) <= set(MASK) and mask.dtype.kind in "biuf":
        mask = mask.transpose(*(d for d in MASK if d in mask.dims))
        if mask.dims == ("slice", "kx"):
            mask = mask.expand_dims(ky=h, axis=1)
    return canonical_mask(mask.values, (s, h, w), name)


def inferred(nonzero: np.ndarray, live: np.ndarray, keys: Sequence[str], name: str) -> np.ndarray:
    """Where k-space is not zero, if all live coils agree on it."""
    some: np.ndarray = nonzero.max(1)
    split = some & ~(nonzero | ~live[:, :, None, None]).all(1)
    bad = split.max((1, 2))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        share = split[i].sum() / some[i].sum()
        raise UserError(
            f"{name}: no mask is given, and the coils of slice {keys[i]} disagree on {share:.2%} of the samples: some "
            "are zero there, others not. Give the mask."
        )
    log.warning("%s: no mask is given; inferred from what is not zero: %.1f%% is sampled.", name, 100 * some.mean())
    return some


def without_damage(kspace: np.ndarray, mask: np.ndarray, keys: Sequence[str], name: str, repair: bool) -> np.ndarray:
    """The mask without what is NaN or infinite, which becomes zero in place: whole lines of masks of lines."""
    bad = ~np.isfinite(kspace)
    if not bad.any():
        return mask
    lines = np.argwhere(bad.any(2))
    told = "; ".join(f"slice {keys[s]}, coil {c}, line kx={x}" for s, c, x in lines[:5])
    told += f"; … ({len(lines)} in all)" if len(lines) > 5 else ""
    if not repair:
        raise UserError(f"{name}: k-space is NaN or infinite at {told}. Mend it, or repair=true drops these lines.")
    log.warning("%s: k-space is NaN or infinite at %s: taken as not sampled.", name, told)
    gone: np.ndarray = bad.max(1)
    of_lines = np.array([(m == m[0]).all() for m in mask])
    gone |= of_lines[:, None, None] & gone.max(1, keepdims=True)
    kspace[bad] = 0
    return mask & ~gone


def intersection(kspace: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Samples that the mask names and that are not zero in all coils.

    Raises:
        UserError: if the k-space, of as many rows as columns, is what the mask says with ky and kx exchanged.
    """
    there = (kspace != 0).any(1)
    empty, extra = mask & ~there, there & ~mask
    square = mask.shape[1] == mask.shape[2]
    if square and (mask.swapaxes(1, 2) ^ there).sum() < TRANSPOSED * (mask ^ there).sum():
        raise UserError(
            f"{name}: the mask fits the k-space with ky and kx exchanged, and not as it is: give the mask transposed,"
            " as (ky, kx), or exchange ky and kx of the k-space by its layout."
        )
    if empty.any():
        share = 100 * empty.sum() / mask.sum()
        log.warning("%s: %.3g%% of what the mask says is sampled is zero in k-space: not used.", name, share)
    if extra.any():
        share = 100 * extra.sum() / there.sum()
        log.warning(
            "%s: %.3g%% of the k-space is not zero where the mask says it is not sampled: not used.", name, share
        )
    return mask & there
