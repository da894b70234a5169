"""Truncated consistency: a second stage that keeps the first one's student below t′ and learns only above it.

f(x; t) = f₀(x; t) for t < t′, frozen, else the student;   L = E_{t ≥ t′} d(f(x_t; t), sg f(x_r; r)) + w L(t = t′)

(TCM, Lee et al. 2024, arXiv:2410.14895.) The capacity that denoising at low noise took is free for the
jump from noise. A share of the batch stands at t′, where r < t′: its targets come from f₀, the boundary condition that
keeps the student from collapsing to a constant. On a Gaussian mode the fixed point is f₀'s gain at the first r below
t′ times the gains of the steps above.

The paper's t is heavy-tailed in ln t (Student's t of 0.01 degrees of freedom); here ln t is uniform, nearly the same.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand
from scigen.core.methods.base import Batch, Distiller, rewound
from scigen.core.methods.consistency import check_options, consistency_loss, ect_neighbour, neighbours
from scigen.core.noise import LogUniform
from scigen.errors import UserError


def truncated(frozen: DenoiserLike, student: DenoiserLike, transition: float) -> DenoiserLike:
    """f of both: the frozen one below the transition, the student from there; both meet the same dropout mask."""

    def f(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        with rewound(x.device):
            below = frozen(x, sigma, condition)
        return torch.where(expand(sigma, x) < transition, below, student(x, sigma, condition))

    return f


class TCM(Distiller):
    """The second stage of consistency training, above the transition t′."""

    follows = "consistency"

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        sigma_min: float,
        transition: float = 1.0,
        ratio: float = 0.9,
        share: float = 0.25,
        weight: float = 0.1,
        heun: bool = True,
        mixing: float = 0.0,
        huber: float | None = None,
    ) -> None:
        """Set student, teacher and transition; the student as it is given is kept, frozen, for below the transition.

        With Heun's steps a ratio of 0.9 costs at most 1 % of the variance of any mode; nearer neighbours only make the
        way from t′ to σ_max longer, and noisier. Tuning loses 1 − √ratio: 0.99 suits it.

        Args:
            student: of the consistency method.
            teacher: frozen; not called where mixing = 1.
            sigmas: the student's sampling levels, none below the transition; the first is σ_max.
            sigma_min: smallest level above 0: neighbours below it are at 0.
            transition: t′.
            ratio: r/t of neighbours at large t (`ect_neighbour`).
            share: of the samples of a batch that stand at t′.
            weight: w of their mean loss.
            heun: whether the teacher's step is Heun's (else Euler's).
            mixing: share of the samples whose neighbour comes from the data: 0 distils, 1 tunes.
            huber: c of the pseudo-Huber distance; None for the squared error.

        Raises:
            UserError: for sampling levels below the transition, a transition outside (σ_min, σ_max), or a share or a
                ratio that is none.
        """
        super().__init__(student, teacher, sigmas)
        check_options("tcm", mixing, huber, [ratio])
        if not sigma_min < transition < sigmas[0]:
            raise UserError(
                f"method.transition={transition} must lie between sigma_min={sigma_min:g} and sigma_max={sigmas[0]:g}."
            )
        if sigmas[-1] < transition:
            raise UserError(
                f"method.sigmas={list(self.sigmas)}: a tcm student is trained at method.transition={transition} and"
                " above only. Raise the levels or lower the transition."
            )
        if not 0 <= share < 1 or not weight >= 0:
            raise UserError(f"method.share={share} must be in [0, 1), and method.weight={weight} not negative.")
        self.frozen = copy.deepcopy(student).requires_grad_(False)
        self.sigma_min, self.transition, self.ratio = sigma_min, transition, ratio
        self.share, self.weight = share, weight
        self.heun, self.mixing, self.huber = heun, mixing, huber

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean loss above the transition, and the weighted one at it.

        Raises:
            UserError: if the batch cannot hold a sample of each kind.
        """
        n, x = len(batch.x), batch.x
        edge = max(1, round(self.share * n)) if self.share else 0
        if edge >= n:
            raise UserError(
                f"method=tcm splits each batch in two kinds of samples: {n} are too few; enlarge training.batch."
            )
        above = LogUniform(self.transition, self.sigmas[0]).draw(n - edge, device=x.device)
        t = torch.cat([above.double(), torch.full((edge,), self.transition, dtype=torch.float64, device=x.device)])
        r = ect_neighbour(t, self.ratio, self.sigma_min).to(x)
        t = t.to(x)
        noise, condition = torch.randn_like(x), batch.condition
        x_t, x_r = neighbours(self.teacher, x, noise, t, r, condition, self.heun, self.mixing)
        both = truncated(self.frozen, self.student, self.transition)
        each = consistency_loss(
            self.student, x_t, x_r, t, r, condition, self.student.sigma_data, self.huber, target=both
        )
        inner = each[: n - edge].mean()
        if not edge:
            return {"loss": inner}
        boundary = each[n - edge :].mean()
        return {"loss": inner + self.weight * boundary, "boundary": boundary}
