"""The measurement operator of y = A x + n, shared by all fields: forward, adjoint, noise level."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Operator(nn.Module, ABC):
    """A linear map A with its adjoint: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩ in the plain inner product.

    Attributes:
        noise_std: standard deviation of n in y = A x + n; 0 for exact measurements.
    """

    noise_std: float = 0.0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, C, *S) to the shape of measurements, batch first."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y: from the shape of measurements to (B, C, *S)."""

    def inverse(self, y: Tensor) -> Tensor:
        """A right inverse, A inverse(y) = y, for operators that have a cheap one."""
        raise TypeError(f"{type(self).__name__} has no cheap right inverse.")
