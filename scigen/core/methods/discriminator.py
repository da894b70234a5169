"""Discriminator: small convolutional heads on features that a denoiser computes of noised samples.

The denoiser, a frozen teacher or a student's fake score, is given with every call, with the condition; its weights are
never trained from here, but gradients pass through it to the samples (DMD2, arXiv:2405.14867, section 4.3; LADD,
arXiv:2403.12015). The feature "output" is the denoised field itself and serves any denoiser.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.denoise import Condition
from scigen.errors import UserError

OUTPUT = "output"
_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def features(
    source: nn.Module, taps: Sequence[str], x: Tensor, sigma: Tensor, condition: Condition | None
) -> list[Tensor]:
    """What the submodules named by `taps` give while `source` denoises x: one tensor (B, C', *S') a tap, in order.

    Args:
        source: a denoiser.
        taps: names of its submodules as in `named_modules`, or "output" for the denoised field.
        x: noised samples, (B, C, *S).
        sigma: their levels, (B,).
        condition: batch first.

    Raises:
        UserError: for a name that the denoiser does not have, or one that gives no field.
    """
    modules = dict(source.named_modules())
    unknown = [t for t in taps if t != OUTPUT and t not in modules]
    if unknown:
        raise UserError(
            f"method.taps: {unknown} are no submodules of {type(source).__name__}; one is {list(modules)[-1]!r}."
        )
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, args, out: found.__setitem__(name, out)

    handles = [modules[t].register_forward_hook(keep(t)) for t in taps if t != OUTPUT]
    try:
        found[OUTPUT] = source(x, sigma, condition)
    finally:
        for handle in handles:
            handle.remove()
    wrong = [t for t in taps if not (isinstance(found.get(t), Tensor) and found[t].ndim == x.ndim)]
    if wrong:
        raise UserError(f"method.taps: {wrong} give no field of {x.ndim} dims when the denoiser is called; use others.")
    return [found[t] for t in taps]


@torch.no_grad()
def bottleneck(source: nn.Module, x: Tensor, sigma: Tensor, condition: Condition | None) -> str:
    """The submodule to tap by default: the last to give a field of the smallest size; "output" if there is none."""
    best, least = OUTPUT, math.inf
    sizes: list[tuple[str, int]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == x.ndim and len(out) == len(x):
                sizes.append((name, math.prod(out.shape[2:])))

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in source.named_modules() if n]
    try:
        source(x, sigma, condition)
    finally:
        for handle in handles:
            handle.remove()
    for name, size in sizes:
        if size <= least:
            best, least = name, size
    return best


class Head(nn.Module):
    """Features and noise level to one logit: conv, FiLM of ln σ, conv of stride 2, mean over space, linear."""

    scale: Tensor

    def __init__(self, channels: int, space: int, scale: float, width: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.embed = nn.Sequential(nn.Linear(7, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.first: nn.Module
        self.second: nn.Module
        if space:
            conv = _CONV[space]
            self.first, self.second = conv(channels, width, 3, padding=1), conv(width, width, 3, stride=2, padding=1)
        else:
            self.first, self.second = nn.Linear(channels, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)  # starts undecided: logit 0, ratio 1
        nn.init.zeros_(self.last.bias)

    def forward(self, feature: Tensor, sigma: Tensor) -> Tensor:
        """(B, C', *S'), sigma (B,) to (B,)."""
        log = 0.25 * sigma.to(feature).log()[:, None]
        waves = log * log.new_tensor([1.0, 2.0, 4.0])
        embedding = self.embed(torch.cat([log, waves.sin(), waves.cos()], 1))
        gain, shift = embedding.reshape(len(feature), -1, *[1] * (feature.ndim - 2)).chunk(2, 1)
        h = functional.silu(self.first(feature / self.scale.to(feature)) * (1 + gain) + shift)
        h = functional.silu(self.second(h))
        return self.last(h.flatten(2).mean(2) if h.ndim > 2 else h)[:, 0]


class Discriminator(nn.Module):
    """Tells noised samples of the teacher (large logits) from the student's; the best logit is ln p/q.

    Attributes:
        taps: names of the features that it reads, one head each.
    """

    def __init__(
        self,
        source: nn.Module,
        taps: Sequence[str] | None,
        x: Tensor,
        sigma: Tensor,
        condition: Condition | None,
        width: int = 32,
    ) -> None:
        """Build heads that fit what the source computes of a first batch, on its device and in its precision.

        Args:
            source: the denoiser whose features it reads; not kept.
            taps: see `features`; the bottleneck if None.
            x: noised samples, (B, C, *S).
            sigma: their levels, (B,).
            condition: batch first.
            width: channels of the heads.

        Raises:
            UserError: for taps that do not fit, an empty list included.
        """
        super().__init__()
        self.taps = (bottleneck(source, x, sigma, condition),) if taps is None else tuple(taps)
        if not self.taps:
            raise UserError('method.taps=[] leaves the discriminator nothing to read: name features, or "output".')
        with torch.no_grad():
            first = features(source, self.taps, x, sigma, condition)
        self.heads = nn.ModuleList(
            Head(f.shape[1], f.ndim - 2, float(f.float().square().mean().sqrt().clamp_min(1e-6)), width) for f in first
        ).to(device=x.device, dtype=x.dtype)

    def forward(self, source: nn.Module, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """Logits (B, heads) of noised samples x (B, C, *S) at levels sigma (B,), seen through the source."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):  # the source's weights are not ours
            found = features(source, self.taps, x, sigma, condition)
        with torch.autocast(x.device.type, enabled=False):  # a penalty is a small difference of two logits
            return torch.stack([head(f.to(x.dtype), sigma) for head, f in zip(self.heads, found, strict=True)], 1)
