"""Properties that the bench's MLP promises."""

import pytest
import torch

from scigen.core.networks.mlp import MLP
from scigen.errors import UserError

F64 = torch.float64


def random(**kwargs) -> MLP:
    """A small network with every weight drawn."""
    torch.manual_seed(0)
    net = MLP(5, **({"width": 16, "blocks": 2, "embedding": 8} | kwargs)).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return net


def inputs(n: int = 3, scalars: int = 2):
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(n, 5, dtype=F64, generator=generator), torch.randn(n, dtype=F64, generator=generator)
    return x, c, {"scalars": torch.randn(n, scalars, dtype=F64, generator=generator)}


def test_starts_at_zero():
    assert float(MLP(5)(torch.randn(3, 5), torch.zeros(3)).detach().abs().max()) == 0


def test_samples_do_not_mix_and_modes_agree():
    net = random(condition_scalars=2)
    x, c, condition = inputs()
    whole = net.train()(x, c, condition)
    one = net.eval()(x[1:2], c[1:2], {"scalars": condition["scalars"][1:2]})
    torch.testing.assert_close(whole[1:2], one, rtol=1e-12, atol=1e-12)


def test_everything_matters():
    net = random(condition_scalars=2)
    x, c, condition = inputs()
    base = net(x, c, condition)
    for other in (net(x + 1, c, condition), net(x, c + 1, condition), net(x, c, {"scalars": condition["scalars"] + 1})):
        assert float((other - base).detach().abs().min(1).values.min()) > 1e-4


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own use of it
def test_forward_mode_derivative_is_the_finite_difference():
    net = random(condition_scalars=2)
    x, c, condition = inputs()
    directions = (torch.randn_like(x), torch.ones_like(c), torch.randn_like(condition["scalars"]))
    f = lambda x, c, s: net(x, c, {"scalars": s})  # noqa: E731
    point = (x, c, condition["scalars"])
    with torch.no_grad():
        _, tangent = torch.func.jvp(f, point, directions)
        ahead = f(*(p + 1e-6 * d for p, d in zip(point, directions, strict=True)))
        behind = f(*(p - 1e-6 * d for p, d in zip(point, directions, strict=True)))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7)


def test_dropout_is_of_training_alone():
    net = random(dropout=0.5)
    x, c, _ = inputs()
    assert torch.equal(net.eval()(x, c), net.eval()(x, c))
    assert not torch.equal(net.train()(x, c), net.train()(x, c))


@pytest.mark.parametrize("wrong", [{"condition_fields": 1}, {"space": 2}, {"width": 0}, {"blocks": 0}])
def test_what_it_cannot_do_is_refused(wrong):
    with pytest.raises(UserError, match="vectors"):
        MLP(5, **wrong)


@pytest.mark.parametrize(
    "condition", [{}, {"scalars": torch.zeros(3, 1)}, {"scalars": torch.zeros(3, 2), "fields": torch.zeros(3, 1, 4)}]
)
def test_wrong_conditions_are_refused(condition):
    x, c, _ = inputs()
    with pytest.raises(UserError, match="condition scalars"):
        random(condition_scalars=2)(x, c, condition)
