"""Regression on the teacher's end points: from noise, and from states on the way, the student jumps to the end.

L = E_i w_i E ‖G(x_{σ_i}; σ_i, c) − x₀‖²,   x_{σ_0} = σ_max ε → x_{σ_1} → … → x₀ = the converged teacher's ODE, cached

(Luhman & Luhman 2021, arXiv:2101.02388; for i > 0 the consistency function by direct regression)

The noise ties every sample to its own end point, so the spread is inherited and nothing collapses to the mean. A state
of the ODE at level σ has the law of x₀ + σ ε, so what the student learns on the path it meets again when it is sampled
with fresh noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import (
    Condition,
    DenoiserLike,
    DenoiserModule,
    loss_weight,
    predictions,
    weighted_error,
)
from scigen.core.draws import strata
from scigen.core.methods.base import Batch, Distiller
from scigen.errors import UserError


def regression_loss(
    student: DenoiserLike,
    x: Tensor,
    end: Tensor,
    sigma: Tensor,
    condition: Condition | None,
    weight: Tensor,
    statistics: float = 0.0,
) -> Tensor:
    """The loss of every pair, (B,): states x at levels sigma (B,), end points (B, C, *S), weights (B,).

    With `statistics` above 0 the squared error of what `DenoiserModule.statistics` names is added, times it.
    """
    predicted = predictions(student, x, sigma, condition)
    loss = weight * weighted_error(predicted, end)
    if not statistics or not isinstance(student, DenoiserModule):
        return loss
    got, wanted = student.statistics(predicted[0][1], condition), student.statistics(end, condition)
    return loss if got is None or wanted is None else loss + statistics * (got - wanted).square().sum(1)


def level_weights(sigmas: Tensor, sigma_data: float) -> Tensor:
    """w_i ∝ 1/c_out(σ_i)², with w_0 = 1/σ_data²: float64, of the shape of sigmas.

    An error of the network's output, of unit scale at every level, then costs the same everywhere. In plain squared
    error the low levels, whose jumps are short and errors small, would hardly count; but theirs is the last call, and
    its error is the sample's.
    """
    each = loss_weight(sigmas.double(), sigma_data)
    return each / each[0] / sigma_data**2


class Regression(Distiller):
    """The student meets the teacher's ODE end point from every one of its levels, on cached pairs."""

    by_row = True

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        pairs: int = 1024,
        statistics: float | None = None,
    ) -> None:
        """Set student and teacher.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigmas: the student's levels; the first is the teacher's σ_max, and pairs hold the states at the others.
            pairs: number of cached pairs.
            statistics: weight of the error of what the field says must be right as such (`DenoiserModule.statistics`).

        Raises:
            UserError: if there is no pair, or the weight is negative.
        """
        super().__init__(student, teacher, sigmas)
        if pairs < 1:
            raise UserError(f"method.pairs={pairs}: method=regression trains on pairs of its teacher, one at least.")
        if statistics is not None and statistics < 0:
            raise UserError(f"method.statistics={statistics}: a weight is 0 or more.")
        self.pairs, self.statistics = pairs, statistics or 0.0

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean weighted distance to the end points; the level of each pair is drawn uniformly (stratified).

        Raises:
            UserError: if the batch has no noise, or states at another number of levels.
        """
        if batch.noise is None:
            raise UserError("method=regression trains on (noise, end point) pairs of its teacher, not on data.")
        count, inner = len(self.sigmas), 0 if batch.path is None else batch.path.shape[1]
        if inner != count - 1:
            raise UserError(
                f"method.sigmas={list(self.sigmas)} takes pairs with states at {count - 1} levels below the first;"
                f" these have {inner}. Make them with the same levels."
            )
        n, device = len(batch.x), batch.x.device
        levels = torch.tensor(self.sigmas, dtype=torch.float64, device=device)
        i = torch.zeros(n, dtype=torch.long, device=device)
        x = self.sigmas[0] * batch.noise
        if batch.path is not None and inner:
            i = (strata(n, device) * count).long().clamp_max(count - 1)
            x = torch.cat([x[:, None], batch.path], 1)[torch.arange(n, device=device), i]
        weight = level_weights(levels, self.student.sigma_data).to(batch.x)
        each = regression_loss(self.student, x, batch.x, levels[i], batch.condition, weight[i], self.statistics)
        return {"loss": each.mean()}
