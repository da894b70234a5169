"""The tasks of the exact bench: a field, a rotated product, two modes, an inverse problem, a downscaling."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scigen.core.bench.task import Task
from scigen.core.oracle import RotatedProduct
from scigen.core.posterior import MeasuredGaussian, MeasuredProduct
from scigen.errors import UserError

F64 = torch.float64
SIDE = 8
"""Grid points along each axis of a field."""
SHAPES = (
    # weights, means, standard deviations of three components
    ((0.55, 0.35, 0.10), (-0.6, 0.4, 2.2), (0.30, 0.50, 0.80)),  # skewed
    ((0.45, 0.35, 0.20), (-1.0, 1.1, 0.9), (0.35, 0.30, 0.60)),  # bimodal
    ((0.60, 0.30, 0.10), (0.0, 0.0, 0.0), (0.50, 1.0, 2.2)),  # heavy tails
)
"""One-dimensional mixtures that coefficients take in turn, before they are standardised."""


def named(names: list[str]) -> list[Task]:
    """The tasks of these names.

    Raises:
        UserError: for a name that there is not, or none at all.
    """
    unknown = [n for n in names if n not in TASKS]
    if unknown or not names:
        raise UserError(f"tasks={names}: there is no task {unknown[:1] or 'at all'}; they are {', '.join(TASKS)}.")
    return [TASKS[n]() for n in names]


def gaussian() -> Task:
    """A Gaussian field on a periodic grid with a red spectrum."""
    stds = spectrum(SIDE).flatten().sqrt()
    law = RotatedProduct(hartley(SIDE), torch.ones_like(stds)[:, None], torch.zeros_like(stds)[:, None], stds[:, None])
    return _task("gaussian", f"Gaussian field, {SIDE} × {SIDE}, red spectrum", law, stds)


def rotated() -> Task:
    """Independent skewed, bimodal and heavy-tailed coefficients, rotated at random."""
    law = RotatedProduct(*mixtures(64, 0))
    return _task("rotated", "64 skewed, bimodal, heavy-tailed coefficients, rotated", law, law.moments()[1])


def modes() -> Task:
    """Two Gaussians at ±d in 16 dimensions, of 70 % and 30 %."""
    n, std = 16, 0.25
    rotation = torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=torch.Generator().manual_seed(1)))[0]
    weights = torch.tensor([0.7, 0.3], dtype=F64).repeat(n, 1)
    means = torch.zeros(n, 2, dtype=F64)
    means[0] = torch.tensor([-1.0, 1.0], dtype=F64)
    law = RotatedProduct(rotation, weights, means, torch.full((n, 2), std, dtype=F64))
    return _task("modes", "two Gaussians in 16 dimensions, 70 % and 30 %", law, law.moments()[1], split=rotation[:, 0])


def inverse() -> Task:
    """A rotated product of which every second coefficient is measured, with noise."""
    measured = torch.arange(64) % 2 == 0
    prior = RotatedProduct(*mixtures(64, 2))
    law = MeasuredProduct(prior.rotation, prior.weights, prior.means, prior.stds, measured, noise=0.3)
    return _task("inverse", "rotated product, every second coefficient measured", law, prior.moments()[1])


def downscaling() -> Task:
    """A Gaussian field given its means over blocks of 2 × 2."""
    basis, variance = hartley(SIDE), spectrum(SIDE).flatten()
    law = MeasuredGaussian((basis * variance) @ basis.mT, block_means(SIDE, 2), noise=0.1)
    about = f"Gaussian field, {SIDE} × {SIDE}, given noisy 2 × 2 block means"
    return _task("downscaling", about, law, variance.sqrt())


TASKS: dict[str, Callable[[], Task]] = {
    "gaussian": gaussian,
    "rotated": rotated,
    "modes": modes,
    "inverse": inverse,
    "downscaling": downscaling,
}
"""Tasks by name."""


def spectrum(side: int) -> Tensor:
    """Mode variances (1 + k²)^(−3/2), scaled to pixels of unit variance: (side, side) in FFT order."""
    k = torch.fft.fftfreq(side, 1 / side, dtype=F64)
    power = (1 + k[:, None] ** 2 + k**2) ** -1.5
    return power / power.mean()


def hartley(side: int) -> Tensor:
    """The orthonormal basis cas(2π(k·x)/side)/side of a periodic grid, cas = cos + sin: columns are modes, (n, n)."""
    k = torch.arange(side, dtype=F64)
    one = k[:, None] * k
    angle = 2 * math.pi / side * (one[:, None, :, None] + one[None, :, None, :])
    return ((angle.cos() + angle.sin()) / side).reshape(side**2, side**2)


def block_means(side: int, block: int) -> Tensor:
    """The matrix that takes a flattened field to its means over blocks: ((side/block)², side²)."""
    one = torch.kron(torch.eye(side // block, dtype=F64), torch.full((1, block), 1 / block, dtype=F64))
    return torch.kron(one, one)


def mixtures(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random rotation, and weights, means, stds of coefficients of the three SHAPES in turn.

    Their standard deviations lie between 0.5 and 2 (times one factor, for pixels of unit mean variance).
    """
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=generator))[0]
    w, m, s = (torch.tensor([SHAPES[i % 3][j] for i in range(n)], dtype=F64) for j in range(3))
    mean = (w * m).sum(1, keepdim=True)
    std = ((w * (s**2 + m**2)).sum(1, keepdim=True) - mean**2).sqrt()
    scale = 4 ** torch.linspace(-0.5, 0.5, n, dtype=F64)[:, None]
    scale = scale / scale.square().mean().sqrt() / std
    return rotation, w, (m - mean) * scale, s * scale


def _task(name: str, about: str, law: RotatedProduct, stds: Tensor, split: Tensor | None = None) -> Task:
    """A task whose coefficients have these prior standard deviations: σ_max is ten times the largest."""
    law.sigma_data = float(stds.square().mean().sqrt())
    return Task(name, about, law, 0.02, float(math.ceil(10 * float(stds.max()))), split)
