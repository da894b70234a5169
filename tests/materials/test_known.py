"""What is told of a volume is met: known voxels as they are, fractions by moving interfaces and nothing else."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scigen.materials.known import Known, solve
from scigen.materials.physics import simplex

SIZE = 24


def corners(phases: int) -> Tensor:
    return torch.from_numpy(simplex(phases))


def undecided(phases: int, sharpness: float = 4.0) -> Tensor:
    """Means of phases with interfaces some voxels wide, (1, P − 1, 24, 24, 24) float64."""
    axes = torch.meshgrid(*[2 * torch.pi * torch.arange(SIZE, dtype=torch.float64) / SIZE] * 3, indexing="ij")
    waves = [torch.cos(axes[i % 3] + i) + torch.cos(axes[(i + 1) % 3] - 2 * i) for i in range(phases)]
    share = torch.softmax(sharpness * torch.stack(waves), 0)
    return torch.einsum("pc,pzyx->czyx", corners(phases), share)[None]


def fractions(x: Tensor, phases: int) -> Tensor:
    labels = torch.einsum("pc,bczyx->bpzyx", corners(phases), x).argmax(1)
    return torch.stack([(labels == p).double().mean() for p in range(phases)])


def wanted(phases: int, x: Tensor, change: float) -> Tensor:
    """A measurement that gives the last phase a larger fraction, and the first a smaller one."""
    goal = fractions(x, phases)
    goal[0] -= change
    goal[-1] += change
    return (goal @ corners(phases)).reshape(1, -1, 1, 1, 1).expand_as(x)


@pytest.mark.parametrize("phases", [2, 3, 4])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
def test_what_is_measured_is_met(phases, share):
    torch.manual_seed(0)
    x = undecided(phases).repeat(2, 1, 1, 1, 1) + 0.1 * torch.randn(2, phases - 1, SIZE, SIZE, SIZE)
    mask = None if share is None else (torch.rand(2, 1, SIZE, SIZE, SIZE) < share).double()
    a = Known(corners(phases), torch.zeros(2, phases - 1, 1, 1, 1), mask, torch.tensor([True, False]))
    y = a(torch.randn(x.shape, dtype=torch.float64))
    moved = a.onto(x, y)
    torch.testing.assert_close(a(moved), y)
    if mask is not None:
        assert torch.equal(moved * mask, y * mask)
    free = 1.0 if mask is None else 1 - mask[1]
    assert torch.equal(moved[1] * free, x[1] * free)  # its fractions are not told


@pytest.mark.parametrize("phases", [2, 3])
def test_fractions_of_labels_follow_and_the_same_shift_everywhere_does_not_do_it(phases):
    x = undecided(phases, 12.0)
    a, y = Known(corners(phases)), wanted(phases, x, 0.02)
    goal = fractions(x, phases) + torch.tensor([-0.02, *[0.0] * (phases - 2), 0.02])
    assert float((fractions(a.onto(x, y), phases) - goal).abs().max()) < 0.005
    shifted = x + a.inverse(y - a(x))
    assert float((fractions(shifted, phases) - goal).abs().max()) > 0.012


def test_certain_voxels_stay():
    x = undecided(2, 12.0)
    sure = (1 - x.abs()) < 1e-6
    a = Known(corners(2))
    change = (a.onto(x, wanted(2, x, 0.02)) - x).abs()
    assert 0.2 < float(sure.double().mean()) < 0.95
    assert float(change[sure].max()) < 0.01 * float(change.max())


def test_a_third_phase_does_not_grow_between_two_others():
    """More of it is asked for than there is: its own faces move, those of the two others move within their plane."""
    x = undecided(3, 12.0)
    share = (1 + 2 * torch.einsum("pc,bczyx->bpzyx", corners(3), x)) / 3
    apart = (share[:, 2:] < 1e-4).expand_as(x)
    moved = Known(corners(3)).onto(x, wanted(3, x, 0.02))
    after = (1 + 2 * torch.einsum("pc,bczyx->bpzyx", corners(3), moved)) / 3
    assert float((after - share)[:, 2:].max()) > 0.1
    assert float((after - share)[:, 2:][apart[:, :1]].abs().max()) < 0.005


def test_the_base_is_where_samples_are_taken_from():
    x, base = undecided(3), torch.tensor([0.2, -0.1], dtype=torch.float64).reshape(1, 2, 1, 1, 1)
    a, y = Known(corners(3)), wanted(3, x, 0.03)
    moved = Known(corners(3), base).onto(x - base, y - base)
    torch.testing.assert_close(moved + base, a.onto(x, y))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_systems_are_solved(n):
    rng = np.random.default_rng(n)
    m = rng.standard_normal((3, n, n))
    m = torch.from_numpy(m @ m.transpose(0, 2, 1) + 0.1 * np.eye(n))
    y = torch.from_numpy(rng.standard_normal((3, n)))
    torch.testing.assert_close(solve(m, y), torch.linalg.solve(m, y))
