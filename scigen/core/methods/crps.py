"""CRPS: several members of each condition, scored against the one truth by proper scores; no teacher, no pairs.

almost fair CRPS   1/(2M(M−1)) Σ_{j≠k} (|x_j − y| + |x_k − y| − (1 − (1−α)/M) |x_j − x_k|)         of every pixel
energy score       the same with ‖·‖^β, 0 < β < 2, over the whole field

(Lang et al. 2024, arXiv:2412.15832, equation 4; energy score as a loss of generators: De Bortoli et al. 2025,
arXiv:2502.02483)

To CRPS, which sees each pixel alone, right marginals without any correlation are as good as the truth. The energy score
sees the joint law, but on a field with a steep spectrum it is nearly a function of the variance of the large scales and
hardly feels the small ones. So both are taken of the field itself, which makes the sum strictly proper, and of its
bands of wavelengths, which gives every scale a score of its own. A step of the optimiser moves all scales alike, so in
the bands that hold little of the variance the score is taken over the error's own size (`relative`): else a student of
few steps has several times the variance there.

α = 1 is fair: the optimum is the truth for every M. Below 1, the optimum's spread is short of the truth's by a share of
about 2 (1−α)/M, and in exchange no member is free to be anywhere when others hit the truth.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, perturbed
from scigen.core.methods.base import Batch, Distiller, repeat
from scigen.errors import UserError


def _almost_fair(members: Tensor, truth: Tensor, alpha: float, distance: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over the pairs j ≠ k of ½ (d(x_j, y) + d(x_k, y) − (1 − (1−α)/M) d(x_j, x_k)).

    Where d obeys the triangle inequality every pair's term is at least 0, so nothing large cancels.

    Raises:
        UserError: for fewer than two members.
    """
    count = members.shape[1]
    if count < 2:
        raise UserError(f"method.members={count}: a score of an ensemble needs two members of each condition at least.")
    error = distance(members - truth[:, None])
    share = 1 - (1 - alpha) / count
    total = torch.zeros_like(error[:, 0])
    for shift in range(1, count // 2 + 1):  # members j and j + shift; count − shift meets the same pairs
        apart = distance(members - members.roll(shift, 1))
        both = 0.5 if 2 * shift == count else 1.0
        total = total + both * (error + error.roll(shift, 1) - share * apart).mean(1)
    return total / (count - 1)


def almost_fair_crps(members: Tensor, truth: Tensor, alpha: float = 1.0) -> Tensor:
    """Almost fair CRPS of every element, α fair + (1 − α) plain: members (B, M, …), truth (B, …) → (B, …).

    Raises:
        UserError: for fewer than two members.
    """
    return _almost_fair(members, truth, alpha, torch.abs)


def energy_score(members: Tensor, truth: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """(Almost) fair energy score E‖X − y‖^β − ½ E‖X − X'‖^β of every sample: (B, M, …), (B, …) → (B,).

    The norm is that of all elements together. Strictly proper for 0 < β < 2; with β = 2 only the mean counts.

    Raises:
        UserError: for fewer than two members.
    """

    def distance(difference: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(difference, dim=2)
        return norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5) ** beta  # a finite slope where members meet

    n, m = members.shape[:2]
    return _almost_fair(members.reshape(n, m, -1), truth.reshape(n, -1), alpha, distance)


def cosines(n: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II of n values, (n, n): row k counts k half waves."""
    place = (torch.arange(n, dtype=torch.float64) + 0.5) * math.pi / n
    rows = torch.cos(torch.arange(n, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.to(like)


def bands(x: Tensor, octave: int) -> list[Tensor]:
    """What is scored of a field: itself, and the coefficients of its cosine transform, band by band of wavelengths.

    Args:
        x: fields (B, C, *S), any number of space dims.
        octave: bands in an octave of wavelengths; 0 for the field alone.

    Returns:
        The field, then (B, C, modes) of every band that holds a mode: the mean, then from the longest waves to the
        shortest; their squares sum to the field's.
    """
    if x.ndim < 3 or not octave:
        return [x]
    waves, radius = x, torch.zeros((), dtype=torch.float64, device=x.device)
    for n in x.shape[2:]:
        waves = torch.tensordot(waves, cosines(n, x), dims=([2], [1]))  # the transformed axis becomes the last
        radius = radius[..., None] + (torch.arange(n, device=x.device, dtype=torch.float64) / n) ** 2
    radius = min((n for n in x.shape[2:] if n > 1), default=1) * radius.sqrt()  # half waves along the shortest side
    index = (octave * radius.clamp_min(1).log2() + 1e-9).floor().long()
    index = torch.where(radius == 0, -1, index).flatten()
    return [x, *(waves.flatten(2)[:, :, index == i] for i in index.unique())]


def rollout(
    student: DenoiserLike, noises: Sequence[Tensor], sigmas: Sequence[float], condition: Condition | None
) -> list[Tensor]:
    """What the few-step sampler gives after each of its calls, with gradient through all: K times (B, C, *S).

    Args:
        student: G(x, sigma (B,), condition).
        noises: K unit-variance noises (B, C, *S); the first starts the sampler.
        sigmas: the K levels.
        condition: batch first.
    """
    outputs: list[Tensor] = []
    for sigma, noise in zip(sigmas, noises, strict=True):
        x = sigma * noise + (outputs[-1] if outputs else 0.0)
        level = torch.full((len(noise),), sigma, dtype=torch.float64, device=noise.device)
        outputs.append(student(x, level, condition))
    return outputs


class CRPS(Distiller):
    """Proper scores of an ensemble against data: the one-pass baseline, or the finish of any student.

    The sample after each of the student's calls is scored, so that it may be sampled with fewer calls as well.
    """

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        members: int = 4,
        crps: float = 0.3,
        energy: float = 1.0,
        octave: int = 2,
        relative: bool = True,
        alpha: float = 0.99,
        beta: float = 1.0,
    ) -> None:
        """Set student and score.

        Args:
            student: in any state; its noise decides what its members differ by.
            teacher: frozen; what the student is compared with, never called.
            sigmas: the student's levels.
            members: M of each condition; a batch takes batch · M rows.
            crps: weight of the almost fair CRPS.
            energy: weight of the energy score, of a norm per element (so that it is of the size of the CRPS).
            octave: bands in an octave of wavelengths; 0 scores the field alone.
            relative: whether each band's scores are taken over its members' rms distance from the truth, so that
                every band counts the same, however little of the variance it holds.
            alpha: 1 is fair, 0 plain.
            beta: exponent of the energy score.

        Raises:
            UserError: for fewer than two members, negative weights or none, a negative octave, α outside [0, 1] or β
                outside (0, 2).
        """
        super().__init__(student, teacher, sigmas)
        if members < 2:
            raise UserError(
                f"method.members={members}: a score of an ensemble needs two members of each condition at least."
            )
        if min(crps, energy) < 0 or crps + energy == 0:
            raise UserError(f"method.crps={crps}, method.energy={energy}: weights at least 0, one of them positive.")
        if octave < 0:
            raise UserError(f"method.octave={octave}: bands in an octave of wavelengths, 0 for none.")
        if not 0 <= alpha <= 1 or not 0 < beta < 2:
            raise UserError(f"method.alpha={alpha} must be in [0, 1], method.beta={beta} between 0 and 2.")
        self.members, self.weights, self.octave, self.relative = members, (crps, energy), octave, relative
        self.alpha, self.beta = alpha, beta

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Weighted scores, meaned over calls, and over the field and its bands."""
        n, m, y = len(batch.x), self.members, batch.x
        noises = [torch.randn_like(y.repeat_interleave(m, 0)) for _ in self.sigmas]
        outputs = rollout(self.student, noises, self.sigmas, perturbed(self.student, repeat(batch.condition, m)))
        crps, energy = [], []
        for x in outputs:
            for field, truth in zip(bands(x.to(y.dtype), self.octave), bands(y, self.octave), strict=True):
                ensemble = field.unflatten(0, (n, m))
                if self.relative:
                    unit = (ensemble - truth[:, None]).detach().square().mean().sqrt().clamp_min(1e-12)
                    ensemble, truth = ensemble / unit, truth / unit
                crps.append(almost_fair_crps(ensemble, truth, self.alpha).mean())
                each = energy_score(ensemble, truth, self.beta, self.alpha)
                energy.append(each.mean() / truth[0].numel() ** (self.beta / 2))
        means = [torch.stack(scores).mean() for scores in (crps, energy)]
        loss = self.weights[0] * means[0] + self.weights[1] * means[1]
        return {"loss": loss, "crps": means[0].detach(), "energy": means[1].detach()}
