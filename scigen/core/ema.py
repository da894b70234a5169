"""Power-function averages of weights, several widths at once, and any width made of their snapshots after training.

θ̄_γ(t) = ∫₀ᵗ p(τ) θ(τ) dτ,  p(τ) = (γ + 1) τ^γ / t^{γ+1};  its width σ_rel = √((γ+1)/((γ+2)²(γ+3))) is a share of t

(Karras et al. 2024, arXiv:2312.02696, section 3 and algorithms 2 and 3). Such an average forgets the start of training
by itself, and its memory grows with it: the same widths serve short and long trainings.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scigen.errors import UserError

WIDEST = 0.288
"""Just below 1/√12, the width of the plain mean (γ = 0)."""


def gamma(width: float) -> float:
    """γ of a relative width σ_rel.

    Raises:
        UserError: unless 0 < σ_rel < 0.288.
    """
    if not 0 < width < WIDEST:
        raise UserError(f"An average's width is a share of the training in (0, {WIDEST}), not {width}.")
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(roots.real.max())


def overlap(a: float, gamma_a: float, b: float, gamma_b: float) -> float:
    """∫ p_a p_b dτ of the averaging weights at steps a and b with powers γ_a and γ_b."""
    log = np.log((gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)) + (gamma_a + gamma_b + 1) * np.log(min(a, b))
    return float(np.exp(log - (gamma_a + 1) * np.log(a) - (gamma_b + 1) * np.log(b)))


def combination(kept: Sequence[tuple[int, float]], step: int, width: float) -> np.ndarray:
    """Weights of kept averages, with sum 1, whose combination is nearest to the average of another width: (len(kept),).

    Without the sum held to 1 the nearest combination of few averages has less (0.98 for eight snapshots of two widths
    and a wanted width of 0.2): every weight would shrink.

    Args:
        kept: (step, width) of each.
        step: at which the wanted average ends, not beyond the last kept one.
        width: σ_rel that is wanted.
    """
    powers = [gamma(w) for _, w in kept]
    times = [t for t, _ in kept]
    own = gamma(width)
    pairs = list(zip(times, powers, strict=True))
    gram = np.array([[overlap(a, p, b, q) for b, q in pairs] for a, p in pairs])
    wanted = np.array([overlap(a, p, step, own) for a, p in pairs])
    scale = np.full((len(kept), 1), np.trace(gram) / len(kept))
    bordered = np.block([[gram, scale], [scale.T, np.zeros((1, 1))]])  # a Lagrange multiplier for the sum
    return np.linalg.lstsq(bordered, np.append(wanted, scale[0]), rcond=1e-12)[0][:-1]


class PowerEMA(nn.Module):
    """Averages of a module's parameters at several widths, in float32 at least; buffers are copied."""

    steps: Tensor

    def __init__(self, module: nn.Module, widths: Sequence[float] = (0.05, 0.10)) -> None:
        """Start from copies of `module`.

        Args:
            module: what is averaged.
            widths: σ_rel of each average, as shares of the training; the first is the one used on the way.
        """
        super().__init__()
        self.widths = tuple(float(w) for w in widths)
        self.powers = [gamma(w) for w in self.widths]
        if not self.widths:
            raise UserError("training.ema needs one width at least.")
        self.means = nn.ModuleList(_widened(module) for _ in self.widths)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.done: int | None = None

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Fold in the present weights of `module`: the t-th ones with weight 1 − (1 − 1/t)^{γ+1}."""
        t = (int(self.steps) if self.done is None else self.done) + 1
        present = [p.detach() for p in module.parameters()]
        for power, mean in zip(self.powers, self.means, strict=True):
            averages: list[Tensor] = list(mean.parameters())
            torch._foreach_lerp_(
                averages, [p.to(a) for p, a in zip(present, averages, strict=True)], 1 - (1 - 1 / t) ** (power + 1)
            )
            for kept, buffer in zip(mean.buffers(), module.buffers(), strict=True):
                kept.copy_(buffer)
        self.steps += 1
        self.done = t

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.done = None  # read again from the state

    def average(self, index: int = 0) -> nn.Module:
        """The average of a width, by its place in `widths`; not a copy."""
        return self.means[index]


@dataclass(frozen=True)
class Snapshot:
    """The average of a width as it was after a step.

    Attributes:
        step: number of updates that it had seen.
        width: σ_rel.
        weights: state of the module.
    """

    step: int
    width: float
    weights: dict[str, Tensor]


def reconstruct(snapshots: Sequence[Snapshot], width: float, step: int | None = None) -> dict[str, Tensor]:
    """State of a module averaged with any width, from snapshots of averages of other widths.

    Args:
        snapshots: taken during training.
        width: σ_rel that is wanted.
        step: at which the average ends; the last snapshot's if None.

    Raises:
        UserError: without snapshots, or for a step beyond the last.
    """
    last = max((s.step for s in snapshots), default=0)
    step = last if step is None else step
    if not 0 < step <= last:
        raise UserError(f"An average at step {step} needs snapshots up to there; the last is at {last}.")
    factors = combination([(s.step, s.width) for s in snapshots], step, width)
    newest = max(snapshots, key=lambda s: s.step).weights
    out = {}
    for name, like in newest.items():
        same = all(torch.equal(s.weights[name], like) for s in snapshots)
        if like.is_floating_point() and not same:
            total = sum(float(f) * s.weights[name].double() for f, s in zip(factors, snapshots, strict=True))
            out[name] = torch.as_tensor(total).to(like)
        else:
            out[name] = like.clone()
    return out


def _widened(module: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode; parameters of less than 32 bits become float32."""
    mean = copy.deepcopy(module).requires_grad_(False).eval()
    for p in mean.parameters():
        if p.dtype in (torch.bfloat16, torch.float16):
            p.data = p.data.float()
    return mean
