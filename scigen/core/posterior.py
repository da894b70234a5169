"""Exact posteriors of linear inverse problems y = A x + n behind the Denoiser's interface, conditioned on y.

Both are rotated products for each y, so that denoiser, flow map and quantiles stay exact; y comes as
condition["scalars"] (B, K).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scigen.core.denoise import Condition
from scigen.core.oracle import RotatedProduct
from scigen.errors import UserError


class Posterior(RotatedProduct, ABC):
    """Law of x₀ given y. `draw` draws from the prior; `measure` then gives a y for each draw."""

    noise: float

    @abstractmethod
    def forwards(self, x: Tensor) -> Tensor:
        """A x: (B, n) to (B, K)."""

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The condition y = A x + n of every x (B, n), n ~ N(0, noise²)."""
        y = self.forwards(x)
        white = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
        return {"scalars": y + self.noise * white}

    def _measured(self, condition: Condition | None) -> Tensor:
        """y in the law's own precision.

        Raises:
            UserError: if there is none.
        """
        if not condition or "scalars" not in condition:
            raise UserError('This law is conditioned on measurements: give condition={"scalars": y (B, K)}.')
        return condition["scalars"].to(self.rotation)


class MeasuredProduct(Posterior):
    """A rotated product of which some coefficients are measured: y_i = u_i + n_i, u = Qᵀx.

    The posterior of a measured coefficient is a mixture again, component k with
    w_k ∝ w_k N(y; μ_k, s_k² + r²), μ_k + g_k (y − μ_k) and s_k √(1 − g_k), g_k = s_k²/(s_k² + r²); the others keep
    their law.
    """

    measured: Tensor

    def __init__(
        self, rotation: Tensor, weights: Tensor, means: Tensor, stds: Tensor, measured: Tensor, noise: float
    ) -> None:
        """Set prior and measurement.

        Args:
            rotation: Q, (n, n).
            weights: of the prior's mixtures, (n, components).
            means: likewise.
            stds: likewise.
            measured: which coefficients are, (n,) of booleans.
            noise: r, standard deviation of the measurement's noise.

        Raises:
            UserError: unless noise is positive and something is measured.
        """
        super().__init__(rotation, weights, means, stds)
        if noise <= 0 or measured.dtype != torch.bool or not measured.any():
            raise UserError(f"A measurement needs noise={noise} above 0 and at least one measured coefficient.")
        self.register_buffer("measured", measured)
        self.noise = float(noise)

    def forwards(self, x: Tensor) -> Tensor:
        """The measured coefficients of Qᵀx."""
        return (x @ self.rotation.to(x))[:, self.measured]

    def mixture(self, condition: Condition | None) -> tuple[Tensor, Tensor, Tensor]:
        """The posterior's mixtures, (B, n, components)."""
        y = self._measured(condition)
        seen = self.measured
        prior_w, prior_m, prior_s = self.weights[seen], self.means[seen], self.stds[seen]
        total = prior_s**2 + self.noise**2
        miss = y[..., None] - prior_m
        gain = prior_s**2 / total
        w, m, s = (v.repeat(len(y), 1, 1) for v in (self.weights, self.means, self.stds))
        w[:, seen] = (prior_w.log() - 0.5 * miss**2 / total - 0.5 * total.log()).softmax(-1)
        m[:, seen] = prior_m + gain * miss
        s[:, seen] = prior_s * (1 - gain).sqrt()
        return w, m, s


class MeasuredGaussian(Posterior):
    """N(0, Σ) given y = A x + n: mean Σ Aᵀ S⁻¹ y, covariance Σ − Σ Aᵀ S⁻¹ A Σ, S = A Σ Aᵀ + r² I.

    The covariance does not depend on y, so its eigenvectors are the rotation.
    """

    root: Tensor
    matrix: Tensor
    gain: Tensor

    def __init__(self, covariance: Tensor, matrix: Tensor, noise: float) -> None:
        """Set prior and measurement.

        Args:
            covariance: Σ, (n, n).
            matrix: A, (K, n).
            noise: r, standard deviation of the measurement's noise.

        Raises:
            UserError: unless noise is positive.
        """
        if noise <= 0:
            raise UserError(f"A measurement needs noise={noise} above 0.")
        across = covariance @ matrix.mT
        total = matrix @ across + noise**2 * torch.eye(len(matrix), dtype=matrix.dtype)
        gain = torch.linalg.solve(total, across.mT).mT
        values, vectors = torch.linalg.eigh(covariance - gain @ across.mT)
        super().__init__(
            vectors,
            torch.ones_like(values)[:, None],
            torch.zeros_like(values)[:, None],
            values.clamp_min(0).sqrt()[:, None],
        )
        prior, basis = torch.linalg.eigh(covariance)
        self.noise = float(noise)
        self.register_buffer("root", basis * prior.clamp_min(0).sqrt())
        self.register_buffer("matrix", matrix)
        self.register_buffer("gain", gain)

    def forwards(self, x: Tensor) -> Tensor:
        """A x."""
        return x @ self.matrix.to(x).mT

    def mixture(self, condition: Condition | None) -> tuple[Tensor, Tensor, Tensor]:
        """One component each: weights and stds (n, 1), means (B, n, 1)."""
        mean = self._measured(condition) @ self.gain.mT @ self.rotation
        return self.weights, mean[..., None], self.stds

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws from the prior: (n, coefficients)."""
        white = torch.randn(n, len(self.root), generator=generator, dtype=self.root.dtype, device=self.root.device)
        return white @ self.root.mT
