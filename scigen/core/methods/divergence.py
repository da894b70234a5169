"""f-divergences between teacher and student by one weight on the distribution-matching gradient.

∇_θ D_f(p‖q_θ) = E_q [ h(r) (s_q − s_p) ∂x ],   r = p/q,   h(r) = r² f''(r),   D_f(p‖q) = E_q f(r)

(f-distill, Xu et al. 2025, arXiv:2502.15681, theorem 1.) p is the teacher's law of x_σ, q the student's, s are their
scores. Reverse KL (DMD) weighs all samples alike and so never hears of what the student leaves out. The others listen
more where the teacher is the denser: they cover more, at the price of needing r.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scigen.errors import UserError

DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": torch.ones_like,  # f = −ln r: mode-seeking
    "jensen_shannon": lambda r: r / (1 + r),  # f = r ln r − (1 + r) ln((1 + r)/2): bounded weights
    "hellinger": torch.sqrt,  # f = 4 (1 − √r)
    "jeffreys": lambda r: 1 + r,  # f = (r − 1) ln r: both KLs
    "forward_kl": lambda r: r,  # f = r ln r: covers all modes
}
"""h(r) of each divergence."""

LARGEST_LOG_RATIO = 3.0
"""Beyond e^±3 a discriminator's ratio is not to be believed, and one sample would outweigh a batch."""


def check_divergence(name: str) -> str:
    """The name, if it is one of `DIVERGENCES`.

    Raises:
        UserError: if not.
    """
    if name not in DIVERGENCES:
        raise UserError(f"method.divergence={name!r} is not known: use one of {', '.join(DIVERGENCES)}.")
    return name


def ratio(logits: Tensor) -> Tensor:
    """r = p/q of samples of the student from a discriminator's logits (B, heads) (teacher against student): (B,).

    The best discriminator's logit is ln r; heads are averaged and clamped to ±`LARGEST_LOG_RATIO`. Since E_q r = 1,
    the batch is scaled to a mean of one, which takes out what the discriminator gets wrong as a whole.
    """
    r = logits.mean(1).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    return r / r.mean()
