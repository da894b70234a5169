"""The measurement operator of y = A x + n, shared by all fields: forward, adjoint, noise level."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Operator(nn.Module, ABC):
    """A linear map A with its adjoint: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩ in the plain inner product.

    Attributes:
        noise_std: standard deviation of n in y = A x + n; 0 for exact measurements.
        learnt: whether networks are trained with its correction, or know nothing of it until they are sampled.
    """

    noise_std: float = 0.0
    learnt: bool = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, C, *S) to the shape of measurements, batch first."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y: from the shape of measurements to (B, C, *S)."""

    def inverse(self, y: Tensor) -> Tensor:
        """A right inverse, A inverse(y) = y, for operators that have a cheap one."""
        raise TypeError(f"{type(self).__name__} has no cheap right inverse.")

    def bind(self, condition: Mapping[str, Tensor]) -> "Operator":
        """The operator of these samples, where it differs from sample to sample; itself where it does not."""
        return self

    def perturbed(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The condition with fresh noise on every row's measurement (`Codec.perturbed`); as it is if that is exact."""
        return dict(condition)

    def statistics(self, x: Tensor) -> Tensor | None:
        """Numbers (B, K) of samples (B, C, *S), smooth in them, that must be right as such; of bound operators."""
        return None

    def correct(self, denoised: Tensor, sigma: Tensor) -> Tensor:
        """What a noisy measurement makes of denoised samples: (B, C, *S), sigma (B,); of bound operators."""
        raise TypeError(f"{type(self).__name__} has no noise model.")


class OnChannels(Operator):
    """An operator that sees some channels alone."""

    def __init__(self, operator: Operator, channels: Sequence[int], total: int) -> None:
        """Set the operator.

        Args:
            operator: A, channel by channel.
            channels: those that are measured.
            total: C of the fields.
        """
        super().__init__()
        self.operator, self.channels, self.total = operator, list(channels), total
        self.noise_std = operator.noise_std

    def forward(self, x: Tensor) -> Tensor:
        """A of the channels, in their order."""
        return self.operator(x[:, self.channels])

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y in the channels, 0 in the others."""
        return self._fill(self.operator.adjoint(y))

    def inverse(self, y: Tensor) -> Tensor:
        """A right inverse in the channels, 0 in the others."""
        return self._fill(self.operator.inverse(y))

    def bind(self, condition: Mapping[str, Tensor]) -> Operator:
        """With the operator of a condition."""
        bound = self.operator.bind(condition)
        return self if bound is self.operator else OnChannels(bound, self.channels, self.total)

    def _fill(self, part: Tensor) -> Tensor:
        zeros = part.new_zeros(part.shape[0], self.total, *part.shape[2:])
        return zeros.index_copy(1, torch.tensor(self.channels, device=part.device), part)
