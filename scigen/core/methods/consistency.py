"""Consistency: the student's output is the same along a path of the probability-flow ODE.

L = E d(f(x_t; t), sg f(x_r; r)),  r < t neighbours, f(x; 0) = x, one dropout mask on both sides

Distillation: x_r is one Heun or Euler step of the teacher from x_t (Song et al. 2023, arXiv:2303.01469, algorithm 2).
Tuning: x_r = x₀ + r ε with the data and the noise of x_t, no teacher (ECT, Geng et al. 2024, arXiv:2406.14548). The
distance d is the squared error λ(t) ‖·‖², λ = 1/c_out², or a pseudo-Huber one (Song & Dhariwal 2023,
arXiv:2310.14189).

With the squared error the fixed point on a Gaussian mode is a product of gains, one for each step. Heun's or Euler's
for distillation; tuning has Euler's, so that a constant ratio ρ = r/t leaves √ρ of the variance; a share w of tuning
has (1 − w) m_teacher + w m_Euler. The training goes through stages, each with closer neighbours than the last.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight
from scigen.core.methods.base import Batch, Distiller, rewound
from scigen.core.noise import LogUniform, NoiseLaw, karras_sigmas
from scigen.errors import UserError

Levels = Callable[[int, torch.device], tuple[Tensor, Tensor]]
"""Draws n pairs of levels t > r ≥ 0, each (n,), on a device."""


def grid_levels(n: int, device: torch.device, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours on a grid that falls to 0, every step of it as likely, stratified: (t, r), each (n,)."""
    u = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
    i = (u * (len(grid) - 1)).long().clamp_max(len(grid) - 2)
    grid = grid.to(device)
    return grid[i], grid[i + 1]


def ect_levels(n: int, device: torch.device, law: NoiseLaw, ratio: float) -> tuple[Tensor, Tensor]:
    """t from a law of noise levels and its neighbour r: (t, r), each (n,)."""
    t = law.draw(n, device=device).double()
    return t, ect_neighbour(t, ratio, law.sigma_min)


def ect_neighbour(t: Tensor, ratio: float, sigma_min: float) -> Tensor:
    """r = t − t (1 − ρ)(1 + 8 sigmoid(−t)), or 0 where that is below σ_min, as at the end of a grid; t, r (B,).

    The last factor widens the steps up to five times at t ≪ 1 (Geng et al. 2024, arXiv:2406.14548, with their
    k = 8, b = 1); there tuning leaves √(1 − 5 (1 − ρ)) of the variance instead of √ρ.
    """
    r = t * (1 - (1 - ratio) * (1 + 8 * torch.sigmoid(-t)))
    return torch.where(r < sigma_min, 0.0, r)


def teacher_step(
    teacher: DenoiserLike, x: Tensor, t: Tensor, r: Tensor, condition: Condition | None, heun: bool = True
) -> Tensor:
    """x_r from x_t by one step of the teacher's ODE: Heun where r > 0, else Euler; per-sample levels t, r (B,)."""
    first = (x - teacher(x, t, condition)) / expand(t, x)
    ahead = x + expand(r - t, x) * first
    if not heun:
        return ahead
    inner = r > 0
    safe = torch.where(inner, r, t)
    second = (ahead - teacher(ahead, safe, condition)) / expand(safe, x)
    return torch.where(expand(inner, x) > 0, x + expand(r - t, x) * 0.5 * (first + second), ahead)


def neighbours(
    teacher: DenoiserLike,
    x: Tensor,
    noise: Tensor,
    t: Tensor,
    r: Tensor,
    condition: Condition | None,
    heun: bool = True,
    mixing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """x_t = x₀ + t ε and its neighbour x_r, from the data for a random share `mixing` of the samples, else the teacher.

    Args:
        teacher: D; not called where mixing = 1.
        x: x₀, (B, C, *S).
        noise: ε, (B, C, *S).
        t: levels (B,).
        r: their neighbours, 0 ≤ r < t (B,).
        condition: batch first.
        heun: whether the teacher's step is Heun's (else Euler's).
        mixing: each sample's probability of x₀ + r ε, drawn from the global generator.
    """
    x_t = x + expand(t, x) * noise
    same = x + expand(r, x) * noise
    if mixing == 1:
        return x_t, same
    with torch.no_grad():
        stepped = teacher_step(teacher, x_t, t, r, condition, heun)
    if mixing == 0:
        return x_t, stepped
    chosen = (torch.rand(len(x), device=x.device) < mixing).to(x)
    return x_t, torch.where(expand(chosen, x) > 0, same, stepped)


def consistency_loss(
    student: DenoiserLike,
    x_t: Tensor,
    x_r: Tensor,
    t: Tensor,
    r: Tensor,
    condition: Condition | None,
    sigma_data: float,
    huber: float | None = None,
    target: DenoiserLike | None = None,
) -> Tensor:
    """The loss of every sample, (B,).

    With e² = ‖f(x_t; t) − sg f(x_r; r)‖²/(n c_out²), the mean square in units of the network's output, n elements: e²,
    or √(e² + c²) − c. So c counts in the network's output as well, and as c √n in a norm over the elements.

    Args:
        student: f.
        x_t: states (B, C, *S) at t.
        x_r: their neighbours (B, C, *S); where r = 0 they are the target.
        t: levels (B,).
        r: neighbours, 0 ≤ r < t (B,).
        condition: batch first.
        sigma_data: of the data.
        huber: c > 0 of the pseudo-Huber distance; None for the squared error.
        target: f at r, the student if None; it meets the random numbers (dropout masks) of the student at t.
    """
    with torch.no_grad(), rewound(x_t.device):
        safe = torch.where(r > 0, r, t)
        goal = torch.where(expand(r, x_r) > 0, (target or student)(x_r, safe, condition), x_r)
    square = loss_weight(t, sigma_data) * (student(x_t, t, condition) - goal).square().flatten(1).mean(1)
    return square if huber is None else (square + huber**2).sqrt() - huber


class Consistency(Distiller):
    """Consistency distillation, tuning on data, or a mix, with neighbours that come closer in stages."""

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        sigma_min: float,
        levels: Sequence[int] = (10, 20, 40),
        rho: float = 20.0,
        ratios: Sequence[float] | None = None,
        heun: bool = True,
        mixing: float = 0.0,
        huber: float | None = None,
    ) -> None:
        """Set student, teacher and neighbours.

        Heun's steps are over-dispersive where the ratio of neighbours is small, and on Karras' grid (ρ = 7) that is at
        low noise: 20 levels of it on [0.01, 300] leave 1.2 of the variance of modes of 0.01 and 1.05 of those of 100.
        So ρ is large here, which makes the ratio, and with it the error, the same at all scales; and the last stage is
        twice as long as each other, because the learning rate falls: of three equal stages the last had 6 % of the
        area under a cosine, too little to leave the bias of the second behind.

        Args:
            student: initialised from the teacher.
            teacher: frozen; not called where mixing = 1.
            sigmas: the student's sampling levels; the first is σ_max.
            sigma_min: smallest level above 0.
            levels: number of levels of the grid, stage by stage.
            rho: ρ of the grid.
            ratios: ratios r/t, stage by stage: ECT's neighbours, t log-uniform, instead of a grid's; its own sequence
                is 1 − q^−(stage + 1), capped.
            heun: whether the teacher's step is Heun's (else Euler's).
            mixing: share of the samples whose neighbour comes from the data: 0 distils, 1 tunes.
            huber: c of the pseudo-Huber distance; None for the squared error.

        Raises:
            UserError: for a stage of fewer than two levels, a ratio or a share that is none, or huber ≤ 0.
        """
        super().__init__(student, teacher, sigmas)
        check_options("consistency", mixing, huber, ratios)
        self.heun, self.mixing, self.huber = heun, mixing, huber
        self.stages: list[Levels]
        if ratios:
            law = LogUniform(sigma_min, sigmas[0])
            self.stages = [partial(ect_levels, law=law, ratio=float(ratio)) for ratio in ratios]
        else:
            if not levels or min(levels) < 2:
                raise UserError(f"method.levels={list(levels)}: consistency needs at least two levels in each stage.")
            grids = [karras_sigmas(n, sigma_min, sigmas[0], rho) for n in levels]
            self.stages = [partial(grid_levels, grid=torch.cat([g, torch.zeros(1, dtype=g.dtype)])) for g in grids]
        self.stage = 0

    def at(self, progress: float) -> None:
        """Choose the stage: equal shares of the training, two of them for the last."""
        self.stage = min(int(progress * (len(self.stages) + 1)), len(self.stages) - 1)

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean consistency loss."""
        t, r = (s.to(batch.x) for s in self.stages[self.stage](len(batch.x), batch.x.device))
        noise = torch.randn_like(batch.x)
        condition = batch.condition
        x_t, x_r = neighbours(self.teacher, batch.x, noise, t, r, condition, self.heun, self.mixing)
        each = consistency_loss(self.student, x_t, x_r, t, r, condition, self.student.sigma_data, self.huber)
        return {"loss": each.mean(), "stage": torch.tensor(float(self.stage))}


def check_options(stem: str, mixing: float, huber: float | None, ratios: Sequence[float] | None) -> None:
    """Raise UserError unless mixing is a share, huber None or positive, and every ratio strictly between 0 and 1."""
    if not 0 <= mixing <= 1:
        raise UserError(f"method.mixing={mixing}: {stem} takes a share from 0 (the teacher's steps) to 1 (the data).")
    if huber is not None and not huber > 0:
        raise UserError(f"method.huber={huber} must be positive; null is the squared error.")
    if any(not 0 < ratio < 1 for ratio in ratios or ()):
        raise UserError(f"{stem}: ratios r/t of neighbours lie between 0 and 1, not {list(ratios or ())}.")
