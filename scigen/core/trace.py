"""States on the way: what a solver passes at given levels while it goes from noise to a sample."""

from collections.abc import Sequence

from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.noise import check_levels
from scigen.core.sample import Sampler
from scigen.errors import UserError

SAME = 1e-6  # relative difference of levels that count as one


def through(grid: Sequence[float], levels: Sequence[float]) -> list[float]:
    """A solver's grid that also stops at these levels: the union, decreasing.

    Args:
        grid: decreasing levels; its ends stay.
        levels: levels between them.

    Raises:
        UserError: if a level lies outside the grid.
    """
    outside = [s for s in levels if not grid[-1] * (1 - SAME) <= s <= grid[0] * (1 + SAME)]
    if outside:
        raise UserError(
            f"The levels {outside} lie outside the teacher's grid, [{grid[-1]:g}, {grid[0]:g}]: its path does not pass"
            " there."
        )
    kept = [s for s in grid if not any(abs(s - level) <= SAME * s for level in levels)]
    return check_levels(sorted({*kept, *levels}, reverse=True))


def trace(
    solver: Sampler,
    denoiser: DenoiserLike,
    x: Tensor,
    grid: Sequence[float],
    condition: Condition | None,
    levels: Sequence[float],
) -> tuple[Tensor, list[Tensor]]:
    """Solve the probability-flow ODE and keep the states at some levels of the grid.

    The state at a level is what the solver shows the denoiser there, the last time where it does so more than once:
    Heun asks first with a prediction, then with the state itself. (A predictor-corrector that does not ask again, such
    as UniPC, shows its prediction, which differs from the state by a local error.)

    Args:
        solver: function of `scigen.core.sample`.
        denoiser: D(x, sigma (B,), condition).
        x: start, (B, C, *S), at level grid[0].
        grid: decreasing levels, with `levels` among them (see `through`).
        condition: batch first.
        levels: where states are kept.

    Returns:
        The end point (B, C, *S), and the states in the order of `levels`.
    """
    seen: dict[float, Tensor] = {}
    wanted = {float(s) for s in levels}

    def watched(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        level = float(sigma.flatten()[0])
        if level in wanted:
            seen[level] = x
        return denoiser(x, sigma, condition)

    end = solver(watched, x, grid, condition)
    missing = [s for s in levels if float(s) not in seen]
    if missing:
        raise ValueError(f"the solver never came to the levels {missing} on its grid {list(grid)}")
    return end, [seen[float(s)] for s in levels]
