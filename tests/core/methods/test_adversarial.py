"""Adversarial: the game's optimum in closed form, inputs as the sampler makes them, the anchor as regression has it."""

import math
from dataclasses import replace

import pytest
import torch

from scigen.core.methods.adversarial import Adversarial, discriminator_loss, generator_loss, r1_penalty
from scigen.core.methods.base import Batch, repeat
from scigen.core.methods.generating import anchor_loss, simulate
from scigen.core.methods.regression import level_weights, regression_loss
from scigen.core.oracle import Gaussian
from scigen.core.sample import few_step
from scigen.errors import UserError

F64 = torch.float64
X = torch.linspace(-15, 15, 30001, dtype=F64)


def density(mean: float, variance: torch.Tensor | float) -> torch.Tensor:
    variance = torch.as_tensor(variance, dtype=F64)
    return torch.exp(-0.5 * (X - mean) ** 2 / variance) / (2 * math.pi * variance).sqrt()


def slope_in_every_logit(logit: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Derivative of the discriminator's expected loss in d(x), at every x."""
    logit = logit.clone().requires_grad_()
    one = torch.zeros(1, dtype=F64)  # softplus(0) = ln 2: a constant beside each term
    total = sum(
        p[i] * discriminator_loss(logit[i : i + 1], one) + q[i] * discriminator_loss(one, logit[i : i + 1])
        for i in range(0, len(X), 1500)
    )
    (slope,) = torch.autograd.grad(total, logit)
    return slope


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.0, 1.0), (0.5, 2.5)])
def test_the_log_ratio_is_the_discriminators_optimum(mean, variance):
    p, q = density(mean, variance), density(0.0, 1.0)
    exact = (p / q).log()
    assert float(slope_in_every_logit(exact, p, q).abs().max()) < 1e-15
    if mean or variance != 1:
        assert float(slope_in_every_logit(-exact, p, q).abs().max()) > 1e-3  # with teacher and student swapped


def student_slope(a: float, variance: float, sigma: float = 0.7) -> float:
    """d/da of the student's expected loss against the best discriminator, x = a z, teacher N(0, variance)."""
    s2 = a**2 + sigma**2
    z = torch.linspace(-8, 8, 401, dtype=F64)
    weight = torch.exp(-0.5 * z**2)
    weight = weight / weight.sum()
    scale = torch.tensor(a, dtype=F64, requires_grad=True)
    x = s2**0.5 * z + (scale - a) * a * z / s2**0.5  # x_σ, moved with a by E[z | x_σ]
    logit = 0.5 * (math.log(s2 / (variance + sigma**2)) + x**2 * (1 / s2 - 1 / (variance + sigma**2)))
    each = torch.stack([generator_loss(v) for v in logit])
    return float(torch.autograd.grad((weight * each).sum(), scale)[0])


@pytest.mark.parametrize("variance", [0.2, 1.0, 4.0])
def test_students_gradient_vanishes_at_the_truth_and_leads_there_from_both_sides(variance):
    assert abs(student_slope(variance**0.5, variance)) < 1e-14
    assert student_slope(0.8 * variance**0.5, variance) < -1e-3
    assert student_slope(1.2 * variance**0.5, variance) > 1e-3


def test_losses_are_logistic():
    logits = torch.tensor([[-3.0, 0.0], [0.5, 40.0]], dtype=F64)
    torch.testing.assert_close(generator_loss(logits), -torch.sigmoid(logits).log().mean())
    expected = -torch.sigmoid(logits).log().mean() - (1 - torch.sigmoid(-logits)).log().mean()
    torch.testing.assert_close(discriminator_loss(logits, -logits), expected)
    assert float(discriminator_loss(torch.zeros(3), torch.zeros(5))) == pytest.approx(2 * math.log(2))


def penalty(discriminate, x: torch.Tensor, step: float, n: int = 20000) -> float:
    torch.manual_seed(0)
    rows = x.expand(n, -1)
    return float(r1_penalty(discriminate, rows, discriminate(rows), torch.full((n,), step, dtype=F64)).mean())


@pytest.mark.parametrize("step", [0.01, 0.1, 3.0])
def test_penalty_of_a_linear_discriminator_is_the_squared_gradient(step):
    g = torch.tensor([0.5, -2.0, 1.0], dtype=F64)
    found = penalty(lambda x: (x @ g)[:, None], torch.ones(1, 3, dtype=F64), step)
    assert found == pytest.approx(step**2 * float(g.square().sum()), rel=5 * (2 / 20000) ** 0.5)


def test_penalty_tends_to_the_squared_gradient_for_small_steps():
    x = torch.tensor([[0.3, -1.0]], dtype=F64, requires_grad=True)

    def d(x):
        return (x[:, :1] ** 3 + (2 * x[:, 1:]).sin()).exp()

    (g,) = torch.autograd.grad(d(x).sum(), x)
    exact = float(g.square().sum())
    errors = [abs(penalty(d, x.detach(), step) / step**2 / exact - 1) for step in (0.3, 0.03, 0.003)]
    assert errors[0] > 0.2 and errors[1] < 0.05 and errors[2] < 5 * (2 / 20000) ** 0.5


class Table(torch.nn.Module):
    """A linear student with a gain a level, noting what it is given."""

    sigma_data = 1.0

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.gain = torch.nn.Parameter(torch.tensor([0.1, 0.4, 0.6], dtype=F64)[: len(levels)])
        self.seen = []

    def forward(self, x, sigma, condition=None):
        self.seen.append((x.detach(), condition))
        where = (torch.tensor(self.levels, dtype=F64)[None] - sigma[:, None]).abs().argmin(1)
        return self.gain[where].reshape(-1, *[1] * (x.ndim - 1)) * x


LEVELS = (10.0, 2.0, 0.5)


def game(levels: tuple[float, ...] = LEVELS, **settings) -> Adversarial:
    oracle = Gaussian.stationary(torch.full((1, 6), 2.0, dtype=F64))
    method = Adversarial(Table(levels), oracle, levels, 0.1, 10.0, **settings)
    method.prepare(data())
    for head in method.discriminator.heads:
        torch.nn.init.normal_(head.last.weight)
    return method


def data(n: int = 4, pairs: bool = False, path: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(7)
    x, noise = (torch.randn(n, 1, 6, dtype=F64, generator=generator) for _ in range(2))
    states = torch.randn(n, 2, 1, 6, dtype=F64, generator=generator)
    return Batch(x, {"scalars": torch.arange(float(n))[:, None]}, noise if pairs else None, states if path else None)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_simulated_inputs_are_the_samplers_states(level):
    """The same noises: what few_step gives the student at its last of level + 1 calls."""
    start = torch.randn(5, 1, 6, dtype=F64, generator=torch.Generator().manual_seed(8))
    torch.manual_seed(9)
    got = simulate(Table(LEVELS), start, LEVELS, level, None)
    torch.manual_seed(9)
    noises = [torch.randn_like(start) for _ in range(level)]
    sampled = Table(LEVELS)
    few_step(sampled, LEVELS[0] * start, LEVELS[: level + 1], None, noises)
    torch.testing.assert_close(got, sampled.seen[-1][0], rtol=0, atol=0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_simulated_inputs_have_the_students_own_variance_not_the_teachers(level):
    torch.manual_seed(10)
    x = simulate(Table(LEVELS), torch.randn(40000, 1, dtype=F64), LEVELS, level, None)
    v = LEVELS[0] ** 2
    for gain, sigma in zip([0.1, 0.4][:level], LEVELS[1:], strict=False):
        v = gain**2 * v + sigma**2
    assert float(x.var()) == pytest.approx(v, rel=5 * (2 / 40000) ** 0.5)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_only_the_last_call_gets_a_gradient(level, monkeypatch):
    method = game()
    monkeypatch.setattr(method, "level", lambda: level)
    method.loss("student", data())["loss"].backward()
    assert (method.student.gain.grad != 0).tolist() == [i == level for i in range(3)]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_samples_are_made_from_simulated_inputs(level):
    method = game(members=2)
    torch.manual_seed(14)
    x = method.generate(data(), level)
    torch.manual_seed(14)
    start = torch.randn(8, 1, 6, dtype=F64)
    at = simulate(Table(LEVELS), start, LEVELS, level, None)
    torch.testing.assert_close(x, method.student.gain[level] * at, rtol=1e-14, atol=0)


def test_levels_are_drawn_evenly():
    method = game()
    torch.manual_seed(11)
    counts = torch.bincount(torch.tensor([method.level() for _ in range(3000)]))
    assert len(counts) == 3 and float((counts - 1000).abs().max()) < 5 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("turn", ["student", "discriminator"])
def test_members_share_their_samples_condition(turn, members):
    method, batch = game(members=members), data()
    seen = []
    method.teacher.register_forward_pre_hook(lambda _, args: seen.append(args[2]["scalars"]))
    method.loss(turn, batch)
    shared = repeat(batch.condition, members)["scalars"]
    assert all(torch.equal(c["scalars"], shared) for _, c in method.student.seen)
    assert torch.equal(seen[0], shared) and all(torch.equal(s, batch.condition["scalars"]) for s in seen[1:])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_student_learns_once_a_cycle_and_first(steps):
    method = game(discriminator_steps=steps)
    turns = [method.turn(i) for i in range(4 * (1 + steps))]
    assert turns[: 1 + steps] == ["student"] + ["discriminator"] * steps
    assert turns.count("student") == 4 and set(turns) == set(method.learners())


@pytest.mark.parametrize("turn", ["student", "discriminator"])
def test_a_turn_gives_its_learner_alone_a_gradient(turn):
    method = game(r1=1.0)
    method.loss(turn, data())["loss"].backward()
    moved = {k for k, m in method.learners().items() if any(p.grad is not None for p in m.parameters())}
    assert turn in moved and (moved == {turn} or turn == "student")  # through the heads to the student
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("pairs", [True, False])
def test_anchor_alone_is_regressions_loss(pairs):
    method, batch = game((10.0,), gan=0.0, anchor=0.3), data(pairs=pairs)
    found = method.loss("student", batch)
    if not pairs:
        assert "anchor" not in found and float(found["loss"].detach()) == 0
        return
    levels = torch.full((4,), 10.0, dtype=F64)
    each = regression_loss(method.student, 10 * batch.noise, batch.x, levels, batch.condition, torch.ones(4, dtype=F64))
    torch.testing.assert_close(found["loss"], 0.3 * each.mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("level", "path"), [(0, True), (1, True), (2, True), (1, False), (2, False)])
def test_anchor_meets_the_trajectory_where_the_step_trains(level, path):
    student, batch = Table(LEVELS), data(pairs=True, path=path)
    found = anchor_loss(student, batch, LEVELS, level)
    at = level if path else 0  # without states on the way, from the noise
    x = batch.path[:, at - 1] if at else 10 * batch.noise
    weight = level_weights(torch.tensor(LEVELS), 1.0)[at]
    expected = weight * (student.gain[at] * x - batch.x).square().mean((1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(student.seen[0][0], x, rtol=1e-14, atol=0)


def test_discriminator_judges_samples_noised_by_the_same_law_and_penalty_moves_the_noised():
    """A penalty of fixed level: what the source sees third is what it saw second, moved by α √(σ² + 1)."""
    method, seen = game(r1=1.0, r1_step=0.01), []
    batch = data(2000)
    method.teacher.register_forward_pre_hook(lambda _, args: seen.append(args[:2]))
    torch.manual_seed(12)
    method.loss("discriminator", replace(batch, x=0 * batch.x))
    (_, s0), (x, s1), (moved, s2) = seen
    for s in (s0, s1):
        quantiles = s.double().log().quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=F64))
        ends = torch.linspace(math.log(0.1), math.log(10.0), 5, dtype=F64)
        torch.testing.assert_close(quantiles, ends, rtol=0, atol=0.01)
    assert torch.equal(s1, s2)
    white = (moved - x) / (0.01 * (s1**2 + 1).sqrt())[:, None, None]
    assert float(white.var()) == pytest.approx(1, rel=5 * (2 / white.numel()) ** 0.5)
    assert float((x / s1[:, None, None]).var()) == pytest.approx(1, rel=5 * (2 / x.numel()) ** 0.5)


def test_penalty_law_fails_when_the_clean_sample_is_moved():
    """As where x₀ + α n meets the logits of x_σ: the penalty does not vanish with the step."""

    def d(x):
        return x.sin()

    clean = torch.zeros(20000, 1, dtype=F64)
    torch.manual_seed(13)
    noisy = clean + torch.randn_like(clean)
    step = torch.full((20000,), 1e-3, dtype=F64)
    right = float(r1_penalty(d, noisy, d(noisy), step).mean())
    wrong = float(r1_penalty(d, clean, d(noisy), step).mean())
    assert right < 1e-5 and wrong > 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(members=0), "members=0"),
        (dict(anchor=-1.0), "anchor"),
        (dict(discriminator_steps=0), "discriminator_steps=0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        game(**settings)


def test_losses_are_finite_for_sure_discriminators():
    assert float(generator_loss(torch.tensor([-300.0]))) == pytest.approx(300.0)
    assert float(generator_loss(torch.tensor([300.0]))) == pytest.approx(0.0, abs=1e-30)
