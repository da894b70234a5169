"""Scores from sums: roots and ratios are taken last, of the means of statistics that average."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scigen.metrics.tally import Plan, Tally

Array = NDArray[np.float64]

COMPARED = {
    "crps": "ratio",
    "rmse": "ratio",
    "mae": "ratio",
    "bias": "difference",
    "spread_skill": "difference",
    "coverage": "difference",
    "brier": "ratio",
    "energy": "ratio",
    "variogram": "ratio",
    "spectrum": "difference",
    "diversity": "ratio",
}
"""How a score of one contender is held against that of another; more for each level and threshold."""

ENSEMBLE = ("spread", "spread_skill", "coverage", "diversity")
"""Scores that one member cannot have."""


def columns(tally: Tally, plan: Plan, group: int) -> dict[str, Array]:
    """Sums over the fields of each sample that belong to a group: (N,) or (N, bands) by statistic."""
    chosen = plan.groups[group]
    picked = chosen.cases[tally.index].astype(np.float64)
    out = {}
    for key, values in tally.series.items():
        regional = key not in ("patches", "energy", "variogram", "copies", "power", "power_truth", "fields")
        if not regional and chosen.region:
            continue
        values = values[..., chosen.region] if regional else values
        out[key] = np.einsum("ne,ne...->n...", picked, values)
    return out


def scores(sums: Mapping[str, Array], plan: Plan, climate: float) -> dict[str, Array]:
    """Scores from sums of `columns` (…): over samples, or over resampled ones.

    Args:
        sums: by statistic, (…) or (…, bands).
        plan: that they were counted by.
        climate: standard deviation of the truth over samples [units].

    Returns:
        (…) by score, in units of the variable: crps, bias, mae, rmse, spread, energy, variogram (to the power of one);
        spread_skill, coverage of each level, brier (fair) of each threshold, spectrum (log-spectral distance, dB), and
        diversity, the spread over the climate's.
    """
    scale, count = plan.scale, plan.members
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = sums["weight"]
        out = {
            "crps": sums["crps"] / weight * scale,
            "bias": sums["error"] / weight * scale,
            "mae": sums["absolute_error"] / weight * scale,
            "rmse": np.sqrt(sums["squared_error"] / weight) * scale,
        }
        if count > 1:
            out["spread"] = np.sqrt(sums["variance"] / weight) * scale
            out["spread_skill"] = np.sqrt(sums["variance"] / sums["squared_error"] * (count + 1) / count)
            out["diversity"] = out["spread"] / climate
            for i, level in enumerate(plan.levels):
                out[f"coverage {level:g}"] = sums[f"cover{i}"] / weight
        for i, event in enumerate(plan.events):
            out[f"brier {event}"] = sums[f"brier{i}"] / weight
        if "energy" in sums:
            out["energy"] = sums["energy"] / sums["patches"] * scale
        if "variogram" in sums:
            out["variogram"] = sums["variogram"] / sums["patches"] * scale
        if "power" in sums:
            apart = 10 * np.log10(sums["power"] / sums["power_truth"])
            known = np.isfinite(apart)
            out["spectrum"] = np.sqrt(np.where(known, apart**2, 0).sum(-1) / known.sum(-1))
    return {k: np.where(np.isfinite(v), v, np.nan) for k, v in out.items()}


def compared(score: str) -> str | None:
    """Whether a score is compared by its ratio or its difference; None where it is not."""
    return COMPARED.get(score.split(" ")[0])
