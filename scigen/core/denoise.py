"""The denoiser D(x; σ, c) ≈ E[x₀ | x_σ = x, c]: a preconditioned network, and what follows from it.

D(x; σ) = c_skip(σ) x + c_out(σ) F(c_in(σ) x, c_noise(σ))            Karras et al. 2022, arXiv:2206.00364, table 1
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scigen.core.networks import Condition
from scigen.errors import UserError

__all__ = [
    "Condition",
    "Denoiser",
    "DenoiserLike",
    "DenoiserModule",
    "FlowMap",
    "expand",
    "loss_weight",
    "perturbed",
    "preconditioning",
    "predictions",
    "score",
    "slope",
    "squared_error",
    "v_prediction",
    "velocity",
    "weighted_error",
]

DenoiserLike = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""Whatever maps (x (B, C, *S), sigma (B,), condition) to E[x₀ | x_σ]: a Denoiser, an oracle, a guided denoiser."""


def expand(v: Tensor, like: Tensor) -> Tensor:
    """Append singleton dims to v (B,) until it broadcasts against `like` (B, …), in its dtype and on its device."""
    return v.to(like).reshape(-1, *[1] * (like.ndim - 1))


def preconditioning(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four EDM coefficients (c_skip, c_out, c_in, c_noise) at σ, each of σ's shape.

    They give network inputs and targets of unit variance for data of standard deviation σ_data. At σ = 0 they are
    (1, 0, 1/σ_data, finite): D(x; 0) = x.
    """
    total = (sigma**2 + sigma_data**2).sqrt()
    c_noise = 0.25 * sigma.clamp_min(torch.finfo(sigma.dtype).tiny).log()
    return sigma_data**2 / total**2, sigma * sigma_data / total, 1 / total, c_noise


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ) = (σ² + σ_data²) / (σ σ_data)² = 1 / c_out²: makes λ‖D − x₀‖² a unit-weight loss on the network output."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class DenoiserModule(nn.Module):
    """A denoiser with weights: what methods train and bundles hold.

    Attributes:
        sigma_data: standard deviation of the (normalised) data around its unconditional mean; losses are scaled by it.
    """

    sigma_data: float

    def predictions(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> list[tuple[float, Tensor]]:
        """What losses compare with a target, each with its weight: the output alone, here."""
        return [(1.0, self(x, sigma, condition))]

    def perturbed(self, condition: Condition) -> Condition:
        """With noise of its own on every row's measurement, where measurements have noise."""
        return condition

    def statistics(self, x: Tensor, condition: Condition | None = None) -> Tensor | None:
        """Numbers (B, K) of samples (B, C, *S), smooth in them, that must be right as such; None: there are none."""
        return None


def squared_error(
    denoiser: DenoiserLike, x: Tensor, sigma: Tensor, condition: Condition | None, target: Tensor
) -> Tensor:
    """Mean squared error of each sample, (B,), of all that a denoiser predicts: x, target (B, C, *S), sigma (B,)."""
    return weighted_error(predictions(denoiser, x, sigma, condition), target)


def predictions(
    denoiser: DenoiserLike, x: Tensor, sigma: Tensor, condition: Condition | None
) -> list[tuple[float, Tensor]]:
    """What a denoiser predicts (`DenoiserModule.predictions`), its output first: (weight, (B, C, *S))."""
    if isinstance(denoiser, DenoiserModule):
        return denoiser.predictions(x, sigma, condition)
    return [(1.0, denoiser(x, sigma, condition))]


def perturbed(denoiser: DenoiserLike, condition: Condition) -> Condition:
    """What every row of a student's own samples is made from, in training as in sampling: see `Codec.perturbed`."""
    return denoiser.perturbed(condition) if isinstance(denoiser, DenoiserModule) else condition


def weighted_error(predicted: Sequence[tuple[float, Tensor]], target: Tensor) -> Tensor:
    """Sum of the weighted mean squared errors of each sample, (B,): predictions and target (B, C, *S)."""
    return sum((w * (d - target).square().flatten(1).mean(1) for w, d in predicted), target.new_zeros(len(target)))


class Denoiser(DenoiserModule):
    """EDM preconditioning around a network."""

    def __init__(self, network: nn.Module, sigma_data: float = 1.0) -> None:
        """Wrap `network(x, c_noise, condition)`.

        Args:
            network: F; maps (B, C, *S), (B,), condition to (B, C, *S).
            sigma_data: standard deviation of the (normalised) data around its unconditional mean.

        Raises:
            UserError: if sigma_data is not positive.
        """
        super().__init__()
        if not sigma_data > 0:
            raise UserError(f"sigma_data={sigma_data} must be positive: is the data constant?")
        self.network = network
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """Denoise.

        Args:
            x: noisy samples, (B, C, *S), normalised.
            sigma: noise levels, (B,) or a scalar.
            condition: what the samples are conditioned on, batch first.

        Returns:
            E[x₀ | x_σ = x, condition], (B, C, *S).
        """
        sigma = torch.as_tensor(sigma, device=x.device).to(torch.float64).expand(x.shape[0])
        c_skip, c_out, c_in, c_noise = preconditioning(sigma, self.sigma_data)
        f = self.network(expand(c_in, x) * x, c_noise.to(x.dtype), condition)
        return expand(c_skip, x) * x + expand(c_out, x) * f.to(x.dtype)


class FlowMap(DenoiserModule):
    """A two-time map X(x; σ → s) = (s/σ) x + (1 − s/σ) G(x; σ, s) along the probability-flow ODE.

    G is what the network gives, preconditioned as a denoiser: at s = σ it is the denoiser D, at s = 0 the end point
    (the consistency function), and a step of the map is an Euler step with G in place of D. So the average slope
    between σ and s is (x − G)/σ (MeanFlow, Geng et al. 2025, arXiv:2505.13447; flow maps, Boffi et al. 2024,
    arXiv:2406.07507; the prediction of x as in Align Your Flow, Sabour et al. 2025, arXiv:2506.14603).

    The network learns of s by `FEATURES` more condition scalars, the last ones.
    """

    FEATURES = 11

    def __init__(self, network: nn.Module, sigma_data: float = 1.0) -> None:
        """Wrap a network that takes `FEATURES` scalars beside those of the condition.

        Args:
            network: F; maps (B, C, *S), (B,), condition to (B, C, *S).
            sigma_data: standard deviation of the (normalised) data around its unconditional mean.
        """
        super().__init__()
        self.denoiser = Denoiser(network, sigma_data)
        self.sigma_data = self.denoiser.sigma_data

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, to: Tensor | None = None) -> Tensor:
        """G.

        Args:
            x: states at level sigma, (B, C, *S), normalised.
            sigma: where the map starts, (B,) or a scalar.
            condition: batch first.
            to: s, where it ends, 0 ≤ s ≤ sigma, (B,) or a scalar; 0 if None.

        Returns:
            G(x; σ, s), (B, C, *S).
        """
        end = torch.zeros_like(torch.as_tensor(sigma)) if to is None else torch.as_tensor(to)
        features = self.features(end.to(x).expand(x.shape[0]))
        condition = dict(condition or {})
        own = [condition["scalars"].to(features)] if "scalars" in condition else []
        condition["scalars"] = torch.cat([*own, features], dim=1)
        return self.denoiser(x, sigma, condition)

    def features(self, to: Tensor) -> Tensor:
        """What the network is told of s, smooth down to s = 0: (B,) to (B, FEATURES)."""
        total = (to**2 + self.sigma_data**2).sqrt()
        log = 0.25 * (to / self.sigma_data + 1e-3).log()
        waves = log[:, None] * to.new_tensor([1.0, 2.0, 4.0, 8.0])
        plain = torch.stack([to / total, self.sigma_data / total, log], dim=1)
        return torch.cat([plain, waves.sin(), waves.cos()], dim=1)


def slope(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """dx/dσ of the probability-flow ODE, (x_σ − D)/σ; also the predicted noise ε. Shapes (B, …), sigma (B,)."""
    return (x - denoised) / expand(sigma, x)


def score(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """∇ log p(x_σ) = (D − x_σ)/σ² (Tweedie)."""
    return (denoised - x) / expand(sigma, x) ** 2


def velocity(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """Flow velocity u = ε − x₀ of the straight path (1 − τ) x₀ + τ ε, at the point that x_σ maps to."""
    return slope(x, denoised, sigma) - denoised


def v_prediction(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """v = α ε − s x₀ of the variance-preserving process with α = 1/√(1+σ²), s = σ/√(1+σ²)."""
    alpha = expand((1 + sigma**2).rsqrt(), x)
    return alpha * (slope(x, denoised, sigma) - expand(sigma, x) * denoised)
