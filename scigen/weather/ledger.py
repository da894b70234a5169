"""The ledger of a student on the synthetic climate, where the law of every mode is known.

Spread is told by wavenumber: the power of the members' deviations from their ensemble's mean. The modes of the exact
posterior are no waves, since the block means are given; so what is foretold of a mode is laid out over the wavenumbers
that it is made of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.ledger import (
    Array,
    Ledger,
    account,
    chain,
    consistency_gain,
    flow_gain,
    prior_variance,
    regression_gain,
    sampled_variance,
)
from scigen.core.methods.consistency import ect_neighbour
from scigen.core.noise import karras_sigmas
from scigen.core.sampling import Sampling
from scigen.metrics.spectra import power_spectrum
from scigen.weather.exact import Posterior

SMALL = 1e-10
"""Modes with less than this share of the largest variance are those that the block means tell."""

CONTINUOUS = ("scm", "tcm", "flow_map")
"""Methods whose fixed point is the exact flow."""


def ledgers(
    posterior: Posterior, teacher: Bundle, student: Bundle, samples: Mapping[str, xr.Dataset]
) -> dict[str, Ledger]:
    """The ledger of one student, by variable.

    Args:
        posterior: the exact law.
        teacher: with its converged sampler.
        student: with its default number of steps.
        samples: "teacher" and "student", dims (time, member, Y, X), and "reduced" where it is used in less precision.
    """
    modes = posterior.oracle.variance.double().numpy()
    kept = np.flatnonzero(modes > SMALL * modes.max())
    variance = modes[kept]
    law, solver, words = method_law(variance, teacher.sampling, student.sampling, method_of(student.provenance))
    waves, weight = _waves(posterior, kept)
    measured = {who: spread(ds, list(posterior.codec.variables)) for who, ds in samples.items()}
    return {
        name: account(
            waves, weight[c].__matmul__, variance, teacher.sampling, law, solver=solver, words=words,
            teacher_measured=measured["teacher"][c], student_measured=measured["student"][c],
            reduced_measured=measured["reduced"][c] if "reduced" in measured else None,
        )
        for c, name in enumerate(posterior.codec.variables)
    }  # fmt: skip


def method_of(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name (`_target_`) and settings of a student's method, the last of its chain, from what the bundle tells."""
    config, name = provenance.get("config", {}), provenance.get("method", "")
    chain_ = [*reversed(config.get("then", {}).values()), config.get("method", {})]
    return next((m for m in chain_ if str(m.get("_target_", "")).split(".")[-2:][:1] == [name]), {})


def method_law(
    variance: Array, teacher: Sampling, student: Sampling, method: Mapping[str, Any]
) -> tuple[Array, bool, str]:
    """What a method ends with, mode by mode; whether the solver's share is in it; and the law in words.

    Args:
        variance: λ, positive, (n,).
        teacher: its converged sampler.
        student: its sampler.
        method: name (`_target_`) and settings.
    """
    name = str(method.get("_target_", "")).split(".")[-2:][0]
    if student.two_times:
        return prior_variance(variance, student.sigmas[0]), False, "the exact flow map leaves the spread as it is"
    if name == "regression":
        gain = regression_gain(teacher, variance, student.sigmas)
        return sampled_variance(student, gain), True, "regression inherits the spread of the solver's end points"
    if name == "consistency":
        heun, mixing = bool(method.get("heun", True)), float(method.get("mixing", 0.0))
        gain = consistency_gain(variance, _levels(method, student.sigmas[0]), heun, mixing)
        each = f"{'Heun' if heun else 'Euler'}'s gain" if mixing < 1 else "Euler's gain (√ρ of the variance)"
        return sampled_variance(student, gain), False, f"consistency leaves the product of {each} over its steps"
    words = (
        "the fixed point is the exact flow" if name in CONTINUOUS else "no law is known; the exact flow stands for it"
    )
    return sampled_variance(student, flow_gain(variance)), False, f"{name or 'unknown'}: {words}"


def _levels(method: Mapping[str, Any], top: float) -> list[float]:
    """The levels of the last stage of consistency training."""
    low = float(method["sigma_min"])
    if method.get("ratios"):
        ratio = float(method["ratios"][-1])
        return chain(top, lambda s: float(ect_neighbour(torch.tensor(s, dtype=torch.float64), ratio, low)))
    return [float(s) for s in karras_sigmas(int(method["levels"][-1]), low, top, float(method["rho"]))]


def _waves(posterior: Posterior, kept: np.ndarray) -> tuple[np.ndarray, Array]:
    """Wavenumbers (K,), and the power at each of modes of unit variance, (C, K, modes) in squared physical units."""
    codec, count = posterior.codec, len(posterior.oracle.variance)
    residual = codec.statistics.residual
    assert residual is not None
    parts = []
    for low in range(0, len(kept), 256):
        own = kept[low : low + 256]
        unit = torch.zeros(len(own), count, dtype=torch.float64)
        unit[torch.arange(len(own)), torch.from_numpy(own)] = 1.0
        fields = posterior.oracle.from_modes(unit).numpy() * residual[1][:, None, None]
        wavenumber, power = power_spectrum(fields)
        parts.append(power)
    return wavenumber, np.moveaxis(np.concatenate(parts), 0, -1)


def spread(samples: xr.Dataset, variables: Sequence[str]) -> Array:
    """Power of members' deviations from their mean, unbiased, averaged over times: (variables, K) [units²]."""
    out = []
    for name in variables:
        total = np.zeros(1)
        for time in range(samples.sizes["time"]):
            members = np.asarray(samples[name].isel(time=time).values, np.float64)
            own = power_spectrum(members - members.mean(0))[1].sum(0) / (len(members) - 1)
            total = total + own
        out.append(total / samples.sizes["time"])
    return np.array(out)
