"""Which parameters are trained: the small ones of every network, and the rest stays bit-identical."""

import functools

import lightning
import pytest
import torch

from scigen.core.datamodule import SampleStream
from scigen.core.denoise import Denoiser
from scigen.core.driver import Schedule
from scigen.core.methods.base import Batch
from scigen.core.methods.denoising import Denoising
from scigen.core.networks.unet import UNet
from scigen.core.noise import LogUniform
from scigen.core.train import train
from scigen.core.trainable import select
from scigen.errors import UserError

trainer = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)


class Fixed(SampleStream):
    def get(self, indices):
        return Batch(torch.stack([torch.full((1, 8, 8), float(i)) for i in indices]), {})


def network() -> UNet:
    torch.manual_seed(0)
    net = UNet(1, widths=(8, 8), embedding=8)
    torch.nn.init.normal_(net.head.conv.weight)  # else nothing below it learns in the first step
    return net


def test_affine_is_biases_gains_and_film():
    net = network()
    count = select(net, "affine")
    chosen = {n for n, p in net.named_parameters() if p.requires_grad}
    assert all("film" in n or n.endswith((".bias", ".gain")) for n in chosen)
    assert {"down.0.0.film.weight", "down.0.0.norm1.gain", "stem.conv.bias"} <= chosen
    assert not any("conv" in n and n.endswith("weight") for n in chosen)
    assert (
        count == sum(p.numel() for p in net.parameters() if p.requires_grad) < sum(p.numel() for p in net.parameters())
    )


def test_a_regular_expression_and_all():
    net = network()
    select(net, r"^head\.")
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {"head.conv.weight", "head.conv.bias"}
    net = network()
    assert select(net, "all") == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("which", ["nothing_like_it", "(", "afine"])
def test_what_matches_nothing_is_refused(which):
    with pytest.raises(UserError, match=r"training\.parameters"):
        select(network(), which)


@pytest.mark.parametrize("which", ["affine", "head"])
def test_what_is_frozen_stays_bit_identical_in_weights_and_averages(tmp_path, which):
    method = Denoising(Denoiser(network()), LogUniform(0.1, 10))
    before = {k: v.clone() for k, v in method.student.named_parameters()}
    schedule = Schedule(steps=7, batch=4, lr=1e-2, warmup=1, parameters=which)
    trained = dict(train(method, Fixed(10, 4, 7), schedule, trainer, tmp_path).named_parameters())
    moved = {k for k, v in before.items() if not torch.equal(v, trained[k])}
    chosen = {k for k, p in method.student.named_parameters() if p.requires_grad}
    assert moved == {k for k, p in method.student.named_parameters() if not torch.equal(before[k], p)} <= chosen
    assert len(moved) > 0.8 * len(chosen)
