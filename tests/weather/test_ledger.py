"""On the synthetic climate the ledger foretells the spread of students, variable by variable, within three percent."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.methods.consistency import teacher_step
from scigen.core.noise import karras_sigmas
from scigen.core.sampling import SAMPLERS, Sampling
from scigen.core.trace import through, trace
from scigen.weather.domain import Weather
from scigen.weather.ledger import ledgers, method_of, spread

HOME, TIMES, MEMBERS = 40.0, 6, 40


@pytest.fixture(scope="module")
def climate(tmp_path_factory):
    """The exact posterior of a small climate, in modes, and its data."""
    domain = Weather(synth={"size": 16, "times": 120, "step_hours": 12, "seed": 0}, factor=4)
    data = domain.open(tmp_path_factory.mktemp("data"))
    posterior = domain._posterior(data.codec, data.test)
    return posterior, data.test


def archive(posterior, modes):
    """Members of the residual about their common mean, as an archive: modes (times, members, n)."""
    codec = posterior.codec
    scale = codec.statistics.residual[1][:, None, None]
    fields = posterior.oracle.from_modes(modes.reshape(-1, modes.shape[-1])).numpy() * scale
    fields = fields.reshape(*modes.shape[:2], *codec.shape)
    dims = ("time", "member", "latitude", "longitude")
    return xr.Dataset({name: (dims, fields[:, :, c]) for c, name in enumerate(codec.variables)})


def told(method, sampling, **settings):
    """What the ledger reads of a student's bundle."""
    config = {"method": {"_target_": f"scigen.core.methods.{method}.X", **settings}}
    return SimpleNamespace(sampling=sampling, provenance={"method": method, "config": config})


def noise(count, modes, seed):
    return torch.randn(
        TIMES * MEMBERS, modes, count, generator=torch.Generator().manual_seed(seed), dtype=float
    ).unbind(-1)


@pytest.mark.parametrize("method", ["regression", "consistency"])
def test_linear_students_have_the_spread_that_was_foretold(climate, method):
    """Students of many modes, fitted by least squares to what their method shows them; sampled from two levels."""
    posterior, _ = climate
    variance = posterior.oracle.variance.clamp_min(0)
    kept = variance > 1e-10 * variance.max()
    modes = len(variance)

    def exact(x, sigma, condition=None):
        return torch.where(kept, variance / (variance + sigma[:1] ** 2), 0.0) * x

    teacher = Sampling.solver("euler" if method == "regression" else "dpm_solver", 14, 0.05, HOME)
    start, *fresh = noise(3, modes, 0)
    gain = {}
    if method == "regression":
        levels = (HOME, 1.5)
        grid = through(teacher.sigmas, levels[1:])
        end, states = trace(SAMPLERS["euler"].run, exact, HOME * start, grid, None, levels[1:])
        for level, state in zip(levels, [HOME * start, *states], strict=True):
            gain[level] = (state * end).mean(0) / state.square().mean(0)
        student = told("regression", Sampling("few_step", levels, trained=True), sigmas=list(levels))
    else:
        levels = [float(s) for s in karras_sigmas(8, 0.05, HOME, 7.0)]
        for now, then in reversed(list(zip(levels, [*levels[1:], 0.0], strict=True))):
            x = variance.sqrt() * kept * start + now * fresh[0]
            t, r = (torch.full((len(x),), s, dtype=torch.float64) for s in (now, then))
            below = teacher_step(exact, x, t, r, None)
            goal = below if then == 0 else gain[then] * below
            gain[now] = (x * goal).mean(0) / x.square().mean(0)
        settings = {"sigma_min": 0.05, "levels": [4, 8], "rho": 7.0, "heun": True, "mixing": 0.0}
        student = told("consistency", Sampling("few_step", (levels[0], levels[3]), trained=True), **settings)
    own, *rest = noise(2, modes, 1)
    sigmas = student.sampling.sigmas
    made = student.sampling.run(lambda x, s, c: gain[float(s[0])] * x, HOME * own, sigmas, None, rest)
    taught = teacher.run(exact, HOME * own, teacher.sigmas)
    shaped = {
        k: archive(posterior, (kept * v).reshape(TIMES, MEMBERS, -1))
        for k, v in (("teacher", taught), ("student", made))
    }
    found = ledgers(posterior, SimpleNamespace(sampling=teacher), student, shaped)
    assert set(found) == {"t2m", "u10", "v10"}
    for ledger in found.values():
        total = ledger.total
        assert np.sqrt(total["predicted"]) == pytest.approx(np.sqrt(total["measured"]), rel=0.03)
        assert np.sqrt(total["teacher"]) == pytest.approx(1, abs=0.03)  # an exact one adds nothing
        assert abs(np.sqrt(total["measured"]) - 1) > 0.03  # and the student is not exact
        names = [k for k, v in total.items() if k in ("solver", "law") and abs(np.sqrt(v) - 1) > 0.03]
        assert names == (["solver"] if method == "regression" else ["law"])


def test_the_spread_of_waves_adds_up_to_the_variance(climate):
    posterior, _ = climate
    rng = np.random.default_rng(0)
    modes = torch.from_numpy(rng.normal(size=(3, 5, len(posterior.oracle.variance))))
    ds = archive(posterior, modes)
    power = spread(ds, ["t2m"])[0].sum()
    whole = ds["t2m"] - ds["t2m"].mean(("latitude", "longitude"))
    assert power == pytest.approx(float(whole.var("member", ddof=1).mean()), rel=1e-9)


def test_the_method_is_the_last_of_its_chain():
    first, last = ({"_target_": "scigen.core.methods.regression.R", "pairs": n} for n in (1, 2))
    crps = {"_target_": "scigen.core.methods.crps.C"}
    config = {"method": first, "then": {"crps": crps, "again": last}}
    assert method_of({"config": config, "method": "regression"}) == last
    assert method_of({"config": config, "method": "crps"}) == crps
    assert method_of({}) == {}
