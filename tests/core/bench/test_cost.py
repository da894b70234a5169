"""Costs of hand-made steps, counted to the call."""

import pytest
import torch
from torch import nn

from scigen.core.bench.cost import Meter
from scigen.core.denoise import Denoiser, FlowMap
from scigen.core.networks.mlp import MLP
from scigen.core.oracle import Mixture

B = 8
LEVEL = torch.ones(B)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own, of forward mode


def network(more: int = 0, width: int = 8) -> MLP:
    return MLP(3, 0, more, width=width, blocks=1, embedding=8)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(B, 3, generator=torch.Generator().manual_seed(0))


class Critic(nn.Module):
    """On its own, or with a network inside."""

    def __init__(self, inside: nn.Module | None = None) -> None:
        super().__init__()
        self.head, self.inside = nn.Linear(3, 1), inside

    def forward(self, x):
        return self.head(self.inside(x, torch.zeros(len(x))) if self.inside else x)


def counted(student: nn.Module, step, others=()) -> float:
    net = next(m for m in student.modules() if isinstance(m, MLP))
    with Meter(B, net, others).running() as meter:
        step()
    return meter.passes


def test_a_step_of_score_matching_is_a_teacher_step(x):
    student = Denoiser(network())
    meter = Meter(B, student.network)
    with meter.running():
        student(x, LEVEL)
    assert meter.passes == 3 and meter.teacher_steps == 1


def test_without_gradients_it_is_a_third(x):
    student = Denoiser(network())
    with torch.no_grad():
        assert counted(student, lambda: student(x, LEVEL)) == 1


def test_frozen_weights_cost_the_way_back_to_the_input_alone(x):
    student = Denoiser(network()).requires_grad_(False)
    assert counted(student, lambda: student(x, LEVEL)) == 1
    assert counted(student, lambda: student(x.requires_grad_(), LEVEL)) == 2


def test_forward_mode_is_two_passes(x):
    student = FlowMap(network(FlowMap.FEATURES))
    along = lambda s: student(x, LEVEL, None, to=s)  # noqa: E731
    with torch.no_grad():
        assert counted(student, lambda: torch.func.jvp(along, (LEVEL / 2,), (LEVEL,))) == 2
    assert counted(student, lambda: torch.func.jvp(along, (LEVEL / 2,), (LEVEL,))) == 4
    assert counted(student, lambda: along(LEVEL / 2)) == 3


def test_an_oracle_is_charged_as_a_network(x):
    oracle = Mixture(torch.ones(1), torch.zeros(1, 3), torch.ones(1))
    student = Denoiser(network())
    assert counted(student, lambda: [oracle(x, LEVEL) for _ in range(5)]) == 5
    assert counted(student, lambda: oracle(x.requires_grad_(), LEVEL)) == 2


def test_rows_count_in_proportion(x):
    student = Denoiser(network())
    assert counted(student, lambda: student(x.repeat(4, 1), LEVEL.repeat(4))) == 12
    assert counted(student, lambda: student(x[:2], LEVEL[:2])) == 0.75


def test_other_networks_count_by_their_size(x):
    student, wide = Denoiser(network()), Denoiser(network(width=32))
    size = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert counted(student, lambda: wide(x, LEVEL)) == pytest.approx(3 * size(wide) / size(student))


def test_critics_count_by_their_size_and_what_they_hold_once(x):
    student, critic = Denoiser(network()), Critic()
    size = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert counted(student, lambda: critic(x), [critic]) == pytest.approx(3 * 4 / size(student))
    assert counted(student, lambda: critic(x)) == 0  # nothing that was asked for
    inside = Critic(network())
    assert counted(student, lambda: inside(x), [student, inside]) == 3


def test_a_whole_step_of_consistency_adds_up(x):
    """Heun's step of the teacher (2), the target (1), the prediction (3)."""
    oracle = Mixture(torch.ones(1), torch.zeros(1, 3), torch.ones(1))
    student = Denoiser(network())

    def step() -> None:
        with torch.no_grad():
            oracle(x, LEVEL), oracle(x, LEVEL), student(x, LEVEL)
        student(x, LEVEL)

    assert counted(student, step) == 6


def test_nothing_is_counted_afterwards(x):
    student = Denoiser(network())
    meter = Meter(B, student.network)
    with pytest.raises(ZeroDivisionError), meter.running():
        student(x, LEVEL)
        raise ZeroDivisionError
    student(x, LEVEL)
    assert meter.passes == 3
