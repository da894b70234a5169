"""The codec: scaled, rotated residuals and back, from the measured data alone."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle, load
from scigen.core.denoise import perturbed
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.mri import synth
from scigen.mri.operator import Measured, fft2c
from scigen.mri.physics import ReconstructionCodec, fitted, truth_of
from scigen.mri.spectrum import on_grid, radial_profile


@pytest.fixture(scope="module")
def scans() -> xr.Dataset:
    heads = synth.make(size=32, subjects=2, slices=3, seed=1)
    made = synth.scan(heads["image"].values, [str(s) for s in heads["slice"].values], 0, most=4)
    made["image"] = (("slice", "y", "x"), heads["image"].values)
    return made.assign_coords(subject=("slice", heads["subject"].values))


@pytest.fixture(scope="module")
def codec(scans) -> ReconstructionCodec:
    return fitted(scans, scans["image"].values)[0]


def student(codec: ReconstructionCodec) -> Bundle:
    args = dict(channels=2, condition_fields=5, condition_scalars=3, widths=[8, 8], embedding=8)
    torch.manual_seed(0)
    network = UNet(**args)
    for p in network.parameters():  # a new network is 0 at its end
        torch.nn.init.normal_(p, std=0.1)
    name = "scigen.core.networks.unet.UNet"
    return Bundle(network, name, args, 1.0, codec, Sampling("few_step", (20.0, 1.0), trained=True), "mri", "student")


def test_what_is_encoded_is_decoded(scans, codec):
    inputs = codec.prepared(scans)
    x = codec.encode(truth_of(scans["image"].values), inputs, slice(None))
    back = codec.decode(x, codec.condition(inputs, slice(None)))
    image = torch.complex(back[:, 0], back[:, 1]).numpy()
    assert np.abs(image - scans["image"].values).max() < 1e-5 * np.abs(image).max()
    assert float(x.std()) == pytest.approx(1, rel=1e-3)


def test_residuals_run_along_the_signal(scans, codec):
    """With the phase taken out, the mean of the real part of images is far above that of their imaginary part."""
    own = codec.condition(codec.prepared(scans), slice(None))
    seen = own["fields"][:, :2]
    assert seen[:, 0].abs().mean() > 4 * seen[:, 1].abs().mean()


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_units_change_nothing_but_the_answer_s_units(scans, codec, factor):
    other = scans.assign(kspace=scans["kspace"] * np.float32(factor), noise_std=scans["noise_std"] * factor)
    one, two = (codec.condition(codec.prepared(ds), slice(None)) for ds in (scans, other))
    for name in one:
        if name != "scale":
            assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-4), name
    assert torch.allclose(two["scale"] / one["scale"], torch.tensor(factor), rtol=1e-4)


def test_the_target_is_not_looked_at(scans, codec):
    bare = codec.prepare(scans.drop_vars("image"))
    assert bare.identical(codec.prepare(scans))


def test_the_order_of_slices_changes_no_bit_of_what_is_made_of_a_scan(scans, codec):
    """Nor of the members' measurements, nor of what these make of an image; the network's part is the network's."""
    order, levels = [4, 0, 2], torch.tensor([5.0, 0.3, 1.0], dtype=torch.float64)
    whole = codec.condition(codec.prepared(scans), slice(None))
    part = codec.condition(codec.prepared(scans.isel(slice=order)), slice(None))
    for name, values in part.items():
        assert torch.equal(values, whole[name][order]), name
    keys = list("abcdef")
    mine = codec.perturbed(whole, keys, range(6), 0)
    other = codec.perturbed(part, [keys[i] for i in order], order, 0)
    assert torch.equal(other["aliased"], mine["aliased"][order])
    x = torch.randn(6, 2, 32, 32)
    every = torch.empty(6, dtype=torch.float64).fill_(2.0)
    every[order] = levels
    found = codec.measured.bind(mine).correct(x, every)
    assert torch.equal(codec.measured.bind(other).correct(x[order], levels), found[order])


def test_members_in_training_are_perturbed_as_in_sampling(scans, codec):
    """Aᴴ n' of the scan's own level, E‖Aᴴ n'‖² = 2 σ_y² tr AᴴA, of every row by itself; and nothing else is changed."""
    one = codec.condition(codec.prepared(scans.isel(slice=[1])), slice(None))
    many = {k: v.expand(300, *v.shape[1:]) for k, v in one.items()}
    torch.manual_seed(0)
    found = {
        "training": perturbed(student(codec).denoiser, many),
        "sampling": codec.perturbed(many, ["a"] * 300, range(300), 0),
    }
    expected = 2 * float(one["noise"]) ** 2 * float(one["density"].sum())
    for condition in found.values():
        added = condition.pop("aliased") - many["aliased"]
        assert float(added.abs().square().sum((1, 2)).mean()) == pytest.approx(expected, rel=0.02)
        assert float(added.mean(0).abs().square().sum()) == pytest.approx(expected / 300, rel=0.25)
        assert all(torch.equal(v, many[k]) for k, v in condition.items())


def test_a_slice_alone_is_what_it_is_among_others(scans, codec, tmp_path):
    bundle = load(student(codec).save(tmp_path / "b.safetensors"))
    whole = bundle.sample(scans.drop_vars("image"), members=3, seed=4, batch=4)
    alone = bundle.sample(scans.drop_vars("image").isel(slice=[4]), members=3, seed=4, batch=4)
    for name in ("image_re", "image_im"):
        np.testing.assert_allclose(alone[name].values[0], whole[name].values[4], rtol=0, atol=1e-5)


def chi_squares(scans, image):
    """χ² of every image (slice, member, y, x) over the measured numbers of live coils."""
    out = np.empty(image.shape[:2])
    for i in range(scans.sizes["slice"]):
        mask, maps, y = (scans[n].values[i] for n in ("mask", "sens_maps", "kspace"))
        live = np.abs(maps).max((1, 2)) > 0
        model = mask * fft2c(torch.from_numpy(maps[None] * image[i][:, None])).numpy()
        gap = (model - y[None])[:, live][..., mask]
        out[i] = (np.abs(gap) ** 2).mean((1, 2)) / (2 * scans["noise_std"].values[i] ** 2)
    return out


def test_every_member_fits_its_data_as_the_truth_does(scans, codec):
    """χ² of the data is 1 for each, whatever the network says: the last thing that happens to a sample sees to it."""
    bundle = student(codec)
    made = bundle.sample(scans.drop_vars("image"), members=4, seed=0)
    chi = chi_squares(scans, made["image_re"].values + 1j * made["image_im"].values)
    np.testing.assert_allclose(chi, 1, atol=2e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReconstructionCodec, "settled", lambda self, x, condition: x)
        made = bundle.sample(scans.drop_vars("image"), members=4, seed=0).load()
    chi = chi_squares(scans, made["image_re"].values + 1j * made["image_im"].values)
    assert np.abs(chi - 1).max() > 0.05


def test_the_truth_is_hardly_moved_by_the_last_thing_that_happens(scans, codec):
    """Its data differ from the measurement by the noise already, but for the scatter of a sum of N squares."""
    inputs = codec.prepared(scans)
    own, truth = codec.condition(inputs, slice(None)), truth_of(scans["image"].values)
    x = codec.encode(truth, inputs, slice(None))
    moved = codec.settled(x, own)
    back = codec.decode(moved, own)
    chi = chi_squares(scans, torch.complex(back[:, 0], back[:, 1]).numpy()[:, None])
    before = chi_squares(scans, scans["image"].values[:, None])
    np.testing.assert_allclose(chi, 1, atol=2e-3)
    assert np.abs(before - 1).max() > 0.01  # there was something to do
    reach = Measured(codec._spectrum, codec.std, codec.iterations, own)
    power = reach(moved - x).square().sum((1, 2, 3, 4)) / (2 * own["count"] * own["noise"] ** 2)
    assert float(power.max()) < 0.02  # of the noise's power


def test_power_spectra(codec):
    """White images have a flat profile; on another grid of the same pixels it is the same function of frequency."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((400, 32, 24)) + 1j * rng.standard_normal((400, 32, 24))
    assert np.allclose(radial_profile(white), 1, atol=0.12)
    a, b = on_grid(codec.profile, (32, 32)), on_grid(codec.profile, (64, 64))
    assert np.allclose(a, b[::2, ::2])


def test_other_sizes_and_too_many_coils_are_refused(scans, codec):
    with pytest.raises(UserError, match="32 × 32 pixels"):
        codec.prepared(scans.isel(ky=slice(0, 30)))
    few = ReconstructionCodec((32, 32), 1, codec.profile, codec.std)
    with pytest.raises(UserError, match="takes 1 at most"):
        few.prepared(scans)
