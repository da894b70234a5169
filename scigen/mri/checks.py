"""What is seen to before scans are used: layout, mask, damaged lines, coils, maps, centring, noise.

Scale is never touched: a k-space of 1e-6 passes as it is.
"""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.fourier import ifft2c

log = logging.getLogger(__name__)

KSPACE = ("slice", "coil", "ky", "kx")
MAPS = ("slice", "coil", "y", "x")
IMAGE = ("slice", "y", "x")
MASK = ("slice", "ky", "kx")

AXES = (*KSPACE, "reim", "coil+reim")
"""Axes that a layout may name: `reim` are real and imaginary part, `coil+reim` those of each coil alternately."""

UNCENTRED = 4.0
"""Energy at the edges over that in the middle from which k-space, or an image, counts as shifted by half its size."""

SMALLEST = 16
"""Points that an axis has at least for its centring to be judged."""

OUTERMOST = 0.1
"""Share of the samples, those farthest from the centre of k-space, that the noise is estimated from."""

MAD = 0.6744897501960817
"""Median of |n| for n of the standard normal distribution."""

UNIT = 1e-3
"""How far Σ|S|² may be from one."""

SUPPORT = 1e-6
"""Σ|S|² over its maximum below which there is no object."""


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


def check_scans(ds: xr.Dataset, repair: bool = False) -> xr.Dataset:
    """Scans as the rest of scigen expects them, with all that was amended logged.

    The mask becomes bool (slice, ky, kx); where none is given it is inferred. Samples count where mask and k-space
    agree that they were taken. Dead coils are dropped, maps normalised, or estimated where there are none. If maps were
    not normalised, a complex `image` is scaled by √Σ|S|², so that it still belongs to the k-space; a real one is taken
    for a root sum of squares, which is so already. Unknown noise is estimated, see `estimate_noise`. A checked dataset
    passes as it is.

    Args:
        ds: `kspace` (slice, coil, ky, kx), and optionally `mask`, `sens_maps`, `noise_std`, `image`.
        repair: whether lines with NaN or infinite values become unsampled.

    Raises:
        UserError: if something is missing, damaged, empty, shifted or contradictory.
    """
    name = str(ds.encoding.get("source", "The scan"))
    ds = _keyed(_named_axes(ds, name), name)
    kspace = np.array(ds["kspace"].values, np.complex64)
    keys = [str(k) for k in ds["slice"].values]
    nonzero = kspace != 0  # so are NaN
    _refuse(~nonzero.any((1, 2, 3)), keys, name, "is zero everywhere in k-space: leave this slice out")
    live = nonzero.any((2, 3))
    mask = _mask(ds, name)
    if mask is None:
        mask = _inferred(nonzero, live, keys, name)
    _refuse(~mask.any((1, 2)), keys, name, "has an empty mask: give the mask that says which samples were taken")
    mask = _without_damage(kspace, mask, keys, name, repair)
    mask = _intersection(kspace, mask, name)
    _refuse(~mask.any((1, 2)), keys, name, "has no sample that mask and k-space agree on: give the mask of this scan")
    kspace *= mask[:, None]
    _require_centred(kspace, name)
    live = (kspace != 0).any((2, 3))
    image = _image(ds, kspace.shape, name)
    maps, factor = _maps(ds, kspace, mask, live, keys, name)
    if image is not None and factor is not None and image.imag.any():
        image = (image * factor).astype(np.complex64)
    noise = _noise(ds, kspace, mask, live, name)
    out = ds.drop_vars([v for v in ("kspace", "mask", "sens_maps", "noise_std", "image") if v in ds])
    out = out.assign(kspace=(KSPACE, kspace), mask=(MASK, mask), sens_maps=(MAPS, maps), noise_std=("slice", noise))
    if image is not None:
        out = out.assign(image=(IMAGE, image))
    out.encoding["source"] = name
    return out


def recentred(ds: xr.Dataset) -> xr.Dataset:
    """Scans of an uncentred FFT as those of a centred one.

    Where most energy lies at the edges of k-space it is shifted by half its size, and so is the mask; where the image
    then lies at the borders, it is shifted likewise by a phase that is linear in k (for even sizes: a checkerboard).
    Each axis is judged on its own.

    Args:
        ds: as for `check_scans`.

    Raises:
        UserError: as `check_scans`, if axes or mask are wrong.
    """
    name = str(ds.encoding.get("source", "The scan"))
    ds = _named_axes(ds, name)
    kspace = np.array(ds["kspace"].values, np.complex64)
    mask = _mask(ds, name)
    axes = tuple(axis for axis, ratio in zip((-2, -1), _edges(_energy(kspace)), strict=True) if ratio > 1)
    if axes:
        kspace = np.fft.fftshift(kspace, axes)
        mask = None if mask is None else np.fft.fftshift(mask, axes)
    turned = tuple(axis for axis, ratio in zip((-2, -1), _edges(_blurred(kspace)), strict=True) if ratio > 1)
    for axis in turned:
        n = kspace.shape[axis]
        phase = np.exp(2j * np.pi * ((np.arange(n) - n // 2) * (n // 2) % n) / n).astype(np.complex64)
        kspace = kspace * (phase[:, None] if axis == -2 else phase)
    words = {-2: "y", -1: "x"}
    log.info(
        "%s: fft_centred=false: k-space is shifted along %s, the image along %s.", name,
        " and ".join(f"k{words[a]}" for a in axes) or "no axis", " and ".join(words[a] for a in turned) or "no axis",
    )  # fmt: skip
    out = ds.assign(kspace=(KSPACE, kspace))
    if mask is not None:
        out = out.drop_vars("mask").assign(mask=(MASK, mask))
    out.encoding["source"] = name
    return out


def estimate_noise(kspace: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of the noise per real and imaginary part, of one slice.

    The median absolute value of real and imaginary parts over 0.6745, of the tenth of the samples that is farthest from
    the centre, where noise outweighs signal. What signal is there makes it an upper bound.

    Args:
        kspace: (coil, ky, kx), live coils only.
        mask: (ky, kx) bool.
    """
    y, x = (np.abs(np.arange(n) - n // 2) / max(n / 2, 1) for n in mask.shape)
    radius = np.hypot(y[:, None], x)[mask]
    outer = radius >= np.quantile(radius, 1 - OUTERMOST)
    samples = kspace[:, mask][:, outer].astype(np.complex128)
    return float(np.median(np.abs(np.concatenate([samples.real.ravel(), samples.imag.ravel()]))) / MAD)


def _named_axes(ds: xr.Dataset, name: str) -> xr.Dataset:
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


def _keyed(ds: xr.Dataset, name: str) -> xr.Dataset:
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


def _refuse(bad: np.ndarray | np.bool, keys: Sequence[str], name: str, what: str) -> None:
    """Refuse slices that are marked."""
    if bad.any():
        at = np.flatnonzero(bad)
        more = f" ({len(at)} such slices: {', '.join(keys[i] for i in at[:5])}{', …' * (len(at) > 5)})"
        raise UserError(f"{name}: slice {keys[at[0]]} {what}{more if len(at) > 1 else ''}.")


def _mask(ds: xr.Dataset, name: str) -> np.ndarray | None:
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


def _inferred(nonzero: np.ndarray, live: np.ndarray, keys: Sequence[str], name: str) -> np.ndarray:
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


def _without_damage(kspace: np.ndarray, mask: np.ndarray, keys: Sequence[str], name: str, repair: bool) -> np.ndarray:
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


def _intersection(kspace: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Samples that the mask names and that are not zero in all coils."""
    there = (kspace != 0).any(1)
    empty, extra = mask & ~there, there & ~mask
    if empty.any():
        share = 100 * empty.sum() / mask.sum()
        log.warning("%s: %.3g%% of what the mask says is sampled is zero in k-space: not used.", name, share)
    if extra.any():
        share = 100 * extra.sum() / there.sum()
        log.warning(
            "%s: %.3g%% of the k-space is not zero where the mask says it is not sampled: not used.", name, share
        )
    return mask & there


def _energy(kspace: np.ndarray) -> np.ndarray:
    """Energy (ky, kx) of all slices and coils."""
    finite = np.nan_to_num(kspace, posinf=0, neginf=0)
    return np.square(finite.real, dtype=np.float64).sum((0, 1)) + np.square(finite.imag, dtype=np.float64).sum((0, 1))


def _blurred(kspace: np.ndarray) -> np.ndarray:
    """Energy (y, x) of the image as the middle quarter of ky and kx shows it, which is free of aliasing."""
    middle = np.zeros(kspace.shape, np.complex64)
    rows, columns = (slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in kspace.shape[-2:])
    middle[..., rows, columns] = np.nan_to_num(kspace[..., rows, columns], posinf=0, neginf=0)
    return _energy(ifft2c(middle))


def _edges(energy: np.ndarray) -> tuple[float, float]:
    """Energy in the outermost quarter over that in the middle one, along y and x; 1 where it cannot be judged."""
    out = []
    for axis in (1, 0):
        profile = energy.sum(axis)
        n, q = len(profile), len(profile) // 8
        outer, inner = profile[:q].sum() + profile[n - q :].sum(), profile[n // 2 - q : n // 2 + q].sum()
        out.append(1.0 if n < SMALLEST or outer + inner == 0 else float(outer / max(inner, 1e-9 * outer)))
    return out[0], out[1]


def _require_centred(kspace: np.ndarray, name: str) -> None:
    """Refuse what an uncentred FFT leaves: the peak of k-space at a corner, or the image cut in four."""
    ratio = max(_edges(_energy(kspace)))
    if ratio > UNCENTRED:
        raise UserError(
            f"{name}: the edges of k-space hold {ratio:.3g} times the energy of its middle, expected the peak in the "
            "middle: the FFT was not centred. fft_centred=false shifts it."
        )
    if min(_edges(_blurred(kspace))) > UNCENTRED:
        raise UserError(
            f"{name}: the image lies at the borders, its middle is empty: the FFT was not centred (k-space has the "
            "phase of a checkerboard). fft_centred=false takes it away."
        )


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


def _maps(
    ds: xr.Dataset, kspace: np.ndarray, mask: np.ndarray, live: np.ndarray, keys: Sequence[str], name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalised maps (slice, coil, y, x) of the live coils, and the factor of the image if they changed."""
    s, c, h, w = kspace.shape
    if "sens_maps" in ds:
        if set(ds["sens_maps"].dims) != set(MAPS):
            raise UserError(f"{name}: 'sens_maps' has the dimensions {ds['sens_maps'].dims}, expected {MAPS}.")
        maps = np.array(ds["sens_maps"].transpose(*MAPS).values, np.complex64)
        if maps.shape != kspace.shape:
            raise UserError(f"{name}: sens_maps is {maps.shape}, k-space {kspace.shape}: give both on one grid.")
        if not np.isfinite(maps).all():
            raise UserError(f"{name}: sens_maps is NaN or infinite somewhere. Give none, and they are estimated.")
        _warn_dead(~live & (maps != 0).any((2, 3)), keys, name)
        maps[~live] = 0
        _refuse(~(maps != 0).any((1, 2, 3)), keys, name, "has no map of a coil that has a signal: correct sens_maps")
        return _normalised(maps, name)
    _warn_dead(~live, keys, name)
    maps = np.zeros((s, c, h, w), np.complex64)
    if live.sum(1).max() > 1:
        log.info("%s: no sens_maps are given: estimated from the calibration region.", name)
    for i, coils in enumerate(live):
        maps[i, coils] = 1 if coils.sum() == 1 else _estimated(kspace[i, coils], mask[i], f"{name}, slice {keys[i]}")
    return maps, None


def _estimated(kspace: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Maps (coil, y, x) from the calibration region."""
    from scigen.mri.coils import estimate

    try:
        return estimate(kspace, mask)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _warn_dead(dead: np.ndarray, keys: Sequence[str], name: str) -> None:
    """Tell of coils without a signal."""
    where = np.argwhere(dead)
    if len(where):
        coils = ", ".join(map(str, sorted({int(c) for _, c in where})))
        slices = sorted({keys[s] for s, _ in where})
        more = f" and {len(slices) - 1} more slices" if len(slices) > 1 else ""
        log.warning("%s: coil %s has no signal in %s%s: dropped.", name, coils, slices[0], more)


def _normalised(maps: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Maps with Σ|S|² = 1 on the support, and √Σ|S|² before if it was not."""
    total = np.square(np.abs(maps), dtype=np.float64).sum(1)
    support = total > SUPPORT * total.max((1, 2), keepdims=True)
    off = np.abs(total - 1)[support].max(initial=0.0)
    if off <= UNIT:
        return maps, None
    log.warning("%s: Σ|S|² of sens_maps is up to %.3g away from one: normalised.", name, off)
    root = np.sqrt(np.where(support, total, 1))
    return np.where(support[:, None], maps / root[:, None], 0).astype(np.complex64), np.where(support, root, 0)


def _noise(ds: xr.Dataset, kspace: np.ndarray, mask: np.ndarray, live: np.ndarray, name: str) -> np.ndarray:
    """Standard deviations (slice,), estimated where they are not known."""
    s = len(kspace)
    given = np.asarray(ds["noise_std"].values, np.float64) if "noise_std" in ds else np.full(s, np.nan)
    noise = np.broadcast_to(given, (s,)).copy()
    wrong = noise[(noise < 0) | np.isinf(noise)]
    if wrong.size:
        raise UserError(f"{name}: noise_std={wrong[0]:g}: expected numbers from zero on, or NaN where it is unknown.")
    unknown = np.flatnonzero(np.isnan(noise))
    for i in unknown:
        noise[i] = estimate_noise(kspace[i, live[i]], mask[i])
    if len(unknown):
        log.info(
            "%s: noise_std of %d slices is not known: %.3g estimated from the outermost samples (median).",
            name, len(unknown), np.median(noise[unknown]),
        )  # fmt: skip
    return noise
