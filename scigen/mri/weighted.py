"""Images of real anatomy in several contrasts, made of maps of tissue fractions by the signal equations."""

import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.anatomy import grid
from scigen.mri.appearance import Appearance, gain
from scigen.mri.contrast import CONTRASTS, TISSUES, pulses, varied
from scigen.mri.reading import joined, with_signal
from scigen.mri.resample import low_passed
from scigen.mri.tissues import Anatomy, Paths, read_anatomy, subjects

log = logging.getLogger(__name__)


def open_tissues(
    tissues: Mapping[str, Paths], contrasts: Sequence[str] = CONTRASTS, seed: int = 0, size: int | None = None
) -> xr.Dataset:
    """Images of every subject in every contrast, a volume each.

    A volume depends on the seed, its subject's name and its contrast alone. Slices whose tissue has less than one
    hundredth of the energy of the fullest are left out, the same in all contrasts.

    Args:
        tissues: see `scigen.mri.tissues.subjects`.
        contrasts: of `scigen.mri.contrast.CONTRASTS`; one that is named twice is made twice, with other times.
        seed: of all that is drawn.
        size: pixels a side, see `scigen.mri.resample.low_passed`; None is that of the maps.

    Returns:
        `image` complex64 (slice, y, x), of magnitude about 1 times a gain of the volume. Coordinates: `slice`
        "<subject>-<contrast>/<z>", `subject` the volume, `patient` the subject, `contrast`. Attributes as of
        `scigen.mri.reading.open_anatomy`.

    Raises:
        UserError: for contrasts that are not known, or maps that do not fit.
    """
    unknown = [str(c) for c in contrasts if c not in CONTRASTS]
    if unknown or not contrasts:
        raise UserError(f"data.contrasts={list(contrasts)}: expected some of {', '.join(CONTRASTS)}, one at least.")
    parts = []
    for subject, files in subjects(tissues).items():
        anatomy = read_anatomy(subject, files)
        kept = with_signal(np.sum(list(anatomy.fractions.values()), axis=0), subject)
        for i, contrast in enumerate(contrasts):
            made = volume(anatomy, contrast, seed, kept, list(contrasts[:i]).count(contrast))
            parts.append(made if size is None else low_passed(made, size))
    return joined(parts, "image")


def volume(anatomy: Anatomy, contrast: str, seed: int, kept: np.ndarray, again: int = 0) -> xr.Dataset:
    """Some slices of one anatomy in one contrast, which has been there `again` times; see `open_tissues`."""
    properties = varied(_generator(seed, anatomy.subject))
    name = f"{anatomy.subject}-{contrast}{again + 1 if again else ''}"
    rng = _generator(seed, f"{name}|contrast")
    sequence = pulses(rng, contrast, properties)
    signal = dict(zip(TISSUES, sequence.signal(properties).tolist(), strict=True))
    strongest = max(signal[t] for t in anatomy.fractions)
    scale, look = gain(rng) / strongest, Appearance(rng)
    depth, height, width = next(iter(anatomy.fractions.values())).shape
    full = max(height, width)
    axis = grid(full)
    rows, columns = (slice(full // 2 - n // 2, full // 2 - n // 2 + n) for n in (height, width))
    images = np.empty((len(kept), height, width), np.complex64)
    step = anatomy.voxel_size[0] / (full / 2 * max(anatomy.voxel_size[1:]))
    for i, z in enumerate(kept.tolist()):
        at = (z - depth // 2) * step
        magnitude = scale * sum(signal[t] * f[z].astype(np.float64) for t, f in anatomy.fractions.items())
        images[i] = magnitude * (look.amplitude(axis, at) * np.exp(1j * look.phase(axis, at)))[rows, columns]
    times = {k: v for k, v in vars(sequence).items() if v is not None and k != "contrast"}
    log.info("%s: %s ms", name, ", ".join(f"{k.upper()} {v:.0f}" for k, v in times.items() if k != "flip"))
    count = len(kept)
    return xr.Dataset(
        {"image": (("slice", "y", "x"), images, {"long_name": "signal", "units": "1"})},
        coords={
            "slice": [f"{name}/{z}" for z in kept],
            "subject": ("slice", np.repeat(name, count)),
            "patient": ("slice", np.repeat(anatomy.subject, count)),
            "contrast": ("slice", np.repeat(contrast, count)),
        },
        attrs={"affine": anatomy.affine.tolist(), "voxel_size": list(anatomy.voxel_size), "depth": depth},
    )


def _generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of a seed and a name."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")])
