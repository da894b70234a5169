"""Opening scans, which have a k-space, and anatomies, which are images: one file, a folder, a glob, in any format."""

import logging
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import reading
from scigen.io.opening import open_raw
from scigen.mri import fastmri, rawdata
from scigen.mri.centring import recentred
from scigen.mri.checks import check_scans
from scigen.mri.finding import find
from scigen.mri.layout import IMAGE, arranged, assemble
from scigen.mri.nifti import is_nifti, read_nifti, stem_of
from scigen.mri.pairs import PARTS, merged
from scigen.mri.retrospective import combined, complete
from scigen.mri.sampled import keyed

log = logging.getLogger(__name__)

EMPTY = 0.01
"""Energy of a slice over that of the strongest in its volume below which it is nearly without signal."""

BIDS = re.compile(r"sub-[A-Za-z0-9]+(?=_)")
"""How names of files begin that tell the person: volumes of one belong together."""

ARRAYS = ("kspace", "mask", "sens_maps", "noise_std", "image")
"""What a .npz file may hold."""


def open_scans(
    path: str | Path | Sequence[str | Path],
    *,
    layout: str | None = None,
    fft_centred: bool = True,
    repair: bool = False,
) -> xr.Dataset:
    """Open scans and check them, see `scigen.mri.checks.check_scans`.

    HDF5 of fastMRI, ISMRMRD raw data, zarr stores and netCDF files of the scan layout (complex variables as pairs such
    as `kspace_re` and `kspace_im`, or complex in zarr), .npy of a k-space, .npz with `kspace` and optionally `mask`,
    `sens_maps`, `noise_std` and `image` are known. All are read whole. Files with fewer coils than others get coils
    without maps and signal. Where a file of fastMRI or ISMRMRD is fully sampled, `image` is the combination
    Σ conj(S) F⁻¹k, which has a phase; elsewhere it is the file's own magnitude. The attribute `image` says which:
    complex or magnitude.

    Args:
        path: a file or store, a folder, a glob, or a list of them.
        layout: axes of a bare array, such as slice,coil,ky,kx; needed for .npy and .npz.
        fft_centred: whether the origin of image and k-space is in the middle; false shifts what is not.
        repair: whether lines with NaN or infinite values become unsampled.

    Returns:
        `kspace`, `mask`, `sens_maps`, `noise_std` and, if known, `image`, with the coordinates `slice` and `subject`.

    Raises:
        UserError: if something is missing, damaged, of an unknown kind, or does not pass the checks.
    """
    parts = []
    for file in find(path):
        ds = _read_scan(file, layout)
        if not fft_centred:
            ds = recentred(ds)
        ds = check_scans(ds, repair)
        parts.append(_with_truth(ds) if file.suffix.lower() in rawdata.SUFFIXES else ds)
    return joined(parts, "kspace")


def open_anatomy(path: str | Path | Sequence[str | Path]) -> xr.Dataset:
    """Open images of which scans can be simulated.

    Magnitude volumes in NIfTI (axial slices), .npy and .npz (`image`) of one slice or a stack (slice, y, x), real or
    complex, zarr and netCDF with `image` (slice, y, x), or `image_re` and `image_im`, are known. Slices whose energy is
    below one hundredth of the strongest in their volume are dropped.

    Args:
        path: a file or store, a folder, a glob, or a list of them.

    Returns:
        `image` complex64 (slice, y, x) with the coordinates `slice`, "<file stem>/<number>", and `subject`, the volume;
        `patient` where names begin like sub-01_, or stores have it: volumes of one belong together. Of NIfTI
        the attributes `affine` (nested lists, from voxels x, y, z to mm), `voxel_size` (z, y, x) [mm] and `depth`, the
        number of slices with the dropped ones; dictionaries of these by subject where volumes differ.

    Raises:
        UserError: if something is missing, damaged, of an unknown kind, not finite, or without signal.
    """
    return joined([_without_empty(_read_anatomy(file), str(file)) for file in find(path)], "image")


def is_scan(path: str | Path | Sequence[str | Path]) -> bool:
    """Whether there is a k-space, rather than images, by names and shapes alone; the first file decides.

    A .npy file is taken for a k-space if it is complex with four axes.

    Raises:
        UserError: if nothing is there, or it is damaged or of an unknown kind.
    """
    file = find(path)[0]
    suffix = file.suffix.lower()
    if is_nifti(file):
        return False
    if suffix in rawdata.SUFFIXES:
        return rawdata.is_raw(file) or fastmri.is_kspace(file)
    if suffix == ".npz":
        with reading(str(file)), zipfile.ZipFile(file) as archive:
            return "kspace.npy" in archive.namelist()
    if suffix == ".npy":
        with reading(str(file)):
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        return array.dtype.kind == "c" and array.ndim == 4
    return bool({"kspace", "kspace_re"} & set(map(str, open_raw(file, None).data_vars)))


def _read_scan(path: Path, layout: str | None) -> xr.Dataset:
    """One file or store, not checked."""
    suffix = path.suffix.lower()
    if is_nifti(path):
        raise UserError(f"{path} is NIfTI, which holds images and no k-space: simulate scans of it.")
    if rawdata.is_raw(path):
        return rawdata.read_ismrmrd(path)
    if suffix in rawdata.SUFFIXES:
        return fastmri.read_fastmri(path, layout)
    if suffix in (".npy", ".npz"):
        arrays = _load(path, "kspace")
        if "kspace" not in arrays:
            raise UserError(f"{path} has no array 'kspace': it has {', '.join(arrays) or 'none'}.")
        kspace = arrays["kspace"]
        if layout is None:
            raise UserError(
                f"{path}: the k-space is {'×'.join(map(str, kspace.shape))} of {kspace.dtype}, and its axes have no "
                "names: say which they are, e.g. layout=slice,coil,ky,kx."
            )
        others = {k: v for k, v in arrays.items() if k in ARRAYS and k != "kspace"}
        return assemble(arranged(kspace, layout, str(path)), str(path), stem_of(path), **others)
    return _stored(path)


def _read_anatomy(path: Path) -> xr.Dataset:
    """One file or store of images, complex64 (slice, y, x)."""
    suffix, attrs, stem = path.suffix.lower(), {}, stem_of(path)
    if is_nifti(path):
        image, affine, size = read_nifti(path)
        attrs = {"affine": affine.tolist(), "voxel_size": list(size), "depth": len(image)}
    elif suffix in (".npy", ".npz"):
        arrays = _load(path, "image")
        if "image" not in arrays:
            raise UserError(f"{path} has no array 'image': it has {', '.join(arrays) or 'none'}.")
        image = arrays["image"]
    elif suffix in rawdata.SUFFIXES:
        raise UserError(f"{path} is HDF5 without a k-space: give images as NIfTI, .npy, zarr or netCDF.")
    else:
        ds = _stored(path)
        if "image" not in ds or set(ds["image"].dims) != set(IMAGE):
            raise UserError(f"{path} has no 'image' with the dimensions {IMAGE}: it has {dict(ds.sizes)}.")
        image = ds["image"].transpose(*IMAGE).values
        attrs = {k: v for k, v in ds.attrs.items() if k in ("affine", "voxel_size", "depth")}
        if "slice" in ds.coords:
            keys = [str(k) for k in ds["slice"].values]
            made = _images(image, keys, attrs, path, ds["subject"].values if "subject" in ds.coords else None)
            return made.assign_coords(patient=ds["patient"]) if "patient" in ds.coords else made
    image = image[None] if image.ndim == 2 else image
    return _images(image, [f"{stem}/{i}" for i in range(len(image))], attrs, path, None)


def _images(
    image: np.ndarray, keys: Sequence[str], attrs: dict[str, object], path: Path, subject: np.ndarray | None
) -> xr.Dataset:
    """Images with the names of their slices."""
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind not in "buifc":
        raise UserError(f"{path} is {image.shape} of {image.dtype}, expected images (slice, y, x), real or complex.")
    if not np.isfinite(image).all():
        bad = np.flatnonzero(np.isfinite(image).sum((1, 2)) < image[0].size)
        raise UserError(
            f"{path} is NaN or infinite in {len(bad)} slices, {keys[bad[0]]} first: mend or leave them out."
        )
    subjects = [k.rsplit("/", 1)[0] for k in keys] if subject is None else list(map(str, subject))
    coords = {"slice": list(keys), "subject": ("slice", np.array(subjects, dtype=str))}
    person = BIDS.match(path.name)
    if person:
        coords["patient"] = ("slice", np.repeat(person[0], len(keys)))
    return xr.Dataset({"image": (IMAGE, image.astype(np.complex64))}, coords, attrs)


def _without_empty(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The slices that have a signal."""
    image, subject = np.abs(ds["image"].values), ds["subject"].values
    if not image.any():
        raise UserError(f"{name} is zero everywhere: give an image with a signal.")
    volumes = [np.flatnonzero(subject == s) for s in dict.fromkeys(subject.tolist())]
    kept = [own[with_signal(image[own], name)] for own in volumes]
    return ds.isel(slice=np.sort(np.concatenate(kept)))


def with_signal(volume: np.ndarray, name: str) -> np.ndarray:
    """Numbers of the slices of a volume (slice, y, x) that are not nearly without signal; the others are told."""
    energy = np.square(volume, dtype=np.float64).sum((1, 2))
    kept = (energy >= EMPTY * energy.max()) & (energy > 0)
    if not kept.all():
        log.info("%s: %d of %d slices are nearly without signal: left out.", name, (~kept).sum(), len(kept))
    return np.flatnonzero(kept)


def _load(path: Path, only: str) -> dict[str, np.ndarray]:
    """Arrays of a .npz file, or the one of a .npy file under the name `only`; pickled objects are never loaded."""
    try:
        with reading(str(path)), path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {only: loaded}
            return {k: loaded[k] for k in loaded.files}
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch or make it again.") from error


def open_parts(path: Path) -> Callable[[slice], xr.Dataset]:
    """What reads some slices of a file of fastMRI, a zarr store or a netCDF file, not checked, and nothing else of it.

    It may be called by several threads: the file is opened here, since netCDF's library does not open twice at a time.
    """
    if path.suffix.lower() in rawdata.SUFFIXES:
        return lambda part: fastmri.read_fastmri(path, part=part)
    ds = open_raw(path, None)
    return lambda part: _loaded(ds, path, part)


def names(path: Path, count: int) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates along the slices of a file that `open_parts` reads parts of."""
    if path.suffix.lower() not in rawdata.SUFFIXES:
        with reading(str(path)), open_raw(path, None) as ds:
            own = keyed(_keyed(ds.drop_vars(list(ds.data_vars)), path, count), str(path))
            return {str(c): ("slice", v.values) for c, v in own.coords.items() if v.dims == ("slice",)}
    one = open_parts(path)(slice(0, 1))
    found = {str(c): ("slice", np.repeat(v.values, count)) for c, v in one.coords.items()}
    return found | {"slice": ("slice", np.array([f"{stem_of(path)}/{i}" for i in range(count)]))}


def _stored(path: Path) -> xr.Dataset:
    """A zarr store or netCDF file, in memory, with complex variables."""
    with open_raw(path, None) as ds:
        return _loaded(ds, path)


def _loaded(ds: xr.Dataset, path: Path, part: slice = slice(None)) -> xr.Dataset:
    """An open store or file, or some slices of it, in memory, with complex variables."""
    ds = ds[[v for v in ds.data_vars if str(v).removesuffix(PARTS[0]).removesuffix(PARTS[1]) in ARRAYS]]
    with reading(str(path)):
        if "slice" in ds.dims:
            ds = _keyed(ds, path, ds.sizes["slice"]).isel(slice=part)
        ds = ds.load()
    ds.encoding = {"source": str(path)}
    ds = merged(ds)
    ds.encoding = {"source": str(path)}
    return ds


def _keyed(ds: xr.Dataset, path: Path, count: int) -> xr.Dataset:
    """With names of the slices, if there are none, by the file's."""
    if "slice" in ds.coords:
        return ds
    return ds.assign_coords(slice=[f"{stem_of(path)}/{i}" for i in range(count)])


def _with_truth(ds: xr.Dataset) -> xr.Dataset:
    """A scan with the combination of its coils as `image`, if every line that there is was sampled."""
    if complete(ds["mask"].values).all():
        return ds.assign(image=(IMAGE, combined(ds))).assign_attrs(image="complex")
    return ds.assign_attrs(image="magnitude") if "image" in ds else ds


def joined(parts: Sequence[xr.Dataset], main: str) -> xr.Dataset:
    """Datasets of several files as one, all coils of each and the variables that all have."""
    if len(parts) == 1:
        return parts[0]
    sides = {p[main].shape[-2:] for p in parts}
    if len(sides) > 1:
        told = ", ".join("×".join(map(str, s)) for s in sorted(sides))
        raise UserError(f"The files have images of several sizes, {told}: give files of one size at a time.")
    if any("patient" in p.coords for p in parts):
        parts = [p if "patient" in p.coords else p.assign_coords(patient=p["subject"]) for p in parts]
    shared = [v for v in parts[0].data_vars if all(v in p for p in parts)]
    left = sorted({str(v) for p in parts for v in p.data_vars} - set(map(str, shared)))
    if left:
        log.warning("Some files have no %s: left out of all.", ", ".join(left))
    if main == "kspace":
        coils = max(p.sizes["coil"] for p in parts)
        parts = [p.drop_vars("coil", errors="ignore") for p in parts]
        parts = [p.pad(coil=(0, coils - p.sizes["coil"]), constant_values=0) for p in parts]
    coords = set.intersection(*({str(c) for c in p.coords if p[c].dims == ("slice",)} for p in parts))
    parts = [p[shared].reset_coords(drop=True).assign_coords({c: p[c] for c in coords}) for p in parts]
    attrs = {}
    for key in dict.fromkeys(k for p in parts for k in p.attrs):
        told_by = {str(p["subject"].values[0]): p.attrs[key] for p in parts if key in p.attrs}
        same = len(told_by) == len(parts) and all(v == next(iter(told_by.values())) for v in told_by.values())
        attrs[key] = next(iter(told_by.values())) if same else told_by
    out = xr.concat(parts, "slice", data_vars="minimal", coords="minimal", compat="override", join="override")
    if len(set(out["slice"].values.tolist())) < out.sizes["slice"]:
        raise UserError("Several files have slices of one name: make the names, 'subject/number', unique.")
    out.attrs = attrs
    return out
