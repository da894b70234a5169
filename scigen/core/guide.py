"""Denoisers that use the measurement: wrappers with the Denoiser's interface, so that samplers and methods never know.

For exact measurements y = A x every sample, and so the mean E[x₀ | x_σ, y], satisfies A D = y.
"""

from torch import Tensor

from scigen.core.denoise import Condition, DenoiserModule
from scigen.core.operator import Operator
from scigen.errors import UserError


class Consistent(DenoiserModule):
    """D + A⁺(y − A D): the denoiser moved onto the exact measurement, condition["measurement"]."""

    def __init__(self, denoiser: DenoiserModule, operator: Operator) -> None:
        """Wrap a denoiser.

        Args:
            denoiser: D(x, sigma, condition).
            operator: A, with a right inverse A⁺ (`Operator.inverse`).
        """
        super().__init__()
        self.denoiser, self.operator = denoiser, operator
        self.sigma_data = denoiser.sigma_data

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, to: Tensor | None = None) -> Tensor:
        """Denoise (or, for a flow map, predict for level `to`) and correct: (B, C, *S).

        Raises:
            UserError: if the condition has no measurement.
        """
        if not condition or "measurement" not in condition:
            raise UserError("This model holds its samples to a measurement; the condition must have a 'measurement'.")
        denoised = self.denoiser(x, sigma, condition, *(() if to is None else (to,)))
        operator = self.operator.bind(condition)
        return denoised + operator.inverse(condition["measurement"].to(x) - operator(denoised))
