"""Folders that diffusers writes: the denoiser is that of its own scheduler, and its DDIM is Euler on the same grid."""

import json
import sys
import warnings

import pytest
import torch

from scigen.core.denoise import Denoiser
from scigen.core.sample import euler, heun
from scigen.core.teachers import call
from scigen.core.teachers import diffusers as folders
from scigen.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (scigen[diffusers])")


def unet(**changes):
    torch.manual_seed(0)
    own = dict(
        sample_size=16, in_channels=2, out_channels=2, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8, attention_head_dim=8,
    )  # fmt: skip
    return diffusers.UNet2DModel(**own | changes).eval()


def written(folder, net, scheduler):
    net.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "zero snr"])
def test_the_denoiser_is_that_of_the_scheduler(predicts, betas, tmp_path):
    zero = betas == "zero snr"
    law = dict(beta_schedule="linear", rescale_betas_zero_snr=True) if zero else dict(beta_schedule=betas)
    scheduler = diffusers.DDIMScheduler(prediction_type=predicts, clip_sample=False, set_alpha_to_one=False, **law)
    net = unet()
    teacher = folders.load(written(tmp_path, net, scheduler))
    time = torch.tensor([0, 10, 300, 700, 950])
    alphas = scheduler.alphas_cumprod.double()[time]
    y = torch.randn(5, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = net(y, time).sample
        expected = torch.stack([_x0(g, a, v, predicts) for g, a, v in zip(given, alphas, y, strict=True)])
        sigma = ((1 - alphas) / alphas).sqrt()
        own = Denoiser(teacher.network)(y / alphas.sqrt().float().reshape(-1, 1, 1, 1), sigma)
    worst = (own - expected).abs().amax((1, 2, 3)) / (expected.abs() + sigma.reshape(-1, 1, 1, 1)).amax((1, 2, 3))
    assert worst.max() < 4e-5  # their ᾱ are single
    assert teacher.sigmas[1] == pytest.approx(float(((1 - _last(scheduler)) / _last(scheduler)) ** 0.5), rel=1e-2)


def _x0(given, alpha, y, predicts):
    """As `DDIMScheduler.step` has it, in its own words: arXiv:2010.02502, formula (12)."""
    root, rest = float(alpha.sqrt()), float((1 - alpha).sqrt())
    return {"epsilon": (y - rest * given) / root, "v_prediction": root * y - rest * given, "sample": given}[predicts]


def _last(scheduler):
    alphas = scheduler.alphas_cumprod.double()
    return alphas[alphas > 1e-6][-1]


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_ddim_samples_are_eulers_on_the_same_grid(predicts, tmp_path):
    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", prediction_type=predicts
    )
    net = unet()
    teacher = folders.load(written(tmp_path, net, scheduler))
    scheduler.set_timesteps(8)
    noise = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    y = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            y = scheduler.step(net(y, t).sample, t, y, eta=0.0).prev_sample
        alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps]
        grid = ((1 - alphas) / alphas).sqrt().tolist()
        own = euler(Denoiser(teacher.network), noise / float(alphas[0].sqrt()), grid)
    torch.testing.assert_close(own, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["HeunDiscreteScheduler", "EulerDiscreteScheduler"])
def test_solvers_of_theirs_are_ours_on_the_same_grid(kind, predicts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of theirs, about numpy
        scheduler = getattr(diffusers, kind)(timestep_spacing="trailing", prediction_type=predicts, beta_end=0.02)
        scheduler.set_timesteps(8)
    net = unet()
    teacher = folders.load(written(tmp_path, net, scheduler))
    noise = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps.long().unique().flip(0)]
    grid = ((1 - alphas) / alphas).sqrt().tolist()
    x = grid[0] * noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        solver = heun if kind.startswith("Heun") else euler
        own = solver(Denoiser(teacher.network), grid[0] * noise, grid)
    torch.testing.assert_close(own, x, rtol=2e-4, atol=2e-4 * float(x.abs().max()))


def test_flows_of_theirs_are_eulers_on_the_same_grid(tmp_path):
    scheduler, net = diffusers.FlowMatchEulerDiscreteScheduler(), unet()
    teacher = folders.load(written(tmp_path, net, scheduler))
    tau = [0.98, 0.8, 0.5, 0.2, 0.05]
    scheduler.set_timesteps(sigmas=tau)
    noise = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    y = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            y = scheduler.step(net(y, t).sample, t, y).prev_sample
        own = euler(Denoiser(teacher.network), noise / (1 - tau[0]), [t / (1 - t) for t in tau])
    torch.testing.assert_close(own, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


def test_learnt_variances_are_left_out_beside_condition_fields(tmp_path):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    net = unet(in_channels=5, out_channels=4)
    teacher = folders.load(written(tmp_path, net, scheduler))
    assert (teacher.network.channels, teacher.network.condition_fields) == (2, 3)
    y, fields, time = torch.randn(1, 2, 16, 16), torch.randn(1, 3, 16, 16), torch.tensor([300])
    alpha = scheduler.alphas_cumprod.double()[time]
    with torch.no_grad():
        given = net(torch.cat([y, fields], 1), time).sample[:, :2]
        expected = (y - (1 - alpha).sqrt().float() * given) / alpha.sqrt().float()
        sigma = ((1 - alpha) / alpha).sqrt()
        own = Denoiser(teacher.network)(y / alpha.sqrt().float(), sigma, {"fields": fields})
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_scalars_beside_the_fields_are_not_heeded_and_other_fields_are_refused(tmp_path):
    teacher = folders.load(written(tmp_path, unet(in_channels=5), diffusers.DDPMScheduler()))
    args, state = teacher.network_args, teacher.network.state_dict()
    told = folders.Diffusers(**args | {"condition_scalars": 4})
    told.load_state_dict(state)
    y, sigma, fields = torch.randn(2, 2, 16, 16), torch.tensor([0.1, 5.0]), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = Denoiser(teacher.network)(y, sigma, {"fields": fields})
        own = Denoiser(told)(y, sigma, {"fields": fields, "scalars": torch.randn(2, 4)})
    torch.testing.assert_close(own, expected, rtol=0, atol=0)
    with pytest.raises(UserError, match="from 3 condition fields; the data have 2 channels in 2-D, 4 fields"):
        folders.Diffusers(**args | {"condition_fields": 4})


def test_a_flow_is_taken_by_its_own_times(tmp_path):
    net = unet(in_channels=5)
    teacher = folders.load(written(tmp_path, net, diffusers.FlowMatchEulerDiscreteScheduler()))
    assert (teacher.network.channels, teacher.network.condition_fields) == (2, 3)
    tau = torch.tensor([0.01, 0.5, 0.99])
    y = torch.randn(3, 2, 16, 16)
    fields = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = y - tau.reshape(-1, 1, 1, 1) * net(torch.cat([y, fields], 1), 1000 * tau).sample
        sigma = (tau / (1 - tau)).double()
        own = Denoiser(teacher.network)(y / (1 - tau).reshape(-1, 1, 1, 1), sigma, {"fields": fields})
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4)


VOLUMES = """
import diffusers
import torch

class Net(torch.nn.Module):  # without text: no tokens but one of zeros
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = diffusers.UNet3DConditionModel(
            in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "UpBlock3D"),
            cross_attention_dim=8, attention_head_dim=4,
        ).eval()

    def forward(self, y, time, condition):
        return self.inner(y, time, torch.zeros(len(y), 1, 8)).sample
"""


def test_volumes_of_theirs_are_taken_as_a_function(tmp_path, monkeypatch):
    (tmp_path / "their_volumes.py").write_text(VOLUMES)
    monkeypatch.syspath_prepend(tmp_path)
    scheduler = diffusers.DDPMScheduler()
    alphas = scheduler.alphas_cumprod.double()
    law = {"kind": "table", "sigmas": ((1 - alphas) / alphas).sqrt().tolist()}
    words = {"call": "their_volumes:Net", "predicts": "epsilon", "schedule": law}
    teacher = call.load(words, 1, 0, 0, (4, 8, 8))
    sys.modules.pop("their_volumes")
    y, time = torch.randn(2, 1, 4, 8, 8), torch.tensor([100, 600])
    root, rest = (v.sqrt().float().reshape(-1, 1, 1, 1, 1) for v in (alphas[time], 1 - alphas[time]))
    with torch.no_grad():
        expected = (y - rest * teacher.network.function(y, time, {})) / root
        own = Denoiser(teacher.network)(y / root, ((1 - alphas[time]) / alphas[time]).sqrt())
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_bad_folders_are_refused(tmp_path):
    folder = written(tmp_path, unet(), diffusers.DDPMScheduler())
    law, net = folder / "scheduler/scheduler_config.json", folder / "unet/config.json"
    good = law.read_text(), net.read_text()
    for path, changes, match in (
        (law, {"prediction_type": "noise"}, "prediction_type='noise' is unknown"),
        (law, {"beta_schedule": "cubic"}, "beta_schedule='cubic' is unknown"),
        (law, {"_class_name": "VQDiffusionScheduler"}, "describes a VQDiffusionScheduler"),
        (law, {"num_train_timesteps": "many"}, "is no number of times"),
        (law, {"timestep_type": "continuous"}, "timestep_type='continuous' tells the network other times"),
        (law, {"trained_betas": ["a", "b"]}, "its betas are no numbers"),
        (law, {"beta_start": "small"}, "its betas are no numbers"),
        (law, {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas=True"),
        (law, {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas=True"),
        (net, {"_class_name": "os"}, "describes a os"),
        (net, {"_class_name": "UNet3DConditionModel"}, r"attends to text tokens.*teacher=\{call"),
        (net, {"block_out_channels": [32000, 32000]}, "larger network"),
        (net, {"layers_per_block": 10**9}, "layers_per_block=1000000000 is no number"),
        (net, {"out_channels": 5}, "in_channels=2 and out_channels=5"),
        (net, {"num_class_embeds": 10}, "classes"),
        (net, {"block_out_channels": [32, 64]}, "does not fit config.json"),
    ):
        changed(path, **changes)
        with pytest.raises(UserError, match=match) as caught:
            folders.load(folder)
        assert "\n" not in str(caught.value)
        law.write_text(good[0])
        net.write_text(good[1])
    law.write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        folders.load(folder)
    law.unlink()
    with pytest.raises(UserError, match=r"There is no .*scheduler_config"):
        folders.load(folder)
    law.write_text(good[0])
    weights = folder / "unet" / folders.WEIGHTS
    weights.rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle, and no diffusion_pytorch_model"):
        folders.load(folder)
