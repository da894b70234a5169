"""Bundles: round trip, safety, and ensembles that depend on nothing but their address."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

import scigen
from scigen.core import addressed
from scigen.core.bundle import load
from scigen.core.denoise import FlowMap
from scigen.core.networks.unet import UNet
from scigen.core.sampling import SAMPLERS, Sampling
from scigen.errors import UserError


def test_round_trip_is_bit_identical(bundle, archive, tmp_path):
    path = bundle.save(tmp_path / "teacher.safetensors")
    again = scigen.load(path)
    assert again.fingerprint() == bundle.fingerprint()
    assert again.provenance == {"note": "test"} and again.sampling == bundle.sampling and repr(again) == repr(bundle)
    first, second = (b.sample(archive, members=3, batch=8) for b in (bundle, again))
    assert first.identical(second)
    assert not list(tmp_path.glob("*.partial"))


def test_output_is_what_the_input_was(bundle, archive):
    out = bundle.sample(archive, members=3, batch=8)
    assert out["t2m"].dims == ("time", "member", "latitude", "longitude")
    assert out["t2m"].attrs["units"] == "K" and out["u10"].attrs["units"] == "m s-1"
    for name in ("time", "latitude", "longitude"):
        np.testing.assert_array_equal(out[name], archive[name])
    assert out.attrs["scigen_nfe"] == 4 and out["member"].attrs["standard_name"] == "realization"


def test_members_keep_the_coarse_fields(bundle, archive):
    """The bundle's codec says y = A x is exact, so every member has the archive's block means."""
    out = bundle.sample(archive, members=2, batch=8)
    inputs = bundle.codec.prepare(archive)
    for c, name in enumerate(("t2m", "u10")):
        fields = torch.from_numpy(out[name].values.reshape(-1, 1, 8, 8).astype(np.float64))
        means = bundle.codec.mean_operator(fields)[:, 0].reshape(7, 2, 2, 2)
        expected = torch.from_numpy(inputs[name].values)[:, None].expand_as(means)
        torch.testing.assert_close(means, expected.double(), rtol=0, atol=1e-3 * (1 + 4 * c))


def test_a_member_depends_on_seed_sample_and_number_alone(bundle, archive):
    """Bit-identical over the number of members and samples asked for, order and position in the batch."""
    whole = bundle.sample(archive, members=5, seed=3, batch=8)
    assert bundle.sample(archive, members=2, seed=3, batch=8).equals(whole.isel(member=slice(0, 2)))
    some = archive.isel(time=[4])
    assert bundle.sample(some, members=5, seed=3, batch=8).equals(whole.isel(time=[4]))
    assert not bundle.sample(some, members=5, seed=4, batch=8).equals(whole.isel(time=[4]))
    members = whole["t2m"].isel(time=0)
    assert float(abs(members.isel(member=0) - members.isel(member=1)).max()) > 0.01


def test_another_compute_batch_agrees_to_rounding(bundle, archive):
    a, b = (bundle.sample(archive, members=5, batch=n) for n in (8, 3))
    for name in ("t2m", "u10"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-4)


def test_blocks_are_consecutive_and_whole(bundle, archive):
    inputs = bundle.codec.prepare(archive)
    for batch in (1, 4, 16, 64):
        seen = 0
        for start, block in bundle.blocks(inputs, 3, batch=batch):
            assert start == seen and block.shape[1:] == (3, 2, 8, 8) and np.isfinite(block).all()
            seen += len(block)
        assert seen == 7


def test_student_uses_the_first_of_its_levels(bundle):
    student = replace(bundle, role="student", sampling=Sampling("few_step", (20.0, 1.5)))
    assert student.sampling.grid(1) == [20.0] and student.nfe() == 2 and student.nfe(1) == 1
    with pytest.raises(UserError, match="1 to 2"):
        student.sampling.grid(3)
    assert bundle.sampling.grid(1) == pytest.approx([20.0])
    assert replace(bundle, sampling=Sampling.solver("heun", 4, 0.05, 20.0)).nfe() == 7


def test_a_student_starts_from_its_noise_and_takes_fresh_noise_at_every_level(bundle, archive):
    """x = σ₀ ε₀, then x̂ + σ₁ ε₁, by address, seen by a student whose samples are all zero."""
    student, seen = replace(bundle, sampling=Sampling("few_step", (20.0, 1.5))), []

    def zero(x, sigma, condition):
        seen.append((float(sigma[0]), x))
        return torch.zeros_like(x)

    student.denoiser = zero
    student.sample(archive.isel(time=[2]), members=1, seed=4, batch=1).load()
    (key,) = student.codec.samples(student.codec.prepare(archive.isel(time=[2])))
    for draw, (sigma, x) in enumerate(seen):
        expected = sigma * addressed.normal(4, key, 0, student.codec.shape, draw=draw)
        np.testing.assert_allclose(x[0], expected, rtol=1e-6)
    assert [sigma for sigma, _ in seen] == [20.0, 1.5]


@pytest.mark.parametrize("name", [n for n, rule in SAMPLERS.items() if not rule.two_times])
def test_every_sampler_draws_what_it_draws_by_hand_from_addressed_noise(bundle, archive, name):
    """Start from draw 0 at σ_max, fresh noise from draws 1, 2, … in order, as many calls as promised."""
    sampling = Sampling.solver(name, 3, 0.05, 20.0)
    drawn = replace(bundle, sampling=sampling)
    inputs = bundle.codec.prepare(archive.isel(time=[2]))
    (key,) = bundle.codec.samples(inputs)
    condition = bundle.codec.condition(inputs, slice(0, 1))
    fields, calls = drawn.draw(condition, [key], [7], seed=4)
    noises = [torch.from_numpy(addressed.normal(4, key, 7, bundle.codec.shape, draw=i))[None] for i in range(4)]
    grid = sampling.grid()
    with torch.inference_mode():
        x = sampling.run(bundle.denoiser, grid[0] * noises[0], grid, condition, noises[1 : 1 + sampling.noises(3)])
        expected = bundle.codec.decode(x, condition)
    torch.testing.assert_close(fields, expected, rtol=1e-6, atol=1e-4)
    assert calls == drawn.nfe() == SAMPLERS[name].calls(3)


def flow_map_bundle(bundle):
    """The same model with a network that also learns of the level where a step ends."""
    args = bundle.network_args | {"condition_scalars": bundle.codec.scalars + FlowMap.FEATURES}
    torch.manual_seed(1)
    network = UNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    sampling = Sampling("flow_map", (20.0, 1.5), trained=True)
    return replace(bundle, network=network, network_args=args, two_times=True, role="student", sampling=sampling)


def test_a_flow_map_is_sampled_with_any_number_of_steps(bundle, archive, tmp_path):
    student = flow_map_bundle(bundle)
    again = load(student.save(tmp_path / "student.safetensors"))
    assert again.sampling == student.sampling and again.two_times
    for steps in (1, 2, 5):
        out = student.sample(archive.isel(time=[0]), members=2, steps=steps, batch=2)
        assert out.attrs["scigen_nfe"] == steps
        assert again.sample(archive.isel(time=[0]), members=2, steps=steps, batch=2).identical(out)


def test_a_denoiser_is_no_flow_map(bundle):
    with pytest.raises(UserError, match="samples flow maps, and this model is a denoiser"):
        replace(bundle, sampling=Sampling("flow_map", (20.0, 1.5)))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling.solver("churn", 3, 0.05, 20.0, options={"s_churn": 5, "s_max": 10}),
        Sampling("euler", (20.0, 1.5), trained=True),
    ],
)
def test_options_and_trained_levels_are_stored_and_told_apart(bundle, tmp_path, sampling):
    stored = replace(bundle, sampling=sampling)
    again = load(stored.save(tmp_path / "b.safetensors"))
    assert again.sampling == sampling and again.fingerprint() == stored.fingerprint()
    plain = replace(bundle, sampling=Sampling(sampling.sampler, sampling.sigmas, sampling.rho))
    assert plain.fingerprint() != stored.fingerprint()


def test_bundles_from_before_options_load(bundle, tmp_path):
    path = bundle.save(tmp_path / "b.safetensors")
    old = tampered(path, lambda h: [h["sampling"].pop(k) for k in ("options", "trained")])
    assert load(old).sampling == bundle.sampling and load(old).fingerprint() == bundle.fingerprint()


def test_missing_values_in_the_input_are_named(bundle, archive):
    archive["t2m"][2, 3, 3] = np.nan
    with pytest.raises(UserError, match=r"t2m.*2020-01-01T12|2020-01-01T12.*t2m"):
        bundle.sample(archive, members=2, batch=8).load()


def tampered(path, change):
    """A copy of a bundle file with a changed header."""
    with safetensors.safe_open(path, framework="pt") as f:
        header = json.loads(f.metadata()["scigen"])
    change(header)
    out = path.with_name("tampered.safetensors")
    save_file(load_file(path), out, metadata={"scigen": json.dumps(header)})
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["network"].update({"class": "os.system"}), "unknown network 'os.system'"),
        (lambda h: h["codec"].update({"class": "builtins.eval"}), "unknown codec 'builtins.eval'"),
        (lambda h: h["network"].update({"class": "scigen.core.networks.unet.Block"}), "unknown network"),
        (lambda h: h["codec"].update({"class": "scigen.core.bundle.load"}), "unknown codec"),
        (lambda h: h.update({"format": "other"}), "no scigen bundle"),
        (lambda h: h["network"]["args"].update({"widths": [8, 16]}), "does not fit its own description"),
        (lambda h: h.pop("sampling"), "does not fit its own description"),
        (lambda h: h.pop("domain"), "does not fit its own description"),
        (lambda h: h["sampling"].update({"sampler": "magic"}), "Unknown sampler 'magic'"),
        (lambda h: h["sampling"].update({"options": {"magic": 1.0}}), "takes no options, not magic"),
        (lambda h: h["sampling"].update({"sampler": "flow_map"}), "samples flow maps"),
        (lambda h: h["sampling"].update({"sigmas": [1.0, 2.0]}), "strictly decreasing"),
        (lambda h: h["sampling"].update({"sigmas": []}), "strictly decreasing"),
        (lambda h: h["sampling"].update({"sigmas": [float("nan")]}), "strictly decreasing"),
        (lambda h: h["codec"]["settings"].update({"factor": 0}), "does not fit its own description"),
        (lambda h: h["codec"]["settings"]["grid"].update({"dims": []}), "does not fit its own description"),
        (lambda h: h["codec"]["settings"]["variables"].pop("u10"), "the codec needs a network with"),
    ],
)
def test_a_bundle_runs_no_foreign_code_and_must_fit_itself(bundle, tmp_path, change, message):
    path = tampered(bundle.save(tmp_path / "b.safetensors"), change)
    with pytest.raises(UserError, match=message):
        load(path)


def test_a_header_that_is_no_mapping_is_refused(bundle, tmp_path):
    path = bundle.save(tmp_path / "b.safetensors")
    save_file(load_file(path), path, metadata={"scigen": "[1]"})
    with pytest.raises(UserError, match="no scigen bundle"):
        load(path)


def test_fingerprint_tells_apart_all_that_samples_depend_on(bundle):
    """The same weights in another network are another bundle; where they come from does not matter."""
    others = [
        replace(bundle, network_args=bundle.network_args | {"periodic": True}),
        replace(bundle, sampling=replace(bundle.sampling, rho=3.0)),
        replace(bundle, sigma_data=2.0),
    ]
    assert len({b.fingerprint() for b in (bundle, *others)}) == 4
    assert replace(bundle, provenance={}).fingerprint() == bundle.fingerprint()
    assert replace(bundle, network=copy.deepcopy(bundle.network).bfloat16()).fingerprint() != bundle.fingerprint()


def test_missing_short_and_foreign_files_are_refused(bundle, tmp_path):
    path = bundle.save(tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="no bundle at"):
        load(tmp_path / "none.safetensors")
    for keep in (10, 500, path.stat().st_size - 1):
        short = tmp_path / f"short{keep}.safetensors"
        short.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match="no whole safetensors file"):
            load(short)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="no scigen bundle"):
        load(other)


def test_large_fields_take_fewer_rows(bundle):
    """About 2²¹ cells a compute batch, whatever the field: memory does not grow with the batch as well."""

    class Sized:
        def __init__(self, *shape: int) -> None:
            self.shape = shape

    for shape, rows in (((3, 32, 32), 16), ((1, 32, 32, 32), 16), ((1, 64, 64, 64), 8), ((2, 64, 128, 128), 2)):
        bundle.codec, own = Sized(*shape), bundle.codec
        assert bundle.rows == rows
        bundle.codec = own
    bundle.codec, own = Sized(1, 256, 256, 256), bundle.codec
    assert bundle.rows == 1
    bundle.codec = own
