"""Sampling: how a trained model is sampled by default, as its bundle says it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from scigen.core import sample
from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.noise import check_levels, karras_sigmas
from scigen.errors import UserError


@dataclass(frozen=True)
class Rule:
    """What is known of a sampler.

    Attributes:
        run: the function of `scigen.core.sample`.
        calls: number of network calls for n levels.
        noises: number of fresh noises for n levels, beside the one that sampling starts from.
        first: whether every level stands for itself, so that fewer steps take the first of a student's own levels.
        two_times: whether it samples a flow map.
        options: the numbers that it can be given.
    """

    run: Callable[..., Tensor]
    calls: Callable[[int], int] = lambda n: n
    noises: Callable[[int], int] = lambda n: 0
    first: bool = False
    two_times: bool = False
    options: tuple[str, ...] = ()


SAMPLERS: dict[str, Rule] = {
    "euler": Rule(sample.euler),
    "heun": Rule(sample.heun, calls=lambda n: 2 * n - 1),
    "dpm_solver": Rule(sample.dpm_solver),
    "unipc": Rule(sample.unipc),
    "ipndm": Rule(sample.ipndm),
    "churn": Rule(
        sample.churn,
        calls=lambda n: 2 * n - 1,
        noises=lambda n: n,
        options=("s_churn", "s_noise", "s_min", "s_max"),
    ),
    "few_step": Rule(sample.few_step, noises=lambda n: n - 1, first=True),
    "mean": Rule(sample.mean, calls=lambda n: 1),
    "flow_map": Rule(sample.flow_map, two_times=True),
}


@dataclass(frozen=True)
class Sampling:
    """How a bundle is sampled by default.

    Attributes:
        sampler: function of `scigen.core.sample`: euler, heun, dpm_solver, unipc, ipndm or churn for teachers;
            few_step, euler or flow_map for students; mean for a network that estimates the mean.
        sigmas: decreasing levels.
        rho: ρ of the grid, for another number of steps than the default (ODE samplers and flow maps).
        options: more numbers that the sampler takes (churn: s_churn, s_noise, s_min, s_max).
        trained: whether the levels are those that a student was trained for.
        sigma_min: where grids of another number of steps end; the last of `sigmas` if None.
    """

    sampler: str
    sigmas: tuple[float, ...]
    rho: float = 7.0
    options: Mapping[str, float] = field(default_factory=dict)
    trained: bool = False
    sigma_min: float | None = None

    def __post_init__(self) -> None:
        """Check name, levels and options; numbers become floats."""
        object.__setattr__(self, "sigmas", tuple(check_levels(self.sigmas)))
        if self.sampler not in SAMPLERS:
            raise UserError(f"Unknown sampler {self.sampler!r}: use one of {', '.join(SAMPLERS)}.")
        own = SAMPLERS[self.sampler].options
        for name, value in self.options.items():
            if name not in own:
                raise UserError(f"Sampler {self.sampler} takes {', '.join(own) or 'no options'}, not {name}={value!r}.")
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"sampler.options.{name}={value!r} must be a finite number.")
        object.__setattr__(self, "options", {str(k): float(v) for k, v in self.options.items()})

    @classmethod
    def solver(
        cls,
        sampler: str,
        steps: int,
        sigma_min: float,
        sigma_max: float,
        rho: float = 7.0,
        options: Mapping[str, float] | None = None,
    ) -> "Sampling":
        """A teacher's sampler on Karras' grid of this many levels."""
        grid = karras_sigmas(steps, sigma_min, sigma_max, rho)
        return cls(sampler, tuple(float(s) for s in grid), rho, dict(options or {}))

    @property
    def two_times(self) -> bool:
        """Whether it samples a flow map."""
        return SAMPLERS[self.sampler].two_times

    @property
    def jumps(self) -> bool:
        """Whether a call leads from noise to a sample, not a step along an ODE."""
        rule = SAMPLERS[self.sampler]
        return rule.first or rule.two_times

    @property
    def own_steps(self) -> tuple[int, ...]:
        """The numbers of steps up to the default one that can be asked for; of a flow map's, 1, 2 and 4 at least."""
        n = len(self.sigmas)
        rule = SAMPLERS[self.sampler]
        if rule.two_times and self.sigma_min is not None:
            return tuple(sorted({1, 2, 4, n}))
        return (n,) if self.trained and not (rule.first or rule.two_times) else tuple(range(1, n + 1))

    def grid(self, steps: int | None = None) -> list[float]:
        """The levels for this many steps (the default number if None).

        A student of few_step takes the first of its own levels; one that was trained along whole steps of an ODE
        sampler takes all of them, since its output before the last one is no sample. An untrained sampler, or a flow
        map, with another number than its own takes the first levels of a grid with one more: with a few steps a level
        at σ_min would be a call for nothing.

        Raises:
            UserError: if a student was not trained for so many steps, or there is no range to place them in.
        """
        n = len(self.sigmas)
        if steps is None or steps == n:
            return list(self.sigmas)
        rule = SAMPLERS[self.sampler]
        if rule.first or (self.trained and not rule.two_times):
            if steps not in self.own_steps:
                can = f"1 to {n}" if rule.first else str(n)
                raise UserError(f"This student takes {can} steps, not steps={steps}.")
            return list(self.sigmas[:steps])
        if steps < 1:
            raise UserError(f"steps={steps} must be at least 1.")
        if steps == 1:
            return [self.sigmas[0]]
        low = self.sigmas[-1] if self.sigma_min is None else self.sigma_min
        if low >= self.sigmas[0]:
            raise UserError(
                f"This model is sampled from one level, σ = {self.sigmas[0]:g}: steps={steps} has no range."
            )
        return [float(s) for s in karras_sigmas(steps + 1, low, self.sigmas[0], self.rho)[:steps]]

    def calls(self, steps: int | None = None) -> int:
        """Network calls per member."""
        return SAMPLERS[self.sampler].calls(len(self.grid(steps)))

    def noises(self, levels: int) -> int:
        """Fresh noises for so many levels, beside the one that sampling starts from; 0 for deterministic samplers."""
        return SAMPLERS[self.sampler].noises(levels)

    def run(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        sigmas: Sequence[float],
        condition: Condition | None = None,
        noises: Sequence[Tensor] = (),
    ) -> Tensor:
        """Sample on these levels, with the options: arguments as for every sampler (`scigen.core.sample.Sampler`)."""
        return SAMPLERS[self.sampler].run(denoiser, x, sigmas, condition, noises, **self.options)
