"""Sampling: how a trained model is sampled by default, as its bundle says it."""

from dataclasses import dataclass

from scigen.core.noise import check_levels, karras_sigmas
from scigen.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a bundle is sampled by default.

    Attributes:
        sampler: function of `scigen.core.sample`: euler, heun, dpm_solver for teachers, few_step for students.
        sigmas: decreasing levels; a student of k steps uses the first k of its own.
        rho: ρ of the grid, for another number of steps than the default (ODE samplers).
    """

    sampler: str
    sigmas: tuple[float, ...]
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Check name and levels."""
        check_levels(self.sigmas)
        if self.sampler not in ("euler", "heun", "dpm_solver", "few_step"):
            raise UserError(f"Unknown sampler {self.sampler!r}: use euler, heun, dpm_solver or few_step.")

    @classmethod
    def solver(cls, sampler: str, steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> "Sampling":
        """An ODE sampler on Karras' grid of this many levels."""
        return cls(sampler, tuple(float(s) for s in karras_sigmas(steps, sigma_min, sigma_max, rho)), rho)

    def grid(self, steps: int | None = None) -> list[float]:
        """The levels for this many steps (the default number if None).

        An ODE sampler with another number than its own takes the first levels of a grid with one more: with a few steps
        a level at σ_min would be a call for nothing.

        Raises:
            UserError: if a student was not trained for so many steps.
        """
        if steps is None or steps == len(self.sigmas):
            return list(self.sigmas)
        if self.sampler == "few_step":
            if not 1 <= steps <= len(self.sigmas):
                raise UserError(f"This student takes 1 to {len(self.sigmas)} steps, not steps={steps}.")
            return list(self.sigmas[:steps])
        return [float(s) for s in karras_sigmas(steps + 1, self.sigmas[-1], self.sigmas[0], self.rho)[:steps]]
