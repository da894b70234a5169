"""What is measured of a volume: known voxels, and the mean that known fractions leave for the others.

A x has x itself at known voxels and, where the volume fractions are told, the mean of x over the others everywhere
else, 0 where they are not: an orthogonal projection, A = Aᵀ = A², so it is its own adjoint and right inverse. Phases
are corners of a simplex, so that the mean of x is a linear function of the volume fractions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from scigen.core.operator import Operator
from scigen.errors import UserError

UNKNOWN = 255
"""Label of a voxel that is not known."""


class Known(Operator):
    """A: known voxels, and the mean of the others where fractions are told."""

    def __init__(
        self,
        corners: Tensor,
        base: Tensor | None = None,
        mask: Tensor | None = None,
        told: Tensor | None = None,
    ) -> None:
        """Set what is known.

        Args:
            corners: of the phases, (P, P − 1).
            base: (B, P − 1, 1, 1, 1), what network samples are taken from; None: 0.
            mask: (B, 1, *S), 1 at known voxels; None knows none.
            told: (B,), whether the mean is known; None: of every sample.
        """
        super().__init__()
        self.corners, self.base, self.mask, self.told = corners, base, mask, told

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        mean = self._mean(x).expand_as(x) * self._told(x)
        return mean if self.mask is None else x * self.mask.to(x) + mean * self._free(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: A is symmetric."""
        return self(y)

    def inverse(self, y: Tensor) -> Tensor:
        """The same: A A = A, and y is in its range."""
        return self(y)

    def onto(self, denoised: Tensor, y: Tensor) -> Tensor:
        """Known voxels as they are, and the mean moved where voxels are undecided: at interfaces.

        A denoiser's output at a voxel is the mean Σ p_p v_p of phases with the probabilities p; their covariance is
        C = Σ p_p v_p v_pᵀ − (Σ p_p v_p)(Σ p_p v_p)ᵀ, which is 0 where the phase is certain. The least unlikely change
        of independent voxels that makes up for a mean short by r is C ⟨C⟩⁻¹ r (Kalman's gain). The same shift of every
        voxel, which is A⁺ r, would leave the phases as they are and every one of them a little off its corner.
        """
        free = self._free(denoised)
        short = self._mean((y - self(denoised)) * free) * self._told(denoised)
        corners = self.corners.to(denoised)
        base = 0.0 if self.base is None else self.base.to(denoised)
        phases = len(corners)
        share = (1 + (phases - 1) * _along(corners, denoised + base)).clamp_min(0)
        share = share / share.sum(1, keepdim=True)
        centre = _along(corners.T, share)

        def spread(way: Tensor) -> Tensor:
            """C · way at every voxel: (B, P − 1, 1, 1, 1) to (B, P − 1, *S)."""
            along = share * _along(corners, way)
            return _along(corners.T, along) - centre * along.sum(1, keepdim=True)

        unit = torch.eye(phases - 1).to(short)
        ways = unit[:, None, :, *[None] * (short.ndim - 2)].expand(-1, *short.shape)
        matrix = torch.stack([self._mean(spread(way)).flatten(1) for way in ways], 2) + CERTAIN * unit
        gain = solve(matrix, short.flatten(1)).reshape(short.shape)
        moved = denoised + (spread(gain) + CERTAIN * gain) * free
        return moved if self.mask is None else moved * free + y * self.mask.to(y)

    def bind(self, condition: Mapping[str, Tensor]) -> "Known":
        """With condition["base"], ["told"] (B,) and, if there is one, ["known"] (B, 1, *S)."""
        return Known(self.corners, condition["base"], condition.get("known"), condition["told"])

    def _free(self, x: Tensor) -> Tensor:
        """1 at voxels that are not known."""
        return x.new_ones(()) if self.mask is None else 1 - self.mask.to(x)

    def _mean(self, x: Tensor) -> Tensor:
        """Over the voxels that are not known, (B, C, 1, …)."""
        axes = tuple(range(2, x.ndim))
        if self.mask is None:
            return x.mean(axes, keepdim=True)
        free = self._free(x)
        return (x * free).sum(axes, keepdim=True) / free.sum(axes, keepdim=True).clamp_min(1)

    def _told(self, x: Tensor) -> Tensor:
        """1 for samples whose mean is known, (B, 1, …)."""
        return x.new_ones(()) if self.told is None else self.told.to(x).reshape(-1, *[1] * (x.ndim - 1))


CERTAIN = 1e-3
"""Variance that is left to a voxel of whose phase a denoiser is certain, so that any mean can be met."""


def _along(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (K, C) times the channels of x (B, C, *S): (B, K, *S)."""
    return torch.einsum("kc,bc...->bk...", matrix, x)


def solve(matrix: Tensor, y: Tensor) -> Tensor:
    """x with M x = y, for small positive definite M (B, N, N) and y (B, N), by elimination: traced by every format."""
    rows = torch.cat([matrix, y[:, :, None]], 2)
    unit = torch.eye(y.shape[1]).to(y)
    for k in range(y.shape[1]):
        pivot = rows[:, k : k + 1] / rows[:, k : k + 1, k : k + 1]
        rows = rows - (rows[:, :, k : k + 1] - unit[:, k : k + 1]) * pivot
    return rows[:, :, -1]


def checked_part(values: np.ndarray, shape: Sequence[int], phases: Sequence[str]) -> np.ndarray:
    """Labels of known voxels (specimens, Z, Y, X) uint8, `UNKNOWN` elsewhere.

    Raises:
        UserError: for another shape, or a label that is none.
    """
    if values.shape != tuple(shape):
        raise UserError(f"known has the shape {values.shape}, expected {tuple(shape)}; {UNKNOWN} where unknown.")
    labels = np.where(np.isfinite(values), values, UNKNOWN)
    bad = np.setdiff1d(np.unique(labels), [*range(len(phases)), UNKNOWN])
    if bad.size:
        raise UserError(
            f"known has the label {bad[0]:g}: expected 0 to {len(phases) - 1} ({', '.join(phases)}), or {UNKNOWN} where"
            " unknown."
        )
    return labels.astype(np.uint8)


def random_part(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A volume of which only a part is known: some planes across one axis, or a box.

    Args:
        labels: (Z, Y, X) uint8.
        rng: draws the part.

    Returns:
        Labels, `UNKNOWN` elsewhere.
    """
    keep = np.zeros(labels.shape, bool)
    axis = int(rng.integers(3))
    n = labels.shape[axis]
    if rng.random() < 0.5:
        planes = rng.choice(n, size=int(rng.integers(1, max(2, n // 8) + 1)), replace=False)
        keep[tuple(planes if a == axis else slice(None) for a in range(3))] = True
    else:
        sides = [int(rng.integers(m // 4, m // 2 + 1)) for m in labels.shape]
        lows = [int(rng.integers(0, m - s + 1)) for m, s in zip(labels.shape, sides, strict=True)]
        keep[tuple(slice(low, low + s) for low, s in zip(lows, sides, strict=True))] = True
    return np.where(keep, labels, UNKNOWN).astype(np.uint8)
