"""Ensembles for other programs: HDF5 as fastMRI has it, NIfTI-1, and a picture."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import values
from scigen.mri.fastmri import write_reconstruction
from scigen.mri.nifti import NOTICE, place, write_maps
from scigen.plots import style

log = logging.getLogger(__name__)

FORMATS = ("h5", "nii", "png")

DIMS = ("slice", "member", "y", "x")

BY_SUBJECT = ("affine", "voxel_size", "depth", "recon_shape", "acquisition", "patient_id")
"""Attributes that are dictionaries by subject, or these as JSON, where subjects differ."""


def export(archive: xr.Dataset, stem: str | Path, formats: Sequence[str]) -> list[Path]:
    """Write an ensemble in formats of other programs; existing files are replaced.

    `h5` is one file a subject, as fastMRI's submissions are: `reconstruction` is the magnitude of the ensemble's mean,
    |⟨x⟩|, cropped to the attribute `recon_shape` if there is one, as are `mean` ⟨|x|⟩, `std` (of |x| over the members)
    and `ensemble` |x|. `nii` are volumes `_mean` ⟨|x|⟩ and `_std` of each subject with a sidecar, slices at the places
    that their names tell, with the attribute `affine`. `png` is one picture: mean, two members and spread of the
    middle slice. A single member has no spread: no `std` is written. Files are `<stem>-<subject>.h5`, or `<stem>.h5`
    for a single subject. All say that they are for research only.

    Args:
        archive: `image_re` and `image_im` (slice, member, y, x) with the coordinates `slice` and `subject`; without
            `member` there is one.
        stem: folder and beginning of the names.
        formats: of h5, nii, png.

    Returns:
        The files, format by format.

    Raises:
        UserError: if a format is not known, the archive is no ensemble, or a file cannot be written.
    """
    stem = Path(stem).expanduser()
    if isinstance(formats, str) or [f for f in formats if f not in FORMATS]:
        raise UserError(f"formats={formats}: expected some of {', '.join(FORMATS)} in a list, such as [h5, nii].")
    archive = _ensemble(archive)
    subjects = list(dict.fromkeys(str(s) for s in archive["subject"].values))
    places = {s: np.flatnonzero(np.array([str(v) == s for v in archive["subject"].values])) for s in subjects}
    words = {s: re.sub(r"[^\w.+=-]+", "_", s) for s in subjects}
    if len(set(words.values())) < len(words):
        words = {s: str(i) for i, s in enumerate(subjects)}
    stems = {s: stem if len(subjects) == 1 else stem.with_name(f"{stem.name}-{words[s]}") for s in subjects}
    out: dict[str, list[Path]] = {f: [] for f in dict.fromkeys(formats)}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            part = archive.isel(slice=places[subject])
            if "h5" in out:
                out["h5"].append(_hdf5(stems[subject], _complex(part), _own(part.attrs, subject)))
            if "nii" in out:
                keys = [str(k) for k in part["slice"].values]
                out["nii"] += _nifti(stems[subject], _complex(part), keys, _own(part.attrs, subject))
        if "png" in out:
            middle = archive.isel(slice=[archive.sizes["slice"] // 2])
            title = str(middle["slice"].values[0])
            out["png"].append(panel(_complex(middle)[0], stem.with_name(f"{stem.name}.png"), title))
    except OSError as error:
        raise UserError(
            f"Cannot write {stem}: {error.strerror or error}. Make room, or choose a folder that can be written."
        ) from error
    return [path for paths in out.values() for path in paths]


def spread(ensemble: np.ndarray) -> np.ndarray | None:
    """Standard deviation of the magnitude over the members, n − 1 in the denominator; None for a single one.

    Args:
        ensemble: (…, member, y, x) complex.

    Returns:
        (…, y, x).
    """
    return None if ensemble.shape[-3] < 2 else np.abs(ensemble).std(-3, ddof=1)


def panel(ensemble: np.ndarray, path: Path, title: str) -> Path:
    """One slice: the mean's magnitude, two members on the same scale of grey, and the spread.

    Args:
        ensemble: (member, y, x) complex.
        path: of the picture.
        title: of the slice.

    Returns:
        The path.
    """
    members = np.abs(ensemble[:2])
    shown = {"mean": np.abs(ensemble.mean(0))} | {f"member {i}": m for i, m in enumerate(members)}
    std = spread(ensemble)
    top = float(np.quantile(np.stack(list(shown.values())), 0.999)) or 1.0
    count = len(shown) + (std is not None)
    with style.canvas(2.7 * count + 0.6, 3.3) as figure:
        axes = figure.subplots(1, count, squeeze=False)[0]
        for ax, (name, image) in zip(axes, shown.items(), strict=False):
            drawn = ax.imshow(image, cmap="gray", vmin=0, vmax=top)
            ax.set_title(name)
        figure.colorbar(drawn, ax=list(axes[: len(shown)]), label="magnitude", shrink=0.75, pad=0.01)
        if std is not None:
            high = float(np.quantile(std, 0.999)) or 1.0
            drawn = axes[-1].imshow(std, cmap="magma", vmin=0, vmax=high)
            axes[-1].set_title(f"spread of {len(ensemble)} members")
            figure.colorbar(drawn, ax=axes[-1], label="standard deviation", shrink=0.75, pad=0.01)
        for ax in axes:
            ax.set_axis_off()
        figure.suptitle(f"{title}    {NOTICE}", fontsize=8.5, color="#444444")
        return style.save(figure, path)


def _ensemble(archive: xr.Dataset) -> xr.Dataset:
    """The archive with the dimensions (slice, member, y, x) and subjects."""
    lacking = [v for v in ("image_re", "image_im") if v not in archive.data_vars]
    if lacking:
        held = ", ".join(map(str, archive.data_vars)) or "none"
        raise UserError(f"The archive has no variable '{lacking[0]}': it has {held}.")
    parts = {}
    for name in ("image_re", "image_im"):
        array = archive[name]
        if not {"slice", "y", "x"} <= set(array.dims) <= set(DIMS) or array.size == 0:
            raise UserError(f"'{name}' has the dimensions {dict(array.sizes)}, expected {DIMS}, and none empty.")
        parts[name] = array.expand_dims([d for d in DIMS if d not in array.dims]).transpose(*DIMS)
    if "slice" not in archive.coords:
        raise UserError("The archive has no coordinate 'slice': expected names 'subject/number'.")
    if "subject" not in archive.coords:
        names = [str(k).rsplit("/", 1)[0] for k in archive["slice"].values]
        archive = archive.assign_coords(subject=("slice", names))
    return archive[["subject"]].assign(parts).assign_attrs(archive.attrs)


def _complex(part: xr.Dataset) -> np.ndarray:
    """Images (slice, member, y, x) complex64."""
    real, imag = (values(part[v], f"'{v}'") for v in ("image_re", "image_im"))
    out = np.empty(real.shape, np.complex64)
    out.real, out.imag = real, imag
    return out


def _own(attrs: Mapping[Any, Any], subject: str) -> dict[str, Any]:
    """Attributes as they are of one subject; those that are kept by subject, and not for this one, are left out."""
    own = {str(k): v for k, v in attrs.items()}
    for key in BY_SUBJECT:
        value = own.get(key)
        if isinstance(value, str) and value.startswith("{"):
            value = json.loads(value)
        own[key] = value.get(subject) if isinstance(value, Mapping) else value
    return {k: v for k, v in own.items() if v is not None} | {"subject": subject}


def _hdf5(stem: Path, ensemble: np.ndarray, attrs: Mapping[str, Any]) -> Path:
    """One subject in fastMRI's layout."""
    wanted = attrs.get("recon_shape")
    if wanted is not None:
        h, w = (min(int(n), m) for n, m in zip(wanted, ensemble.shape[-2:], strict=True))
        top, left = (m // 2 - n // 2 for n, m in zip((h, w), ensemble.shape[-2:], strict=True))
        ensemble = ensemble[..., top : top + h, left : left + w]
    std = spread(ensemble)
    extras = {"mean": np.abs(ensemble).mean(1), "ensemble": np.abs(ensemble)} | ({} if std is None else {"std": std})
    return write_reconstruction(stem.with_name(f"{stem.name}.h5"), np.abs(ensemble.mean(1)), attrs, **extras)


def _nifti(stem: Path, ensemble: np.ndarray, keys: Sequence[str], attrs: Mapping[str, Any]) -> list[Path]:
    """Mean and spread of one subject."""
    maps = {"mean": np.abs(ensemble).mean(1)}
    std = spread(ensemble)
    if std is None:
        log.info("%s: one member has no spread: no volume of it is written.", stem)
    else:
        maps["std"] = std
    depth = attrs.get("depth")
    volumes = {k: place(v, keys, None if depth is None else int(depth)) for k, v in maps.items()}
    about = {
        "Mean": "of the magnitude over the members",
        "Std": "standard deviation of the magnitude over the members, n - 1",
        "Members": ensemble.shape[1],
        "Slices": list(keys),
        "Attributes": {k: v for k, v in attrs.items() if k not in ("affine", "depth")},
    }
    return write_maps(stem, volumes, _affine(attrs), about)


def _affine(attrs: Mapping[str, Any]) -> np.ndarray | None:
    """The affine that is known."""
    if attrs.get("affine") is None:
        return None
    affine = np.asarray(attrs["affine"], np.float64)
    if affine.size != 16 or not np.isfinite(affine).all():
        raise UserError(f"affine={attrs['affine']}: expected four rows of four numbers.")
    return affine.reshape(4, 4)
