"""Which samples of k-space are taken: random and equispaced lines, and variable densities in two dimensions.

Lines are columns, along ky; random and equispaced ones follow fastMRI (Zbontar et al. 2018, arXiv:1811.08839).
"""

from collections.abc import Callable

import numpy as np

from scigen.errors import UserError

LEAST = 4
"""Lines that a calibration region has at least."""

WIDTH = 0.5
"""Standard deviation of the Gaussian density, over half the extent of k-space."""

SLOPE = 2.0
"""By how much the distance of a Poisson disc grows from the centre to the edge of k-space, over that in the centre."""


def acs_share(acceleration: float) -> float:
    """Share of all samples in the calibration region: 0.08 at 4, 0.04 at 8, about a third of those taken."""
    return 0.32 / acceleration


def mask(
    kind: str,
    shape: tuple[int, int],
    acceleration: float,
    acs: float | None,
    rng: np.random.Generator,
    extent: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draw a mask with a fully sampled calibration region around the centre of k-space.

    The share of samples taken is 1 / acceleration: in the mean over draws for lines, to the sample for densities.

    Args:
        kind: `random` (lines with equal probability), `equispaced` (lines at one distance from a random first one),
            `gaussian` (points, density normal in the distance from the centre), `poisson` (points, no two nearer than a
            distance that grows from the centre).
        shape: ky, kx.
        acceleration: all samples over those taken, 1 or more.
        acs: share of all samples in the calibration region, columns or a square; None for `acs_share`. It has at least
            4 lines; 0 means that there is none.
        rng: random numbers.
        extent: first column that is acquired and the one after the last; the others are not sampled and do not count.

    Returns:
        (Y, X) bool.

    Raises:
        UserError: for an unknown kind, an acceleration below 1 or too high for the calibration region, an extent
            without the centre, an empty mask.
    """
    if kind not in KINDS:
        raise UserError(f"mask kind {kind!r} is not known: choose from {', '.join(KINDS)}.")
    if not 1 <= acceleration < np.inf:
        raise UserError(f"acceleration={acceleration:g}: expected 1 (all samples) or more.")
    low, high = _extent(extent, shape[1])
    share = acs_share(acceleration) if acs is None else acs
    if not 0 <= share <= 1:
        raise UserError(f"acs={share:g}: expected a share of the samples from 0 to 1, such as {acs_share(4):g} at 4.")
    centre = np.zeros(shape, bool)
    if share:
        flat = kind in ("gaussian", "poisson")
        rows = max(LEAST, round(share**0.5 * shape[0])) if flat else shape[0]
        columns = max(LEAST, round((share**0.5 if flat else share) * (high - low)))
        centre[_around(shape[0], rows), _around(shape[1], columns)] = True
    centre[:, :low] = centre[:, high:] = False
    region = np.zeros(shape, bool)
    region[:, low:high] = True
    wanted = region.sum() / acceleration
    if centre.sum() > wanted + 1e-9:
        raise UserError(
            f"acceleration={acceleration:g}: of {shape[0]}×{high - low} samples {wanted:.4g} would be taken, fewer "
            f"than the {centre.sum()} of the calibration region. Choose at most {region.sum() / centre.sum():.3g}, "
            "or a smaller acs."
        )
    out = centre | KINDS[kind](region, centre, wanted - centre.sum(), rng)
    if not out.any():
        raise UserError(
            f"acceleration={acceleration:g}: the mask of {shape[0]}×{high - low} samples is empty. Lower the "
            "acceleration, or give acs above 0."
        )
    return out


def effective_acceleration(mask: np.ndarray, extent: tuple[int, int] | None = None) -> float:
    """Samples that could be taken over those taken.

    Args:
        mask: (Y, X) bool.
        extent: columns that are acquired at all, as of `mask`; the others do not count.

    Raises:
        UserError: if the mask is empty.
    """
    low, high = _extent(extent, mask.shape[-1])
    inside = np.asarray(mask, bool)[..., low:high]
    if not inside.any():
        raise UserError("The mask is empty: nothing is sampled. Give the mask of this k-space.")
    return float(inside.size / inside.sum())


def _extent(extent: tuple[int, int] | None, columns: int) -> tuple[int, int]:
    """The extent, which has the centre in it."""
    low, high = (0, columns) if extent is None else (int(extent[0]), int(extent[1]))
    if not 0 <= low <= columns // 2 < high <= columns:
        raise UserError(
            f"extent={[low, high]}: expected 0 <= low < high <= {columns} around the central column {columns // 2}."
        )
    return low, high


def _around(size: int, count: int) -> slice:
    """That many points around the centre, size // 2."""
    start = max(0, size // 2 - count // 2)
    return slice(start, min(size, start + count))


def _lines(region: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns that are acquired, and those of them outside the calibration region."""
    acquired = region[0]
    return np.flatnonzero(acquired), np.flatnonzero(acquired & ~centre[centre.shape[0] // 2])


def _random(region: np.ndarray, centre: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Each line outside the calibration region with probability (N/R − N_low) / (N − N_low)."""
    _, outside = _lines(region, centre)
    out = np.zeros_like(region)
    lines = more / region.shape[0]
    out[:, outside[rng.random(len(outside)) < lines / max(len(outside), 1)]] = True
    return out


def _equispaced(region: np.ndarray, centre: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Lines at the distance that gives N/R − N_low outside the calibration region, on average over the first line."""
    columns, outside = _lines(region, centre)
    lines = more / region.shape[0]
    out = np.zeros_like(region)
    if lines > 1e-9:
        step = len(outside) / lines
        at = np.arange(rng.uniform(0, step), len(columns), step)
        out[:, columns[0] + at.astype(int)] = True
    return out


def _distance(shape: tuple[int, ...]) -> np.ndarray:
    """From the centre of k-space, 1 at the ends of its axes."""
    y, x = (np.abs(np.arange(n) - n // 2) / max(n // 2, 1) for n in shape)
    return np.hypot(y[:, None], x[None])


def _gaussian(region: np.ndarray, centre: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Points without replacement, of normal density."""
    chance = -0.5 * (_distance(region.shape) / WIDTH) ** 2 + rng.gumbel(size=region.shape)
    chance[centre | ~region] = -np.inf
    out = np.zeros(region.size, bool)
    out[np.argsort(-chance, axis=None)[: round(more)]] = True
    return out.reshape(region.shape)


def _poisson(region: np.ndarray, centre: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Points in random order, each refused that lies in the disc of an earlier one.

    The discs are as large as leaves enough points; of what is too many, a random part is dropped.
    """
    count = round(more)
    out = np.zeros(region.shape, bool)
    if not count:
        return out
    free = region & ~centre
    order = rng.permutation(np.flatnonzero(free))
    radius = 1 + SLOPE * _distance(region.shape)
    low, high = 0.0, 2 * float(np.sqrt(free.sum() / count))
    found = order
    for _ in range(9):
        middle = (low + high) / 2
        points = _thrown(order, middle * radius)
        if len(points) >= count:
            low, found = middle, points
        else:
            high = middle
    out.flat[rng.permutation(found)[:count]] = True
    return out


def _thrown(order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Those of the points, in their order, that are in no disc of an earlier one."""
    squares = np.ceil(radius**2).astype(int)
    reach = int(np.ceil(radius.max()))
    offsets = np.arange(-reach, reach + 1) ** 2
    distance = offsets[:, None] + offsets[None]
    discs: dict[int, tuple[int, np.ndarray]] = {}
    blocked = np.zeros((radius.shape[0] + 2 * reach, radius.shape[1] + 2 * reach), bool)
    ys, xs = np.unravel_index(order, radius.shape)
    found = []
    for i, (y, x, square) in enumerate(zip(ys.tolist(), xs.tolist(), squares[ys, xs].tolist(), strict=True)):
        if blocked[y + reach, x + reach]:
            continue
        found.append(i)
        if square not in discs:
            own = min(reach, int(np.ceil(np.sqrt(square))))
            inner = slice(reach - own, reach + own + 1)
            discs[square] = own, distance[inner, inner] < square
        own, disc = discs[square]
        blocked[y + reach - own : y + reach + own + 1, x + reach - own : x + reach + own + 1] |= disc
    return order[found]


Rule = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]

KINDS: dict[str, Rule] = {
    "random": _random, "equispaced": _equispaced, "gaussian": _gaussian, "poisson": _poisson
}  # fmt: skip
"""Ways to choose samples besides the calibration region, by their names."""
