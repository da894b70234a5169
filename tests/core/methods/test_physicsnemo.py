"""Methods that differentiate their student, or read its features, on PhysicsNeMo's networks."""

import copy

import hydra.utils
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from scigen.config import config_dir
from scigen.core.denoise import Denoiser, DenoiserModule, FlowMap
from scigen.core.methods.base import Batch, Distiller
from scigen.core.networks.dhariwal import DhariwalUNet
from scigen.core.networks.dit import DiT
from scigen.core.networks.widen import widen

pytestmark = pytest.mark.filterwarnings("ignore")  # PhysicsNeMo's own

NETS = {
    "dhariwal": lambda k: DhariwalUNet(2, 1, k, resolution=8, model_channels=32, channel_mult=[1, 2]),
    "dit": lambda k: DiT(2, 1, k, resolution=8, hidden_size=16, depth=2, num_heads=2),
}
METHODS: dict[str, dict[str, object]] = {
    "scm": {"jvp": "forward"},
    "flow_map": {"jvp": "forward"},
    "dmd": {"gan": 0.1, "r1": 1.0, "fake_steps": 1},
    "adversarial": {},
}


def random(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETS[name](0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    return network


def make(stem: str, name: str, **other) -> Distiller:
    """The method as its YAML has it, with a teacher of that network and a student that starts from it."""
    cfg = OmegaConf.create({"noise": {"sigma_min": 0.05, "sigma_max": 20.0}})
    cfg.method = OmegaConf.load(config_dir() / "method" / f"{stem}.yaml")
    settings = OmegaConf.to_container(cfg, resolve=True)["method"]
    settings = {k: v for k, v in settings.items() if k != "training"} | METHODS[stem] | other
    network = random(name)
    teacher: DenoiserModule = Denoiser(network)
    student: DenoiserModule = Denoiser(copy.deepcopy(network))
    if hydra.utils.get_class(settings["_target_"]).two_times:
        student = FlowMap(widen(network, NETS[name](FlowMap.FEATURES)))
    method = hydra.utils.instantiate(settings, student=student, teacher=teacher)
    method.prepare(batch())
    method.train()
    method.at(1.0)  # tangents are warm
    return method


def batch() -> Batch:
    torch.manual_seed(1)
    shape = (4, 2, 8, 8)
    return Batch(torch.randn(shape), {"fields": torch.randn(4, 1, 8, 8)}, torch.randn(shape))


@pytest.mark.parametrize("stem", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_two_turns_of_every_learner_move_what_they_are_to_move(name, stem):
    method = make(stem, name)
    optimisers = {k: torch.optim.SGD(m.parameters(), lr=1e-2) for k, m in method.learners().items()}
    before = {k: copy.deepcopy(v.state_dict()) for k, v in method.named_children()}
    turns = []
    for step in range(20):
        turn = method.turn(step)
        turns.append(turn)
        torch.manual_seed(step)
        loss = method.loss(turn, batch())["loss"]
        optimisers[turn].zero_grad()
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.learners()[turn].parameters())
        optimisers[turn].step()
        if all(turns.count(k) >= 2 for k in optimisers):
            break
    assert all(turns.count(k) >= 2 for k in optimisers)
    moved = {k for k, m in method.named_children() for n, v in m.state_dict().items() if not v.equal(before[k][n])}
    assert moved == set(optimisers)


@pytest.mark.parametrize("stem", ["scm", "flow_map"])
@pytest.mark.parametrize("name", NETS)
def test_forward_mode_and_differences_give_the_same_loss(name, stem):
    """The tangent is the network's own: both ways to it agree to the accuracy of the differences."""
    found = []
    for how in ("forward", "finite"):
        method = make(stem, name, jvp=how).double()
        torch.manual_seed(5)
        data = Batch(torch.randn(16, 2, 8, 8).double(), {"fields": torch.randn(16, 1, 8, 8).double()})
        found.append(float(method.loss("student", data)["residual"]))
    assert found[0] > 1e-3 and found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_discriminator_of_a_transformer_reads_its_blocks():
    method = make("adversarial", "dit")
    assert method.discriminator.taps == ("network.fields.1",)
