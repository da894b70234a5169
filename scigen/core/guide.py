"""Denoisers that use the measurement: wrappers with the Denoiser's interface, so that samplers and methods never know.

For exact measurements y = A x every sample, and so the mean E[x₀ | x_σ, y], satisfies A D = y. For noisy ones the
measurement weighs against what the network says, and the weights depend on σ.
"""

import torch
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

    def statistics(self, x: Tensor, condition: Condition | None = None) -> Tensor | None:
        """Those that the operator names."""
        return self.operator.bind(condition or {}).statistics(x)


class Weighed(DenoiserModule):
    """The denoiser corrected by a noisy measurement: `Operator.correct`, the last thing that happens to a sample.

    Attributes:
        share: weight of the network's own output in losses. What the measurement decides leaves no gradient, and the
            network would be free there.
    """

    share = 0.02

    def __init__(self, denoiser: DenoiserModule, operator: Operator) -> None:
        """Wrap a denoiser.

        Args:
            denoiser: D(x, sigma, condition).
            operator: A, that knows how to `correct`.
        """
        super().__init__()
        self.denoiser, self.operator = denoiser, operator
        self.sigma_data = denoiser.sigma_data

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, to: Tensor | None = None) -> Tensor:
        """Denoise (or, for a flow map, predict for level `to`) and correct: (B, C, *S).

        Raises:
            UserError: if there is no condition.
        """
        out = self.predictions(x, sigma, condition, to)[0][1]
        return out if self.operator.learnt or not condition else self._corrected(out, sigma, condition)

    def predictions(
        self, x: Tensor, sigma: Tensor, condition: Condition | None = None, to: Tensor | None = None
    ) -> list[tuple[float, Tensor]]:
        """The corrected output and the network's own, each with its weight in losses; its own alone if not `learnt`."""
        if not condition:
            raise UserError("This model weighs its samples against a measurement; it needs a condition.")
        own = self.denoiser(x, sigma, condition, *(() if to is None else (to,)))
        if not self.operator.learnt:
            return [(1.0, own)]
        return [(1 - self.share, self._corrected(own, sigma, condition)), (self.share, own)]

    def perturbed(self, condition: Condition) -> Condition:
        """With noise of its own on every row's measurement."""
        return self.operator.perturbed(condition)

    def _corrected(self, own: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The network's output after the measurement."""
        level = torch.as_tensor(sigma, device=own.device).to(torch.float64).expand(own.shape[0])
        return self.operator.bind(condition).correct(own, level)
