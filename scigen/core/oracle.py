"""Distributions whose denoiser, flow map and posterior are known in closed form, behind the Denoiser's interface.

They are the truth that samplers and methods are tested against, and exact teachers: `oracle(x, sigma, condition)` is
E[x₀ | x_σ], `flow_map` carries x_σ to x_s along the probability-flow ODE, `draw` samples x₀ (Karras et al. 2022 for
the ODE; every formula is stated where it stands).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, expand
from scigen.errors import UserError


class Oracle(nn.Module, ABC):
    """A known law of x₀ of shape (C, *S).

    Attributes:
        sigma_data: standard deviation of x₀, by which losses are scaled: 1 unless it is set.
    """

    sigma_data: float = 1.0

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x₀ | x_σ = x, condition]: x (B, C, *S), sigma (B,)."""

    @abstractmethod
    def flow_map(self, x: Tensor, sigma: Tensor, to: Tensor, condition: Condition | None = None) -> Tensor:
        """Exact solution at level `to` (B,) of the probability-flow ODE through x at level sigma (B,)."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws of x₀: (n, C, *S)."""


class Gaussian(Oracle):
    """N(μ, U Λ Uᵀ) with any orthonormal basis U, μ fixed or a function of the condition.

    D = μ + U Λ/(Λ + σ²) Uᵀ (x − μ); the flow map multiplies mode i by √((λ_i + s²)/(λ_i + σ²)).
    """

    variance: Tensor

    def __init__(
        self,
        mean: Tensor | Callable[[Condition | None], Tensor],
        variance: Tensor,
        to_modes: Callable[[Tensor], Tensor],
        from_modes: Callable[[Tensor], Tensor],
    ) -> None:
        """Set the law by its modes.

        Args:
            mean: μ (C, *S), or a function from the condition to means (B, C, *S).
            variance: λ of every mode, of the shape that `to_modes` gives a single sample.
            to_modes: Uᵀ, from (B, C, *S) to modes (B, …), orthonormal (unitary where modes are complex).
            from_modes: U, the inverse of `to_modes`.
        """
        super().__init__()
        self.mean = mean
        self.register_buffer("variance", variance)
        self.to_modes, self.from_modes = to_modes, from_modes

    @classmethod
    def dense(
        cls, mean: Tensor | Callable[[Condition | None], Tensor], covariance: Tensor, shape: tuple[int, ...]
    ) -> "Gaussian":
        """From a covariance matrix (n, n) of the flattened field of this shape (C, *S)."""
        values, vectors = torch.linalg.eigh(covariance)
        return cls(
            mean,
            values.clamp_min(0),
            lambda x: x.flatten(1) @ vectors.to(x),
            lambda m: (m @ vectors.to(m).mT).reshape(-1, *shape),
        )

    @classmethod
    def stationary(cls, spectrum: Tensor) -> "Gaussian":
        """Zero-mean field on a periodic grid, independent channels, from its mode variances (C, *S) in FFT order.

        The variance of a pixel of channel c is the mean of `spectrum[c]` over the modes.

        Raises:
            UserError: if the spectrum is negative or not symmetric, λ(k) = λ(−k), as a real field's is.
        """
        axes = tuple(range(1, spectrum.ndim))
        mirrored = spectrum.flip(axes).roll([1] * len(axes), axes)
        if (spectrum < 0).any() or not torch.allclose(spectrum, mirrored):
            raise UserError("A spectrum must be non-negative and the same at k and −k.")
        dims = tuple(range(-len(axes), 0))
        return cls(
            torch.zeros(spectrum.shape, dtype=spectrum.dtype),
            spectrum,
            lambda x: torch.fft.fftn(x, dim=dims, norm="ortho"),
            lambda m: torch.fft.ifftn(m, dim=dims, norm="ortho").real,
        )

    def _mean(self, x: Tensor, condition: Condition | None) -> Tensor:
        return (self.mean if isinstance(self.mean, Tensor) else self.mean(condition)).to(x)

    def _scale(self, x: Tensor, gain: Callable[[Tensor], Tensor], condition: Condition | None) -> Tensor:
        mean = self._mean(x, condition)
        return mean + self.from_modes(gain(self.variance.to(x.device, x.dtype)) * self.to_modes(x - mean))

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x₀ | x_σ]."""
        s2 = _square(sigma, x, self.variance)
        return self._scale(x, lambda v: v / (v + s2), condition)

    def flow_map(self, x: Tensor, sigma: Tensor, to: Tensor, condition: Condition | None = None) -> Tensor:
        """x at level `to`."""
        s2, t2 = _square(sigma, x, self.variance), _square(to, x, self.variance)
        return self._scale(x, lambda v: ((v + t2) / (v + s2)).sqrt(), condition)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws: white noise, scaled by √λ in the modes."""
        shape = self.from_modes(torch.zeros_like(self.variance)[None]).shape[1:]
        white = torch.randn(n, *shape, generator=generator, dtype=self.variance.dtype, device=self.variance.device)
        mean = self._mean(white, None)
        return mean + self.from_modes(self.variance.sqrt() * self.to_modes(white))


class Mixture(Oracle):
    """Σ_k w_k N(μ_k, s_k² I): several isotropic Gaussians in any shape."""

    weights: Tensor
    means: Tensor
    stds: Tensor

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        """Set weights (K,), means (K, *shape), stds (K,).

        Raises:
            UserError: unless weights are positive with sum 1 and stds are positive.
        """
        super().__init__()
        if (weights <= 0).any() or abs(float(weights.sum()) - 1) > 1e-6 or (stds <= 0).any():
            raise UserError("A mixture needs positive weights with sum 1 and positive standard deviations.")
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("stds", stds)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """Responsibilities at variance s_k² + σ², times each component's own denoiser."""
        delta = x.flatten(1)[:, None] - self.means.flatten(1).to(x)  # (B, K, n)
        s2 = torch.as_tensor(sigma).to(x).reshape(-1, 1) ** 2
        v = self.stds.to(x) ** 2  # (K,)
        log_r = (
            self.weights.to(x).log() - 0.5 * delta.square().sum(-1) / (v + s2) - 0.5 * delta.shape[-1] * (v + s2).log()
        )
        r = log_r.softmax(1)[..., None]
        each = self.means.flatten(1).to(x) + (v / (v + s2))[..., None] * delta
        return (r * each).sum(1).reshape(x.shape)

    def flow_map(
        self, x: Tensor, sigma: Tensor, to: Tensor, condition: Condition | None = None, steps: int = 2000
    ) -> Tensor:
        """By fine Heun steps in ln σ: no closed form above one dimension (use RotatedProduct for one)."""
        a, b = (torch.as_tensor(s).to(x).expand(x.shape[0]) for s in (sigma, to))
        grid = torch.linspace(0, 1, steps + 1).to(x)
        levels = a.log()[:, None] * (1 - grid) + b.clamp_min(1e-4 * float(self.stds.min())).log()[:, None] * grid
        levels = levels.exp()

        def rate(x: Tensor, s: Tensor) -> Tensor:  # dx / d ln σ = x − D
            return x - self(x, s)

        for i in range(steps):
            h = expand((levels[:, i + 1] / levels[:, i]).log(), x)
            first = rate(x, levels[:, i])
            x = x + 0.5 * h * (first + rate(x + h * first, levels[:, i + 1]))
        return x

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        shape, like = self.means.shape[1:], self.means
        noise = torch.randn(n, *shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.means[k] + expand(self.stds[k], noise) * noise


class RotatedProduct(Oracle):
    """x₀ = Q u with Q orthonormal and independent one-dimensional Gaussian mixtures u_i: exact and not Gaussian.

    White noise is isotropic, so the coefficients evolve on their own, and in one dimension the probability-flow ODE is
    monotone and keeps the marginals: its flow map is the quantile map u_s = F_s⁻¹(F_σ(u_σ)).
    """

    rotation: Tensor
    weights: Tensor
    means: Tensor
    stds: Tensor

    def __init__(self, rotation: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        """Set the law.

        Args:
            rotation: Q, (n, n) orthonormal; samples have shape (n,).
            weights: (n, K) of each coefficient's mixture, rows with sum 1.
            means: (n, K).
            stds: (n, K).

        Raises:
            UserError: if Q is not orthonormal.
        """
        super().__init__()
        eye = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
        if not torch.allclose(rotation @ rotation.mT, eye, atol=1e-6):
            raise UserError("RotatedProduct needs an orthonormal rotation.")
        for name, value in dict(rotation=rotation, weights=weights, means=means, stds=stds).items():
            self.register_buffer(name, value)

    def mixture(self, condition: Condition | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, means and standard deviations of the coefficients' mixtures.

        (n, K), or (B, n, K) in a law that depends on the condition (`scigen.core.posterior`).
        """
        return self.weights, self.means, self.stds

    def moments(self, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every coefficient: (n,), or (B, n) where they depend on the condition."""
        w, m, s = self.mixture(condition)
        mean = (w * m).sum(-1)
        return mean, ((w * (s**2 + m**2)).sum(-1) - mean**2).sqrt()

    def distribution(self, u: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """F_σ(u) of every coefficient: u (B, n) to probabilities (B, n)."""
        w, m, s = (v.to(u) for v in self.mixture(condition))
        return _below(u, w, m, _spread(s, sigma))

    def quantile(self, p: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """F_σ⁻¹(p) by bisection to the last bits: p (B, n) to (B, n)."""
        w, m, s = (v.to(p) for v in self.mixture(condition))
        return _bisect(p, w, m, _spread(s, sigma))

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x₀ | x_σ], coefficient by coefficient."""
        u = x @ self.rotation.to(x)
        w, m, s = (v.to(u) for v in self.mixture(condition))
        v = _spread(s, sigma)
        z = (u[..., None] - m) / v
        r = (w.log() - 0.5 * z**2 - v.log()).softmax(-1)
        return (r * (m + (s**2 / v) * z)).sum(-1) @ self.rotation.to(x).mT

    def flow_map(self, x: Tensor, sigma: Tensor, to: Tensor, condition: Condition | None = None) -> Tensor:
        """Q F_s⁻¹(F_σ(Qᵀ x)); what lies in the upper half is mirrored, so that both tails stay exact."""
        u = x @ self.rotation.to(x)
        w, m, s = (v.to(u) for v in self.mixture(condition))
        sign = torch.where(_below(u, w, m, _spread(s, sigma)) > 0.5, -1.0, 1.0).to(u)
        m = sign[..., None] * m
        p = _below(sign * u, w, m, _spread(s, sigma))
        return (sign * _bisect(p, w, m, _spread(s, to))) @ self.rotation.to(x).mT

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws: (n, coefficients)."""
        d = len(self.rotation)
        k = torch.stack([torch.multinomial(w, n, replacement=True, generator=generator) for w in self.weights], 1)
        rows = torch.arange(d, device=k.device).expand(n, d)
        noise = torch.randn(n, d, generator=generator, dtype=self.means.dtype, device=k.device)
        return (self.means[rows, k] + self.stds[rows, k] * noise) @ self.rotation.mT


def _spread(stds: Tensor, sigma: Tensor) -> Tensor:
    """√(s² + σ²) of every component: stds (…, n, K), sigma (B,) or a scalar."""
    return (stds**2 + torch.as_tensor(sigma).to(stds).reshape(-1, 1, 1) ** 2).sqrt()


def _below(u: Tensor, weights: Tensor, means: Tensor, spread: Tensor) -> Tensor:
    """Probability below u (B, n); erfc keeps its digits in the lower tail, ndtr does not."""
    return (0.5 * weights * torch.erfc((means - u[..., None]) / (2**0.5 * spread))).sum(-1)


def _bisect(p: Tensor, weights: Tensor, means: Tensor, spread: Tensor) -> Tensor:
    """Where the probability below is p (B, n)."""
    low, high = (means - 40 * spread).amin(-1).expand_as(p), (means + 40 * spread).amax(-1).expand_as(p)
    for _ in range(80):
        mid = 0.5 * (low + high)
        above = _below(mid, weights, means, spread) > p
        low, high = torch.where(above, low, mid), torch.where(above, mid, high)
    return 0.5 * (low + high)


def _square(sigma: Tensor, x: Tensor, variance: Tensor) -> Tensor:
    """σ² of shape (B, 1, …) against the modes."""
    s = torch.as_tensor(sigma, device=x.device).to(x.dtype).expand(x.shape[0])
    return s.reshape(-1, *[1] * variance.ndim) ** 2
