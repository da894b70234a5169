"""Noise by address: a member's noise is a function of (seed, sample, member, draw, channel, position) alone.

Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405) turns an address into 128 random bits, and Box–Muller
turns those into one normal number. Nothing is drawn from a stream, so batches, order, workers and restarts cannot
matter, and a tile of a field is the same numbers as the field's own part.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: Sequence[np.ndarray], key: tuple[int, int]) -> list[np.ndarray]:
    """Ten rounds of Philox4x32.

    Args:
        counter: four words (uint64 arrays holding 32 bits) that broadcast against each other.
        key: two words of 32 bits.

    Returns:
        Four words of 32 random bits, as uint64 arrays.
    """
    a, b, c, d = np.broadcast_arrays(*(np.asarray(w, dtype=np.uint64) for w in counter))
    for r in range(10):
        k0, k1 = (np.uint64((k + r * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL, strict=True))
        p, q = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (q >> _HALF) ^ b ^ k0, q & _LOW, (p >> _HALF) ^ d ^ k1, p & _LOW
    return [a, b, c, d]


def sample_key(seed: int, sample: str) -> tuple[int, int]:
    """Two 32-bit words from the seed and the sample's coordinate (BLAKE2b, the same on every machine)."""
    digest = hashlib.blake2b(f"{int(seed)}|{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def normal(
    seed: int, sample: str, member: int, shape: Sequence[int], *, draw: int = 0, origin: Sequence[int] | None = None
) -> np.ndarray:
    """Unit normal noise of one member of one sample.

    Args:
        seed: the ensemble's seed.
        sample: the sample's coordinate as text, such as its time in ISO format.
        member: member number, from 0.
        shape: (C, *S) with one to three space dimensions.
        draw: which noise of the member: 0 starts the sampler, 1, 2, … are re-noisings.
        origin: position of the first cell in the whole field, for a tile; zeros by default.

    Returns:
        (C, *S) float32.
    """
    channels, *space = shape
    origin = origin or [0] * len(space)
    position = np.zeros((1, *[1] * len(space)), dtype=np.uint64)
    for axis, (first, n) in enumerate(zip(origin, space, strict=True)):
        index = (np.arange(first, first + n) % (1 << 21)).astype(np.uint64)
        position = (position << np.uint64(21)) | index.reshape(-1, *[1] * (len(space) - 1 - axis))
    channel = np.arange(channels, dtype=np.uint64).reshape(-1, *[1] * len(space))
    last = (np.uint64(draw) << np.uint64(16)) | channel
    counter = [position & _LOW, position >> _HALF, np.asarray(member, dtype=np.uint64), last]
    words = philox(counter, sample_key(seed, sample))
    u, v = ((((hi << _HALF) | lo) >> np.uint64(11)).astype(np.float64) for hi, lo in (words[:2], words[2:]))
    radius = np.sqrt(-2.0 * np.log((u + 0.5) * 2.0**-53))
    return (radius * np.cos(2 * np.pi * 2.0**-53 * v)).astype(np.float32)
