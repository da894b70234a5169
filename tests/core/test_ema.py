"""Power-function averages: closed form, width, reconstruction of other widths, precision."""

import numpy as np
import pytest
import torch
from torch import nn

from scigen.core.ema import PowerEMA, Snapshot, combination, gamma, overlap, reconstruct
from scigen.errors import UserError


class Weight(nn.Module):
    def __init__(self, value: float, dtype=torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), value, dtype=dtype))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


def run(path, widths) -> tuple[PowerEMA, dict]:
    """Average a path of weights; returns the averages and snapshots at each step."""
    module = Weight(0.0)
    ema, kept = PowerEMA(module, widths), {}
    for step, value in enumerate(path, 1):
        module.weight.data.fill_(value)
        module.count += 1
        ema.update(module)
        kept[step] = [
            Snapshot(step, w, {k: v.clone() for k, v in m.state_dict().items()})
            for w, m in zip(ema.widths, ema.means, strict=True)
        ]
    return ema, kept


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25])
def test_gamma_is_the_inverse_of_the_width(width):
    g = gamma(width)
    assert ((g + 1) / ((g + 2) ** 2 * (g + 3))) ** 0.5 == pytest.approx(width, rel=1e-10)


@pytest.mark.parametrize("width", [0.0, 0.3, -1.0])
def test_a_width_that_no_average_has_is_refused(width):
    with pytest.raises(UserError, match="width"):
        gamma(width)


@pytest.mark.parametrize(("width", "published"), [(0.05, 16.97), (0.10, 6.94)])
def test_gamma_is_the_published_one(width, published):
    assert gamma(width) == pytest.approx(published, abs=5e-3)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_average_has_the_weights_of_the_power_function(width):
    """θ(τ) = τ: the average is t (γ+1)/(γ+2) in the continuum, and its relative width is σ_rel."""
    n = 4000
    ema, _ = run(range(1, n + 1), [width])
    g = gamma(width)
    assert float(ema.average().weight) == pytest.approx(n * (g + 1) / (g + 2), rel=2e-3)
    square, _ = run([k * k for k in range(1, n + 1)], [width])
    spread = (float(square.average().weight) - float(ema.average().weight) ** 2) ** 0.5 / n
    assert spread == pytest.approx(width, rel=1e-2)


def test_the_beginning_is_forgotten_and_the_first_update_is_a_copy():
    ema, kept = run([1e3] + [1.0] * 200, [0.1])
    assert float(kept[1][0].weights["weight"]) == 1e3
    assert float(ema.average().weight) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("pair", [((100, 5.0), (100, 5.0)), ((60, 17.0), (100, 7.0)), ((100, 0.5), (30, 9.0))])
def test_overlap_is_the_integral_of_the_two_weights(pair):
    (a, p), (b, q) = pair
    tau = (np.arange(200000) + 0.5) / 200000 * min(a, b)
    product = (p + 1) * tau**p / a ** (p + 1) * (q + 1) * tau**q / b ** (q + 1)
    assert overlap(a, p, b, q) == pytest.approx(product.mean() * min(a, b), rel=1e-4)


@pytest.mark.parametrize("wanted", [0.04, 0.07, 0.15])
def test_another_width_is_reconstructed_from_snapshots(wanted):
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.standard_normal(2000)) * 0.05 + 3
    _, kept = run(path, [0.05, 0.10])
    snapshots = [s for step in range(125, 2001, 125) for s in kept[step]]
    true, _ = run(path, [wanted])
    got = float(reconstruct(snapshots, wanted)["weight"])
    apart = max(abs(float(s.weights["weight"]) - float(true.average().weight)) for s in kept[2000])
    assert abs(got - float(true.average().weight)) < 0.1 * apart
    assert got == pytest.approx(float(true.average().weight), abs=0.02)


def test_a_kept_width_is_reconstructed_as_itself():
    _, kept = run(np.linspace(0, 1, 64), [0.05, 0.10])
    snapshots = [s for step in (16, 32, 48, 64) for s in kept[step]]
    assert np.allclose(combination([(s.step, s.width) for s in snapshots], 64, 0.10), [0] * 7 + [1], atol=1e-5)
    torch.testing.assert_close(reconstruct(snapshots, 0.10)["weight"], kept[64][1].weights["weight"], rtol=1e-5, atol=0)
    with pytest.raises(UserError, match="snapshots up to there"):
        reconstruct(snapshots, 0.1, step=65)


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("wanted", [0.03, 0.07, 0.2])
def test_a_constant_weight_stays_what_it_is(count, wanted):
    steps = [125 * k for k in range(1, count + 1)]
    factors = combination([(s, w) for s in steps for w in (0.05, 0.10)], steps[-1], wanted)
    assert factors.sum() == pytest.approx(1.0, abs=1e-9)


def test_buffers_that_never_change_are_copied_to_the_bit():
    _, kept = run(np.linspace(0, 1, 64), [0.05, 0.10])
    third = torch.tensor([1 / 3], dtype=torch.float64)
    snapshots = [Snapshot(s.step, s.width, {**s.weights, "fixed": third}) for n in (16, 32, 48, 64) for s in kept[n]]
    assert torch.equal(reconstruct(snapshots, 0.2)["fixed"], third)


def test_averages_are_float32_of_a_bfloat16_module_and_do_not_freeze():
    module = Weight(1.0, torch.bfloat16)
    ema = PowerEMA(module, [0.1])
    for _ in range(500):
        ema.update(module)
    module.weight.data.fill_(1.0078125)  # the next number of bfloat16
    ema.update(module)
    assert ema.average().weight.dtype == torch.float32
    assert 1.0 < float(ema.average().weight) < 1.0078125


def test_buffers_are_copied_nothing_is_trained_and_the_count_survives_a_reload():
    ema, _ = run([1.0, 2.0, 3.0], [0.1])
    assert int(ema.average().count) == 3
    assert not any(p.requires_grad for p in ema.parameters())
    other = PowerEMA(Weight(0.0), [0.1])
    other.load_state_dict(ema.state_dict())
    module = Weight(5.0)
    ema.update(module)
    other.update(module)
    assert float(ema.average().weight) == float(other.average().weight) and int(other.steps) == 4
