"""The judgement in words: is a contender calibrated, and how does it compare."""

import numpy as np
import xarray as xr

from scigen.metrics.summary import excludes
from scigen.plots.style import labelled

CLOSE = 0.02
"""A spread so close to the error counts as right, however sure the difference is."""


def verdict(report: xr.Dataset) -> str:
    """A sentence on each ensemble: its spread where that is worst, its ranks, its skill against the reference's.

    Args:
        report: of `scigen.metrics.judging.evaluate`.
    """
    loud = [n for n in report.attrs["notes"] if n.startswith("COPIES")]
    chosen = str(report.attrs["reference"])
    lines = [_sentence(report.sel(model=m, group="all"), chosen) for m in report["model"].values]
    return "\n".join([*loud, *lines])


def _sentence(mine: xr.Dataset, chosen: str) -> str:
    name = labelled([str(mine["model"].item())], [float(mine["nfe"])])[str(mine["model"].item())]
    parts = [_spread(mine)]
    if str(mine["model"].item()) != chosen:
        parts.append(_skill(mine, chosen))
    return f"{name}: {'; '.join(p for p in parts if p)}."


def _spread(mine: xr.Dataset) -> str:
    """Calibrated, or by how much not."""
    if int(mine["members"]) < 2:
        return "a single member, whose calibration cannot be said"
    ratio = mine["value"].sel(score="spread_skill")
    known = ratio.sel(interval="estimate").dropna("variable")
    if not known.size:
        return "spread over error is undefined, because there is no error"
    at = str(known["variable"].values[int(np.abs(np.log(np.maximum(known.values, 1e-9))).argmax())])
    estimate, low, high = (float(v) for v in ratio.sel(variable=at))
    told = f"spread–skill {estimate:.3f}" + (f" [{low:.3f}–{high:.3f}]" if np.isfinite(low) else "")
    where = f", {at}" if mine.sizes["variable"] > 1 else ""
    off = 100 * abs(estimate - 1)
    sure = excludes(low, high, 1.0)
    p = float(mine["rank_p"].min())
    ranks = (
        ""
        if np.isnan(p)
        else f", ranks {'not flat' if p < 0.01 else 'flat'} (p {'< 0.001' if p < 1e-3 else f'= {p:.2g}'})"
    )
    if abs(estimate - 1) <= CLOSE or sure is False:
        word = "calibrated" if not p < 0.01 else "spread is right, but ranks are not"
        return f"{word} ({told}{ranks}{where})"
    kind = "under-dispersed" if estimate < 1 else "over-dispersed"
    return f"{kind} by {off:.2g} % ({told}{ranks}{where})"


def _skill(mine: xr.Dataset, chosen: str) -> str:
    """Fair CRPS against the reference, where it is worst."""
    ratio = mine["against"].sel(score="crps")
    known = ratio.sel(interval="estimate").dropna("variable")
    if not known.size:
        return ""
    at = str(known.idxmax("variable").item())
    estimate, low, high = (float(v) for v in ratio.sel(variable=at))
    where = f" in {at}" if mine.sizes["variable"] > 1 else ""
    told = f"fair CRPS {estimate:.3f} × that of {chosen}{where}"
    sure = excludes(low, high, 1.0)
    if sure is None:
        return told
    word = "no certain difference" if not sure else "certainly worse" if estimate > 1 else "certainly better"
    return f"{told} [{low:.3f}–{high:.3f}], {word}"
