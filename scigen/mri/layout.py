"""Axes of k-space: how bare arrays become (slice, coil, ky, kx), and scan datasets of them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError

KSPACE = ("slice", "coil", "ky", "kx")

MAPS = ("slice", "coil", "y", "x")

IMAGE = ("slice", "y", "x")

MASK = ("slice", "ky", "kx")

AXES = (*KSPACE, "reim", "coil+reim")
"""Axes that a layout may name: `reim` are real and imaginary part, `coil+reim` those of each coil alternately."""


def arranged(values: np.ndarray, layout: str | None, name: str) -> np.ndarray:
    """A bare array as k-space.

    Args:
        values: k-space, real or complex.
        layout: its axes by name, such as "slice,coil,ky,kx", "ky,kx,coil" or "slice,ky,kx,coil+reim" (see `AXES`).
            None means (slice, ky, kx) or (slice, coil, ky, kx), complex, which is then checked for other orders.
        name: of the file, for messages.

    Returns:
        (slice, coil, ky, kx) complex64; axes that the layout lacks have the length one.

    Raises:
        UserError: if the layout does not fit, or none is given and the array looks like another.
    """
    shape = "×".join(map(str, values.shape))
    if layout is None:
        _refuse_layout(values, shape, name)
        layout = "slice,ky,kx" if values.ndim == 3 else "slice,coil,ky,kx"
    axes = [a.strip() for a in layout.split(",")]
    unknown = [a for a in axes if a not in AXES]
    if unknown or len(set(axes)) < len(axes) or not {"ky", "kx"} <= set(axes) or {"coil", "coil+reim"} <= set(axes):
        raise UserError(f"layout={layout}: expected ky, kx and some of {', '.join(AXES)}, each once.")
    if len(axes) != values.ndim:
        raise UserError(f"{name}: the k-space is {shape}, which are not the {len(axes)} axes of layout={layout}.")
    if {"reim", "coil+reim"} & set(axes):
        values = _complex(values, axes, shape, layout, name)
        axes = [a for a in axes if a != "reim"]
        axes = ["coil" if a == "coil+reim" else a for a in axes]
    if values.dtype.kind != "c":
        raise UserError(
            f"{name}: the k-space is of {values.dtype}, expected complex numbers. Name the axis of real and imaginary "
            "parts: layout=slice,coil,ky,kx,reim, or layout=slice,ky,kx,coil+reim where those of each coil alternate."
        )
    values = values.reshape(*values.shape, *(1 for a in KSPACE if a not in axes))
    axes += [a for a in KSPACE if a not in axes]
    return np.ascontiguousarray(values.transpose([axes.index(a) for a in KSPACE]), np.complex64)


def _complex(values: np.ndarray, axes: Sequence[str], shape: str, layout: str, name: str) -> np.ndarray:
    """Real and imaginary parts as complex numbers, the axis `reim` removed or `coil+reim` halved."""
    which = "reim" if "reim" in axes else "coil+reim"
    at = axes.index(which)
    count = values.shape[at]
    if values.dtype.kind == "c" or count % 2 or (which == "reim" and count != 2):
        need = "2" if which == "reim" else "an even number"
        raise UserError(
            f"{name}: the k-space is {shape} of {values.dtype}; layout={layout} expects real numbers and {need} of "
            f"them along {which}. Correct the layout."
        )
    moved = np.moveaxis(values, at, -1).astype(np.float32)
    merged = moved[..., 0::2] + 1j * moved[..., 1::2]
    return merged[..., 0] if which == "reim" else np.moveaxis(merged, -1, at)


def _refuse_layout(values: np.ndarray, shape: str, name: str) -> None:
    """See that an array whose axes are not named is likely (slice, [coil,] ky, kx)."""
    if values.ndim not in (3, 4) and not (values.ndim == 5 and values.shape[-1] == 2):
        raise UserError(
            f"{name}: the k-space is {shape}, expected (slice, ky, kx) or (slice, coil, ky, kx): name its axes, "
            "e.g. layout=slice,coil,ky,kx."
        )
    last = values.shape[-1]
    if values.dtype.kind != "c" and last == 2:
        axes = ",".join(("slice,coil,ky,kx" if values.ndim == 5 else "slice,ky,kx").split(",")[-values.ndim + 1 :])
        raise UserError(
            f"{name}: the k-space is {shape} of {values.dtype}: its last axis looks like real and imaginary parts. Say "
            f"so: layout={axes},reim."
        )
    if values.ndim < 5 and 2 * last < min(values.shape[-3:-1]):
        lead = "slice," if values.ndim == 4 else ""
        coils = "coil" if values.dtype.kind == "c" else "coil+reim"
        told = "coils" if coils == "coil" else "real and imaginary parts of coils"
        raise UserError(
            f"{name}: the k-space is {shape} of {values.dtype}: its last axis looks like {told}, expected "
            f"(slice, coil, ky, kx) complex. Name the axes: layout={lead}ky,kx,{coils}."
        )


def assemble(
    kspace: np.ndarray,
    name: str,
    subject: str,
    *,
    mask: np.ndarray | None = None,
    sens_maps: np.ndarray | None = None,
    noise_std: np.ndarray | float | None = None,
    image: np.ndarray | None = None,
) -> xr.Dataset:
    """A scan dataset of bare arrays, whose shapes are compared; `check_scans` sees to the rest.

    Args:
        kspace: (slice, coil, ky, kx) complex64.
        name: of the file, for messages.
        subject: of all slices; they are called "<subject>/0", "<subject>/1", ….
        mask: see `canonical_mask`.
        sens_maps: (slice, coil, y, x) or (coil, y, x), the same for all slices.
        noise_std: one number, or (slice,).
        image: (slice, y, x), or (y, x) of a single slice.

    Raises:
        UserError: if a shape does not fit.
    """
    s, c, h, w = kspace.shape
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"kspace": (KSPACE, kspace)}
    if mask is not None:
        variables["mask"] = (MASK, canonical_mask(mask, (s, h, w), name))
    if sens_maps is not None:
        maps = np.asarray(sens_maps)
        if maps.ndim in (3, 4) and maps.shape[-3] != c:
            raise UserError(
                f"{name}: the maps are of {maps.shape[-3]} coils, the k-space is of {c}. Give the maps of these coils, "
                "or none, and they are estimated."
            )
        if maps.shape not in ((c, h, w), (s, c, h, w)):
            raise UserError(f"{name}: sens_maps is {maps.shape}, expected (slice, coil, y, x) {(s, c, h, w)}.")
        variables["sens_maps"] = (MAPS, np.broadcast_to(maps, (s, c, h, w)))
    if noise_std is not None:
        std = np.asarray(noise_std, np.float64)
        if std.shape not in ((), (1,), (s,)):
            raise UserError(f"{name}: noise_std is {std.shape}, expected one number, or one for each of {s} slices.")
        variables["noise_std"] = (("slice",), np.broadcast_to(std, (s,)))
    if image is not None:
        image = image[None] if image.ndim == 2 else image
        if image.ndim != 3 or len(image) != s:
            raise UserError(f"{name}: image is {image.shape}, expected (slice, y, x) {(s, h, w)}.")
        variables["image"] = (IMAGE, image)
    coords = {
        "slice": [f"{subject}/{i}" for i in range(s)],
        "subject": ("slice", np.array([subject] * s, dtype=str)),
    }
    out = xr.Dataset(variables, coords)
    out.encoding["source"] = name
    return out


def canonical_mask(mask: np.ndarray, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """A mask as (slice, ky, kx) bool.

    Args:
        mask: (kx,), (ky, kx) or (slice, ky, kx) of bool, or of numbers 0 and 1; a length-one axis of coils is dropped.
        shape: (slice, ky, kx) of the k-space.
        name: of the file, for messages.

    Raises:
        UserError: if it has another shape, other values, or is complex.
    """
    mask = np.asarray(mask)
    s, h, w = shape
    if mask.dtype.kind not in "biuf":
        raise UserError(
            f"{name}: the mask is of {mask.dtype}, expected bool, or numbers 0 and 1: give mask.real, or …!=0."
        )
    if mask.dtype.kind != "b":
        other = mask[(mask != 0) & (mask != 1)]
        if other.size:
            raise UserError(
                f"{name}: the mask holds {other.flat[0]:g} (and {other.size - 1} more such values), expected 0 and 1. "
                "Give weights > 0 as ones, if that is what they mean."
            )
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim == 1 and len(mask) != w and len(mask) == h:
        raise UserError(
            f"{name}: the mask has {h} values, which fits ky, not the {w} columns kx that it is of. If the lines run "
            "the other way, exchange ky and kx of the k-space by its layout; else give the mask as (ky, kx)."
        )
    if mask.ndim == 2 and mask.shape == (w, h) and w != h:
        raise UserError(f"{name}: the mask is {mask.shape}, transposed: expected (ky, kx) {(h, w)}. Give mask.T.")
    if mask.shape not in ((w,), (h, w), (1, h, w), (s, h, w)):
        raise UserError(
            f"{name}: the mask is {mask.shape}, expected (kx,) {(w,)}, (ky, kx) {(h, w)} or (slice, ky, kx) {shape}."
        )
    return np.broadcast_to(mask != 0, shape).copy()
