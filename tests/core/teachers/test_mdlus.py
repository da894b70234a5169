"""PhysicsNeMo checkpoints: real files of every kind are PhysicsNeMo's own denoisers, and unsafe ones are refused."""

import io
import json
import os
import tarfile
import warnings
import zipfile

import pytest
import torch

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's save asks for git

from scigen.core.denoise import Denoiser
from scigen.core.networks.physicsnemo import library
from scigen.core.noise import karras_sigmas
from scigen.core.sample import heun
from scigen.core.teachers import mdlus
from scigen.core.teachers.archive import MEMBERS
from scigen.errors import UserError

SMALL = dict(model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[], dropout=0.1)
SONG = dict(img_resolution=[16, 24], model_type="SongUNet", **SMALL)
CONDITIONED = dict(img_in_channels=3, img_out_channels=2)
LEGACY = {
    "EDMPrecondSuperResolution": SONG | CONDITIONED,
    "EDMPrecondSuperResolution, by place": {
        "img_resolution": [16, 24], "img_in_channels": 7, "img_out_channels": 2, "N_grid_channels": 4,
        "gridtype": "sinusoidal_octave", **SMALL,
    },
    "EDMPrecondSuperResolution, zero": SONG | CONDITIONED | {"embedding_type": "zero"},
    "EDMPrecondSR": SONG | CONDITIONED | {"img_channels": 2},
    "EDMPrecond": SONG | {"img_channels": 2},
    "EDMPrecond, conditioned": SONG | {"img_channels": 2, "img_in_channels": 5, "img_out_channels": 2},
    "EDMPrecond, labels": SONG | {"img_channels": 2, "label_dim": 3},
    "VPPrecond": SONG | {"img_channels": 2},
    "VEPrecond": SONG | {"img_channels": 2},
    "iDDPMPrecond": SONG | {"img_channels": 2},
}  # fmt: skip
CURRENT = {
    "EDMPreconditioner": {},
    "EDMPreconditioner, channels": {"sigma_data": [0.3, 1.2]},
    "VPPreconditioner": {},
    "VEPreconditioner": {},
    "IDDPMPreconditioner": {},
}
SIZE = (16, 24)


def scramble(module):
    """Weights that do something: PhysicsNeMo's own begin with zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def legacy(case):
    return scramble(_made(case.split(",")[0], LEGACY[case]))


def current(case, labels=0):
    inner = _made("SongUNet", dict(img_resolution=list(SIZE), in_channels=5, out_channels=2, label_dim=labels, **SMALL))
    wrapped = _made("ConcatConditionWrapper", {"model": inner})
    return scramble(_made(case.split(",")[0], {"model": wrapped, **CURRENT[case]}))


def _made(name, args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library()[name](**args)


def saved(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.save(str(path))
    return path


def points(sigmas, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low, high = sigmas
    sigma = torch.tensor([low, (low * high) ** 0.5, 0.3, 1.0, 0.99 * high])
    x = torch.randn(5, 2, *SIZE, generator=generator) * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    return x, sigma, torch.randn(5, 3, *SIZE, generator=generator), torch.randn(5, 3, generator=generator)


def assert_same(own, theirs):
    worst = (own - theirs).abs().amax((1, 2, 3)) / theirs.abs().amax((1, 2, 3))
    assert worst.max() < 1e-5


@pytest.mark.parametrize("case", LEGACY)
def test_the_denoiser_of_a_legacy_checkpoint_is_the_librarys(case, tmp_path):
    theirs = legacy(case)
    teacher = mdlus.load(saved(theirs, tmp_path / "net.mdlus"))
    denoiser = Denoiser(teacher.network, teacher.network.sigma_data).train()  # as in training: still no dropout
    x, sigma, fields, scalars = points(teacher.sigmas)
    with torch.no_grad():
        if "img_out_channels" in LEGACY[case] and "SR" in case.replace("SuperResolution", "SR"):
            expected = theirs(x, fields, sigma)
        elif "conditioned" in case:
            expected = theirs(x, sigma, fields)
        else:
            expected = theirs(x, sigma, **({"class_labels": scalars} if "labels" in case else {}))
        own = denoiser(x, sigma.double(), {"fields": fields, "scalars": scalars})
    assert_same(own, expected)
    assert (teacher.facts.get("time") is not None) == ("zero" in case)


@pytest.mark.parametrize("case", CURRENT)
@pytest.mark.parametrize("labels", [0, 3])
def test_the_denoiser_of_a_current_checkpoint_is_the_librarys(case, labels, tmp_path):
    from tensordict import TensorDict

    theirs = current(case, labels)
    teacher = mdlus.load(saved(theirs, tmp_path / "net.mdlus"))
    denoiser = Denoiser(teacher.network, teacher.network.sigma_data)
    x, sigma, fields, scalars = points(teacher.sigmas)
    both = TensorDict({"cond_concat": fields, "cond_vec": scalars}, batch_size=[5])
    with torch.no_grad():
        time = sigma
        if case == "VPPreconditioner":  # its forward takes t, not σ
            time = ((theirs.beta_min**2 + 2 * theirs.beta_d * (1 + sigma**2).log()).sqrt() - theirs.beta_min) / (
                theirs.beta_d
            )
            sigma = theirs.sigma(time).double()
        expected = theirs(x, time, condition=both if labels else fields)
        own = denoiser(x, sigma.double(), {"fields": fields, "scalars": scalars})
    assert_same(own, expected)


class Positional(torch.nn.Module):
    """A preconditioner of the first generation as the library's sampler calls it: (x, condition, σ, labels)."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sigma_min, self.sigma_max, self.round_sigma = net, net.sigma_min, net.sigma_max, net.round_sigma

    def forward(self, x, condition, sigma, labels):
        return self.net(x, sigma)


NOISE = torch.randn(3, 2, *SIZE, generator=torch.Generator().manual_seed(1))
FIELDS = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "case", ["EDMPrecondSuperResolution", "EDMPrecond, conditioned", "VPPrecond", "VEPrecond", "iDDPMPrecond"]
)
def test_heun_samples_are_those_of_the_librarys_sampler(case, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from physicsnemo.diffusion.samplers import deterministic_sampler

    theirs = legacy(case)
    teacher = mdlus.load(saved(theirs, tmp_path / "net.mdlus"))
    high = min(80.0, 0.9 * teacher.sigmas[1])
    low = max(0.02, 1.1 * teacher.sigmas[0])
    net = Positional(theirs) if case in ("VPPrecond", "VEPrecond", "iDDPMPrecond") else theirs
    with torch.no_grad():
        expected = deterministic_sampler(
            net, NOISE, FIELDS, num_steps=7, sigma_min=low, sigma_max=high, rho=7, solver="heun"
        )
        grid = theirs.round_sigma(torch.tensor(karras_sigmas(7, low, high).tolist(), dtype=torch.float64)).tolist()
        denoiser = Denoiser(teacher.network, teacher.network.sigma_data)
        own = heun(denoiser, grid[0] * NOISE, grid, {"fields": FIELDS})
    torch.testing.assert_close(own, expected.float(), rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("case", [c for c in CURRENT if "," not in c])
def test_heun_samples_are_those_of_the_current_sampler(case, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from physicsnemo.diffusion.noise_schedulers import EDMNoiseScheduler
        from physicsnemo.diffusion.samplers import sample

    theirs = current(case)
    teacher = mdlus.load(saved(theirs, tmp_path / "net.mdlus"))
    grid = karras_sigmas(7, 0.02, 50.0).tolist()

    def x0(x, sigma):
        if case == "VPPreconditioner":  # takes t
            wide, least = theirs.beta_d, theirs.beta_min
            sigma = ((least**2 + 2 * wide * (1 + sigma**2).log()).sqrt() - least) / wide
        return theirs(x, sigma, condition=FIELDS)

    law = EDMNoiseScheduler()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = torch.tensor([*grid, 0.0])
        expected = sample(law.get_denoiser(x0_predictor=x0), grid[0] * NOISE, law, 7, "heun", time_steps=steps)
        own = heun(Denoiser(teacher.network, teacher.network.sigma_data), grid[0] * NOISE, grid, {"fields": FIELDS})
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=5e-5 * float(expected.abs().max()))


def test_the_old_tar_format_is_read_as_well(tmp_path):
    theirs = legacy("EDMPrecond")
    with zipfile.ZipFile(saved(theirs, tmp_path / "net.mdlus")) as file:
        file.extractall(tmp_path / "members")
    with tarfile.open(tmp_path / "old.mdlus", "w") as file:
        file.add(tmp_path / "members", arcname=".")
    x, sigma, *_ = points((0.002, 80.0))
    teacher = mdlus.load(tmp_path / "old.mdlus")
    with torch.no_grad():
        assert_same(Denoiser(teacher.network, 0.5)(x, sigma.double()), theirs(x, sigma))


def rewritten(source, target, **changes):
    """A copy of a .mdlus file with some members changed by functions of their bytes; None leaves a member out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = changes.pop(name.split(".")[0], lambda b: b)
            if change is not None:
                new.writestr(name, change(old.read(name)))
        for name, content in changes.pop("more", {}).items():
            new.writestr(name, content)
    return target


def renamed(**changes):
    return lambda b: json.dumps(json.loads(b) | changes).encode()


def test_files_of_version_1_are_read_by_the_names_of_their_classes(tmp_path):
    theirs = legacy("EDMPrecondSR")
    saved(theirs, tmp_path / "net.mdlus")
    old = rewritten(
        tmp_path / "net.mdlus", tmp_path / "old.mdlus",
        args=renamed(__module__="modulus.models.diffusion.preconditioning"),
        metadata=renamed(mdlus_file_version="0.1.0"),
    )  # fmt: skip
    x, sigma, fields, _ = points((0.002, 80.0))
    with torch.no_grad():
        own = Denoiser(mdlus.load(old).network, 0.5)(x, sigma.double(), {"fields": fields})
        assert_same(own, theirs(x, fields, sigma))


def test_weights_and_words_that_do_not_fit_are_refused(tmp_path):
    good = saved(legacy("EDMPrecond"), tmp_path / "good.mdlus")

    def fewer(b):
        state = torch.load(io.BytesIO(b), weights_only=True)
        out = io.BytesIO()
        torch.save({k: v for k, v in state.items() if "map_layer" not in k}, out)
        return out.getvalue()

    def wider(b):
        own = json.loads(b)
        own["__args__"]["img_channels"] = 4
        return json.dumps(own).encode()

    cases = {
        rewritten(good, tmp_path / "other.mdlus", args=renamed(__name__="FullyConnected")): "names FullyConnected",
        rewritten(good, tmp_path / "less.mdlus", metadata=None): "lacks metadata.json",
        rewritten(good, tmp_path / "list.mdlus", args=lambda b: b"[1, 2]"): "no JSON object",
        rewritten(good, tmp_path / "deep.mdlus", args=lambda b: b"[" * 100000): "no JSON",
        rewritten(good, tmp_path / "none.mdlus", args=lambda b: b"{}"): "describes no PhysicsNeMo module",
        rewritten(good, tmp_path / "few.mdlus", model=fewer): "weights are missing",
        rewritten(good, tmp_path / "wide.mdlus", args=wider): "do not fit",
    }
    for path, match in cases.items():
        with pytest.raises(UserError, match=match) as caught:
            mdlus.load(path)
        assert "\n" not in str(caught.value)


def test_the_members_are_what_the_library_writes(tmp_path):
    with zipfile.ZipFile(saved(legacy("EDMPrecond"), tmp_path / "net.mdlus")) as file:
        assert sorted(file.namelist()) == sorted(MEMBERS)
