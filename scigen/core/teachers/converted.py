"""A network of another kind in the place of EDM's F(x, c_noise, condition), so that a Denoiser around it is theirs."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, preconditioning
from scigen.core.teachers.predictions import Affine
from scigen.errors import UserError

LEAST = 1e-6
"""Levels below this share of σ_data are taken for it: D(x; σ) is x there, to more digits than weights have."""


class Converted(nn.Module):
    """F = (D − c_skip x)/c_out of another network's D, in evaluation mode always: one function in training as well.

    Attributes:
        sigma_data: that of the Denoiser around it.
        channels: C.
        condition_fields: K of condition["fields"] (B, K, *S).
        condition_scalars: K of condition["scalars"] (B, K).
        radius: None: what a cell sees is not known.
        fixed_size: cells of the only fields that it takes, None for any.
    """

    radius: int | None = None
    fixed_size: tuple[int, ...] | None = None

    def __init__(self, channels: int, condition_fields: int, condition_scalars: int, sigma_data: float) -> None:
        """Keep what calls are checked against."""
        super().__init__()
        self.channels, self.condition_fields, self.condition_scalars = channels, condition_fields, condition_scalars
        self.sigma_data = float(sigma_data)

    @abstractmethod
    def affine(self, sigma: Tensor) -> Affine:
        """How D follows from what the network predicts, at σ (B,) float64."""

    @abstractmethod
    def predict(self, y: Tensor, time: Tensor, condition: Condition, scale: Tensor) -> Tensor:
        """Its prediction (B, C, *S).

        Args:
            y: scaled samples, (B, C, *S).
            time: what it is told of the level, (B,).
            condition: "fields" and "scalars", as many as it takes.
            scale: what y has been scaled by, broadcasting against y.
        """

    def train(self, mode: bool = True) -> "Converted":
        """Keep what is inside in evaluation mode, see above."""
        super().train(mode)
        for child in self.children():
            child.train(False)
        return self

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply F.

        Args:
            x: scaled noisy samples c_in x, (B, C, *S).
            c_noise: ¼ ln σ, (B,).
            condition: as many fields and scalars as it takes.

        Raises:
            UserError: for another number of channels, or a prediction of another shape.

        Returns:
            (B, C, *S).
        """
        if x.shape[1] != self.channels:
            raise UserError(f"The network takes {self.channels} channels, not the {x.shape[1]} of {tuple(x.shape)}.")
        sigma = (4 * c_noise.double()).exp().clamp_min(LEAST * self.sigma_data)
        c_skip, c_out, c_in, _ = preconditioning(sigma, self.sigma_data)
        own = self.affine(sigma)
        y = x / _spread(c_in, x)
        scale = _spread(own.scale, x)
        given = self.predict(scale * y, own.time.to(x.dtype), condition or {}, scale)
        if given.is_complex():
            raise UserError("The network predicts complex numbers; samples are real.")
        if given.shape != x.shape:
            raise UserError(f"The network predicts the shape {tuple(given.shape)} for samples of {tuple(x.shape)}.")
        if own.skip.ndim > 1:
            c_skip, c_out = c_skip[:, None], c_out[:, None]
        return _spread((own.skip - c_skip) / c_out, x) * y + _spread(own.out / c_out, x) * given.to(x.dtype)


def _spread(v: Tensor, like: Tensor) -> Tensor:
    """Coefficients (B,) or (B, C) broadcasting against (B, C, *S), in its type."""
    return v.to(like).reshape(*v.shape, *[1] * (like.ndim - v.ndim))


def probe(network: Converted, size: tuple[int, ...], sigmas: tuple[float, float]) -> None:
    """Call a network once at both ends of its levels.

    Raises:
        UserError: if it fails, or predicts another shape or no finite numbers.
    """
    x = torch.randn(2, network.channels, *size, generator=torch.Generator().manual_seed(0))
    condition = {
        "fields": torch.zeros(2, network.condition_fields, *size),
        "scalars": torch.zeros(2, network.condition_scalars),
    }
    levels = torch.tensor(sigmas, dtype=torch.float64)
    try:
        with torch.no_grad():
            found = network(x, (0.25 * levels.log()).float(), condition)
    except UserError:
        raise
    except Exception as error:  # whatever goes wrong in code that is not scigen's
        said = (str(error).strip() or "?").splitlines()[0]
        raise UserError(
            f"The teacher fails on samples {tuple(x.shape)}, times (2,), fields {tuple(condition['fields'].shape)} and"
            f" scalars {tuple(condition['scalars'].shape)}: {type(error).__name__}: {said}"
        ) from error
    if not torch.isfinite(found).all():
        raise UserError(
            f"The teacher gives NaN or infinity for noise at σ = {sigmas[0]:g} or {sigmas[1]:g}: its"
            " schedule may be another, or its levels fewer (sigma_min, sigma_max)."
        )
