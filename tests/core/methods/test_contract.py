"""What every method of configs/method/ must do, found there by itself."""

import copy
import math
from dataclasses import replace

import hydra.utils
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from scigen.config import config_dir
from scigen.core.denoise import Denoiser, FlowMap
from scigen.core.methods.base import Batch, Distiller, Method, repeat
from scigen.core.networks.unet import UNet
from scigen.core.noise import LogUniform
from scigen.core.oracle import Gaussian
from scigen.core.sample import Counted, few_step

STEMS = sorted(p.stem for p in (config_dir() / "method").glob("*.yaml"))
RANGE = (0.05, 30.0)
F64 = torch.float64
LANDS = {
    # steps, batch, learning rate and relative tolerance of the landing test, where they are not the usual ones
    "crps": (500, 128, 0.04, 0.12),  # scores know a gain up to its sign; few members are a noisy gradient
    "adversarial": (300, 16, 0.1, 0.08),
    "dmd": (900, 24, 0.08, 0.03),
    "progressive": (700, 64, 0.05, 0.02),
    "flow_map": (500, 256, 0.05, 0.08),
    "scm": (500, 256, 0.05, 0.05),
    "tcm": (800, 256, 0.03, 0.08),
    "tdm": (1100, 32, 0.08, 0.08),
}


class Linear(nn.Module):
    """A student that multiplies Fourier modes by a gain, g(ln σ) / √(1 + σ²) with g interpolated: it can be right."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sigma_data = 1.0
        self.register_buffer("knots", torch.linspace(-3.2, 3.6, 35, dtype=F64))
        self.gain = nn.Parameter(torch.ones(35, size, dtype=F64))

    def forward(self, x, sigma, condition=None):
        place = (sigma.to(F64).log() - self.knots[0]) / (self.knots[1] - self.knots[0])
        low = place.floor().long().clamp(0, len(self.knots) - 2)
        t = (place - low)[:, None]
        gain = ((1 - t) * self.gain[low] + t * self.gain[low + 1]) * (1 + sigma.to(F64)[:, None] ** 2).rsqrt()
        return torch.fft.ifft(gain[:, None] * torch.fft.fft(x.to(F64))).real


class Smooth(nn.Module):
    """A linear student of one time or two, smooth in the levels, for methods that take derivatives by them.

    Its gain is c_skip + c_out c_in f(u, v) with waves in u ~ ln σ and v ~ ln(1 + s/σ_min), the short ones small.
    """

    def __init__(self, size: int, ends: int) -> None:
        super().__init__()
        self.sigma_data = 1.75  # of the teacher's fields
        i, j = torch.meshgrid(torch.arange(9), torch.arange(ends), indexing="ij")
        self.waves, self.theta = (i.flatten(), j.flatten()), nn.Parameter(torch.zeros(9 * ends, size, dtype=F64))
        angle = 2 * math.pi * torch.arange(size, dtype=F64)[:, None] * torch.arange(size) / size
        self.hartley = (angle.cos() + angle.sin()) / size**0.5

    def forward(self, x, sigma, condition=None, to=None):
        sigma = sigma.to(F64)
        to = torch.zeros_like(sigma) if to is None else to.to(F64)
        u = (sigma / RANGE[0]).log() / math.log(RANGE[1] / RANGE[0])
        v = (1 + to / RANGE[0]).log() / math.log(1 + RANGE[1] / RANGE[0])
        i, j = self.waves
        f = ((math.pi * u[:, None] * i).cos() * (math.pi * v[:, None] * j).cos() / (1 + i + j) ** 1.5) @ self.theta
        s, d = sigma[:, None], self.sigma_data
        gain = (d**2 + s * d * f) / (s**2 + d**2)
        return ((x.to(F64) @ self.hartley) * gain[:, None]) @ self.hartley


def method_class(stem: str) -> type:
    """The class that the method's YAML names."""
    return hydra.utils.get_class(OmegaConf.load(config_dir() / "method" / f"{stem}.yaml")._target_)


def two_times(stem: str) -> bool:
    """Whether the method's student is a flow map."""
    return getattr(method_class(stem), "two_times", False)


def start(student: Linear) -> None:
    """What a method that follows another is given: an exact student up to σ = 1, with half the gain above."""
    sigma = student.knots.exp()[:, None]
    exact = (teacher().variance[0] * (1 + sigma**2) / (teacher().variance[0] + sigma**2)).sqrt()
    student.gain.data.copy_(torch.where(sigma < 1.01, exact, 0.5 * exact))


def linear(stem: str) -> nn.Module:
    """A linear student of the right kind."""
    if two_times(stem) or stem == "scm":
        return Smooth(16, 6 if two_times(stem) else 1)
    return Linear(16)


def teacher() -> Gaussian:
    k = torch.fft.fftfreq(16, 1 / 16, dtype=F64)
    oracle = Gaussian.stationary((16 / (1 + k**2)).unsqueeze(0))
    oracle.sigma_data = 1.0
    return oracle


def make(stem: str, student: nn.Module) -> Method:
    """The method as its YAML has it, σ range filled in, for a student."""
    cfg = OmegaConf.create({"noise": {"sigma_min": RANGE[0], "sigma_max": RANGE[1]}})
    cfg.method = OmegaConf.load(config_dir() / "method" / f"{stem}.yaml")
    settings = {k: v for k, v in OmegaConf.to_container(cfg, resolve=True)["method"].items() if k != "training"}
    if issubclass(hydra.utils.get_class(settings["_target_"]), Distiller):
        method = hydra.utils.instantiate(settings, student=student, teacher=teacher())
    else:
        method = hydra.utils.instantiate(settings, student=student, noise=LogUniform(*RANGE))
    method.prepare(batch(method, 4))
    return method


def batch(method: Method, n: int) -> Batch:
    """Data, or the teacher's exact pairs where the method wants pairs."""
    oracle = teacher()
    if not method.pairs:
        return Batch(oracle.draw(n), {})
    noise = torch.randn(n, 1, 16, dtype=F64)
    top, levels = torch.full((n,), RANGE[1], dtype=F64), [*method.sigmas[1:], 0.0]
    *path, end = (oracle.flow_map(RANGE[1] * noise, top, torch.full((n,), s, dtype=F64)) for s in levels)
    return Batch(end, {}, noise, torch.stack(path, 1) if path else None)


def train(method: Method, steps: int, n: int, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
    """A plain loop: the driver's order of calls without Lightning."""
    optimisers = {k: torch.optim.Adam(m.parameters(), lr=lr, betas=betas) for k, m in method.learners().items()}
    for step in range(steps):
        torch.manual_seed(step)
        method.at(step / steps)
        turn = method.turn(step)
        for group in optimisers[turn].param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimisers[turn].zero_grad()
        method.loss(turn, batch(method, n))["loss"].backward()
        optimisers[turn].step()


@pytest.mark.parametrize("stem", STEMS)
def test_only_the_learner_whose_turn_it_is_moves(stem):
    torch.manual_seed(0)
    scalars = FlowMap.FEATURES if two_times(stem) else 0
    network = UNet(1, condition_scalars=scalars, space=1, widths=(8, 8), embedding=8).double()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    method = make(stem, (FlowMap if two_times(stem) else Denoiser)(network, 1.0))
    method.train()
    if isinstance(method, Distiller):
        assert not method.teacher.training
    turns = set()
    for step in range(2):
        before = {k: copy.deepcopy(v.state_dict()) for k, v in method.named_children()}
        turn = method.turn(step)
        learner = method.learners()[turn]
        optimiser = torch.optim.SGD(learner.parameters(), lr=1e-3)
        loss = method.loss(turn, batch(method, 8))
        assert torch.isfinite(loss["loss"]) and loss["loss"].ndim == 0
        loss["loss"].backward()
        optimiser.step()
        moved = {
            k
            for k, v in method.named_children()
            if any(not torch.equal(a, before[k][n]) for n, a in v.state_dict().items())
        }
        own = {id(p) for p in learner.parameters()}  # a student may have companions, which learn with it
        assert turn in moved
        assert moved == {k for k, v in method.named_children() if any(id(p) in own for p in v.parameters())}
        turns.add(turn)
        method.zero_grad()
    assert turns <= set(method.learners())


@pytest.mark.parametrize("stem", STEMS)
def test_every_call_of_student_and_teacher_is_given_the_condition(stem):
    method = make(stem, linear(stem))
    given, seen = {"scalars": torch.arange(8.0)[:, None]}, []
    for module in (method.student, *(getattr(method, name, None) for name in ("teacher", "fake"))):
        if module is not None:
            module.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    data = batch(method, 8)
    for turn in method.learners():
        method.loss(turn, replace(data, condition=given))
    shared = {n: repeat(given, n)["scalars"] for n in range(2, 9)}  # by several members of a sample
    column = given["scalars"]
    parts = [column[i:j] for i in range(8) for j in range(i + 1, 9)]  # to a part of the batch
    assert seen and all(
        c is given or any(torch.equal(c["scalars"], s) for s in (*shared.values(), *parts)) for c in seen
    )


@pytest.mark.parametrize("stem", STEMS)
def test_distilled_student_keeps_its_promised_calls(stem):
    method = make(stem, linear(stem))
    if not isinstance(method, Distiller):
        assert method.pairs == 0
        return
    for steps in range(1, len(method.sigmas) + 1):
        counted = Counted(method.student)
        few_step(
            counted,
            torch.zeros(2, 1, 16, dtype=F64),
            method.sigmas[:steps],
            None,
            [torch.zeros(2, 1, 16, dtype=F64)] * (steps - 1),
        )
        assert counted.nfe == steps


def expected(stem: str, variance: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gain at σ that theory gives, for small steps of the grids."""
    ratio = variance / (variance + sigma**2)
    return ratio if stem == "denoising" else ratio.sqrt()


@pytest.mark.parametrize("stem", STEMS)
def test_lands_where_theory_says_on_a_gaussian_oracle(stem):
    """The gain of every mode at the levels where it is used: within 8 % of theory, or 0.02 for the denoiser."""
    student = linear(stem)
    if getattr(method_class(stem), "follows", None):
        start(student)
    method = make(stem, student)
    steps, n, lr, tolerance = LANDS.get(stem, (1000, 256, 0.03, 0.08))
    training = OmegaConf.load(config_dir() / "method" / f"{stem}.yaml").training
    train(method, steps, n, lr, tuple(training.get("betas", (0.9, 0.999))))
    variance = teacher().variance[0, :9]
    waves = torch.cos(2 * torch.pi * torch.arange(16, dtype=F64) * torch.arange(9, dtype=F64)[:, None] / 16)[:, None]
    levels = (0.3, 1.5, 8.0) if stem == "denoising" else method.sigmas
    for sigma, then in zip(levels, [*levels[1:], 0.0], strict=True):
        with torch.no_grad():
            out = student(waves, torch.full((9,), sigma, dtype=F64))
        got = (out * waves).sum((1, 2)) / waves.square().sum((1, 2))
        right = expected(stem, variance, sigma)
        if isinstance(method, Distiller) and method.sampler == "euler":  # what counts is the step to the next level
            got = then / sigma + (1 - then / sigma) * got
            right = ((variance + then**2) / (variance + sigma**2)).sqrt()
        close = dict(rtol=0, atol=0.02) if stem == "denoising" else dict(rtol=tolerance, atol=0)
        torch.testing.assert_close(got, right, **close)
