"""The default data: random heads in random contrasts with a phase, and simulated scans of any images."""

import hashlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.anatomy import FINER, Head, grid
from scigen.mri.appearance import Appearance, gain
from scigen.mri.coils import birdcage
from scigen.mri.contrast import TISSUES, draw
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.masks import mask

BLUR = 0.35
"""Standard deviation [pixels] of the blur at borders of tissues."""

OBJECT = 0.05
"""Magnitude over its maximum above which a pixel belongs to the object."""

ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)
"""Of the modified Shepp–Logan phantom: value, half-axes, centre x, y (up), turn [degrees]."""


def make(size: int = 64, subjects: int = 160, slices: int = 8, seed: int = 0) -> xr.Dataset:
    """Make the default images. A subject depends on the seed and its number alone.

    Args:
        size: pixels a side.
        subjects: number of heads, each of one contrast.
        slices: of each head, evenly spaced from the level of the ventricles to near the top.
        seed: of everything.

    Returns:
        `image` complex64 (slice, y, x), of magnitude about 1 times a gain of the subject. Coordinates: `slice`
        "s000/0", …, `subject`, `contrast`, and `depth`, the position z of `scigen.mri.anatomy`.

    Raises:
        UserError: for numbers that make no images.
    """
    for name, value, least in (("size", size, 16), ("subjects", subjects, 1), ("slices", slices, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"data.synth.{name}={value}: expected {least} or more.")
    image = np.empty((subjects, slices, size, size), np.complex64)
    depth = np.empty((subjects, slices))
    contrasts = []
    for i in range(subjects):
        image[i], depth[i], contrast = _subject(np.random.default_rng([seed, i]), size, slices)
        contrasts += [contrast] * slices
    names = [f"s{i:03d}" for i in range(subjects)]
    return xr.Dataset(
        {"image": (("slice", "y", "x"), image.reshape(-1, size, size), {"long_name": "signal", "units": "1"})},
        coords={
            "slice": [f"{name}/{j}" for name in names for j in range(slices)],
            "subject": ("slice", np.repeat(names, slices)),
            "contrast": ("slice", np.array(contrasts)),
            "depth": ("slice", depth.ravel(), {"long_name": "0 at the ventricles, 1 near the top", "units": "1"}),
        },
        attrs={
            "title": "Synthetic heads", "source": "simulated by scigen: no person was scanned", "synthetic": 1,
            "seed": seed,
        },
    )  # fmt: skip


def _subject(rng: np.random.Generator, size: int, slices: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Images (slice, y, x), positions (slice,) and contrast of one head."""
    head = Head(rng)
    pulses, tissues = draw(rng)
    signal = pulses.signal(tissues)
    brain = [TISSUES.index(t) for t in ("csf", "grey", "white")]
    signal *= gain(rng) / signal[brain].max()
    look, axis = Appearance(rng), grid(FINER * size)
    z = np.linspace(rng.uniform(0, 0.15), rng.uniform(0.75, 0.95), slices) if slices > 1 else rng.uniform(0, 0.95, 1)
    images = np.empty((slices, size, size), np.complex64)
    for j, at in enumerate(z.tolist()):
        magnitude = signal[head.labels(at, size)] * look.amplitude(axis, at)
        images[j] = _acquired(magnitude * np.exp(1j * look.phase(axis, at)), size)
    return images, z, pulses.contrast


def _acquired(fine: np.ndarray, size: int) -> np.ndarray:
    """The central k-space of a finer image, as it would be measured: with partial volumes and Gibbs ringing."""
    start = (FINER * size) // 2 - size // 2
    inner = slice(start, start + size)
    k = np.arange(size) - size // 2
    damping = np.exp(-2 * (np.pi * BLUR * k / size) ** 2)
    return ifft2c(fft2c(fine)[inner, inner] * damping[:, None] * damping) / FINER


def scan(
    images: np.ndarray,
    keys: Sequence[str],
    seed: int,
    *,
    coils: Sequence[int] = (1, 4),
    accelerations: Sequence[float] = (4, 8),
    kinds: Sequence[str] = ("random", "equispaced"),
    snr: tuple[float, float] = (20, 35),
    acs: float | None = None,
    most: int | None = None,
) -> xr.Dataset:
    """Simulate scans of images: per coil y = M F S x + n.

    What is drawn for a slice depends on the seed and its key alone, not on the other slices.

    Args:
        images: (slice, y, x) complex, or real.
        keys: of the slices, unique, "subject/number".
        seed: of everything.
        coils: numbers of coils to choose from.
        accelerations: to choose from.
        kinds: of masks, to choose from.
        snr: lowest and highest ratio [dB], drawn uniformly, of the root mean square of |x| over the object to the
            standard deviation of the noise per real and imaginary part. The object is where |x| exceeds a twentieth of
            its maximum.
        acs: see `scigen.mri.masks.mask`.
        most: length of the coil axis, the largest of `coils` if None; absent coils are zero.

    Returns:
        `kspace` complex64 (slice, coil, ky, kx), `mask` bool (slice, ky, kx), `sens_maps` complex64
        (slice, coil, y, x), `noise_std` (slice,), `image` complex64 (slice, y, x), and of each slice `acceleration`
        (nominal), `coils` and `mask_kind`; the coordinates `slice` and `subject`.

    Raises:
        UserError: for images that are empty or not finite, keys that are not unique, choices that make no scan.
    """
    images = np.asarray(images)
    most = max(coils, default=0) if most is None else most
    _check(images, keys, coils, accelerations, kinds, snr, most)
    n, height, width = images.shape
    kspace = np.zeros((n, most, height, width), np.complex64)
    maps = np.zeros_like(kspace)
    taken = np.zeros((n, height, width), bool)
    std, drawn = np.zeros(n), []
    for i, key in enumerate(keys):
        x = images[i].astype(np.complex128)
        number = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, number])
        count = int(coils[int(rng.integers(len(coils)))])
        acceleration = float(accelerations[int(rng.integers(len(accelerations)))])
        kind = str(kinds[int(rng.integers(len(kinds)))])
        maps[i, :count] = birdcage(count, (height, width), rng)
        taken[i] = mask(kind, (height, width), acceleration, acs, rng)
        std[i] = strength(x) * 10 ** (-rng.uniform(*snr) / 20)
        parts = rng.standard_normal((2, count, height, width))
        measured = fft2c(maps[i, :count] * x) + std[i] * (parts[0] + 1j * parts[1])
        kspace[i, :count] = np.where(taken[i], measured, 0)
        drawn.append((acceleration, count, kind))
    rows = [np.array(v) for v in zip(*drawn, strict=True)]
    about = {"long_name": "standard deviation of the noise of k-space, per real and imaginary part"}
    return xr.Dataset(
        {
            "kspace": (("slice", "coil", "ky", "kx"), kspace),
            "mask": (("slice", "ky", "kx"), taken),
            "sens_maps": (("slice", "coil", "y", "x"), maps),
            "noise_std": ("slice", std, about),
            "image": (("slice", "y", "x"), images.astype(np.complex64)),
            "acceleration": ("slice", rows[0]),
            "coils": ("slice", rows[1]),
            "mask_kind": ("slice", rows[2]),
        },
        coords={
            "slice": np.array([str(k) for k in keys]),
            "subject": ("slice", np.array([str(k).rsplit("/", 1)[0] for k in keys])),
        },
        attrs={"source": "simulated by scigen", "seed": seed},
    )


def strength(image: np.ndarray) -> float:
    """Root mean square of |x| over the object, where it exceeds a twentieth of its maximum."""
    modulus = np.abs(image)
    return float(np.sqrt((modulus[modulus > OBJECT * modulus.max()] ** 2).mean()))


def phantom(size: int) -> np.ndarray:
    """The modified Shepp–Logan phantom (size, size), real, of values 0 … 1; for tests, nothing to learn from."""
    axis = grid(size)
    x, y = axis[None], -axis[:, None]
    out = np.zeros((size, size))
    for value, a, b, x0, y0, turn in ELLIPSES:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        across, along = (x - x0) * cosine + (y - y0) * sine, (y - y0) * cosine - (x - x0) * sine
        out[(across / a) ** 2 + (along / b) ** 2 <= 1] += value
    return out


def _check(
    images: np.ndarray,
    keys: Sequence[str],
    coils: Sequence[int],
    accelerations: Sequence[float],
    kinds: Sequence[str],
    snr: tuple[float, float],
    most: int,
) -> None:
    """See that scans can be simulated."""
    if images.ndim != 3 or len(images) != len(keys) or not len(keys):
        raise UserError(f"images {images.shape} and {len(keys)} keys: expected (slice, y, x) and a key for each slice.")
    if len(set(keys)) < len(keys):
        twice = next(k for k in keys if list(keys).count(k) > 1)
        raise UserError(f"slice {twice!r} is there more than once: give each slice its own name.")
    for key, image in zip(keys, images, strict=True):
        if not np.isfinite(image).all() or not image.any():
            what = "zero everywhere" if np.isfinite(image).all() else "NaN or infinite somewhere"
            raise UserError(f"The image of slice {key!r} is {what}: leave this slice out.")
    if not (len(coils) and len(accelerations) and len(kinds)):
        raise UserError("data.scan: coils, accelerations and kinds need one choice each at least.")
    if min(coils) < 1 or max(coils) > most:
        raise UserError(f"data.scan.coils={list(coils)}: expected numbers of coils from 1 to {most}.")
    if len(snr) != 2 or not -np.inf < snr[0] <= snr[1] < np.inf:
        raise UserError(f"data.scan.snr={list(snr)}: expected the lowest and the highest ratio [dB].")
