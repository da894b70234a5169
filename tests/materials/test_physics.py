"""The codec between labelled volumes and the network."""

import itertools

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.denoise import Denoiser
from scigen.core.guide import Consistent
from scigen.core.operator import Operator
from scigen.errors import UserError
from scigen.materials.known import UNKNOWN, Known
from scigen.materials.physics import MicrostructureCodec, simplex


def volumes(phases: int, count: int = 2, size: int = 16, seed: int = 0) -> xr.Dataset:
    labels = np.random.default_rng(seed).integers(0, phases, (count, size, size, size)).astype(np.uint8)
    return xr.Dataset({"phase": (("specimen", "z", "y", "x"), labels)}, coords={"specimen": np.arange(count)})


@pytest.mark.parametrize("phases", [2, 3, 4, 6])
def test_all_phases_are_equally_far_apart(phases):
    corners = simplex(phases)
    gram = corners @ corners.T
    np.testing.assert_allclose(gram, np.where(np.eye(phases) > 0, 1, -1 / (phases - 1)), atol=1e-12)
    np.testing.assert_allclose(corners.sum(0), 0, atol=1e-12)


@pytest.mark.parametrize("phases", [2, 3, 4])
@pytest.mark.parametrize("told", [True, False])
def test_labels_come_back(codec, targets, phases, told):
    own, truth = codec(phases), volumes(phases)
    share = {f"volume_fraction_{p}": 1 / phases for p in own.phases} if told else {"coarsening_time": 1.0}
    inputs = own.prepare(targets(**share))
    x = own.encode(truth, inputs, slice(None))
    assert x.shape == (2, phases - 1, 16, 16, 16)
    back = own.decode(x, own.condition(inputs, slice(None)))
    assert np.array_equal(back[:, 0].numpy(), truth["phase"].values)


def test_the_mean_of_given_fractions_is_taken_off(codec, targets):
    """A sample of just these fractions has no mean left, so that the network need not find it."""
    own, truth = codec(3), volumes(3, count=1)
    share = np.bincount(truth["phase"].values.ravel(), minlength=3) / 16**3
    inputs = own.prepare(targets(1, **{f"volume_fraction_{p}": s for p, s in zip(own.phases, share, strict=True)}))
    assert float(own.encode(truth, inputs, slice(None)).mean((2, 3, 4)).abs().max()) < 1e-6


def test_exact_fractions_are_exact(codec, targets):
    for phases in (2, 3, 4):
        own = codec(phases, exact=True)
        for share in ([0.5, 0.5], [0.21, 0.33, 0.46], [0.1, 0.2, 0.3, 0.4]):
            if len(share) == phases:
                inputs = own.prepare(
                    targets(3, **{f"volume_fraction_{p}": s for p, s in zip(own.phases, share, strict=True)})
                )
                x = torch.randn(3, *own.shape, generator=torch.Generator().manual_seed(1))
                labels = own.decode(x, own.condition(inputs, slice(None))).numpy().astype(int)
                for one in labels:
                    found = np.bincount(one.ravel(), minlength=phases)
                    assert np.abs(found - np.array(share) * 16**3).max() < 1


def test_free_fractions_share_what_given_ones_leave(codec, targets):
    own = codec(3, exact=True)
    inputs = own.prepare(targets(1, volume_fraction_pore=0.25))
    condition = own.condition(inputs, slice(None))
    x = torch.randn(1, *own.shape, generator=torch.Generator().manual_seed(1))
    found = np.bincount(own.decode(x, condition).numpy().astype(int).ravel(), minlength=3)
    raw = np.bincount(
        codec(3).decode(x, condition).numpy().astype(int).ravel(), minlength=3
    )  # fmt: skip
    assert found[0] == 0.25 * 16**3
    np.testing.assert_allclose(found[1] / found[2], raw[1] / raw[2], rtol=2e-3)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, None])
def test_what_is_known_is_a_projection(told, share):
    torch.manual_seed(0)
    mask = None if share is None else (torch.rand(2, 1, 4, 4, 4) < share).double()
    a: Operator = Known().bind({"told": torch.tensor([told, not told])} | ({} if mask is None else {"known": mask}))
    x, y = torch.randn(2, 3, 4, 4, 4).double(), torch.randn(2, 3, 4, 4, 4).double()
    torch.testing.assert_close((a(x) * y).sum(), (x * a.adjoint(y)).sum())
    torch.testing.assert_close(a(a.inverse(a(y))), a(y))
    if mask is not None:
        torch.testing.assert_close(a(x) * mask, x * mask)
    one = a(x)[0 if told else 1]
    torch.testing.assert_close(one.mean((1, 2, 3)), x[0 if told else 1].mean((1, 2, 3)))  # the mean is kept, or …
    if share in (0.0, None):
        assert float(a(x)[1 if told else 0].abs().max()) == 0  # … nothing is known


@pytest.mark.parametrize("phases", [2, 3])
@pytest.mark.parametrize("told", [True, False])
def test_the_statistics_of_a_volume_are_its_fractions(codec, targets, phases, told):
    """Where they are told; and as smooth numbers: their slope moves voxels that are undecided, and no others."""
    own, truth = codec(phases), volumes(phases)
    share = np.stack([np.bincount(v.ravel(), minlength=phases) for v in truth["phase"].values]) / 16**3
    known = {f"volume_fraction_{p}": share[:, i] if told else np.nan for i, p in enumerate(own.phases)}
    inputs = own.prepare(targets(**known))
    condition = own.condition(inputs, slice(None))
    x = own.encode(truth, inputs, slice(None)).requires_grad_()
    measured = own.measured.bind(condition)
    found = Consistent(Denoiser(torch.nn.Identity()), own.measured).statistics(x, condition)
    np.testing.assert_allclose(found.detach(), share * told, atol=1e-4)
    if not told:
        return
    halved = x.detach().clone()
    halved[:, :, 0] = -torch.from_numpy(share @ own.corners).float()[:, :, None, None]  # no phase is nearer
    halved.requires_grad_()
    (slope,) = torch.autograd.grad(measured.statistics(halved)[:, 0].sum(), halved)
    slope = slope.norm(dim=1)
    assert float(slope[:, 0].min()) > 1e3 * float(slope[:, 1:].max())


@pytest.mark.parametrize("inpaint", [True, False])
def test_a_true_volume_fits_its_own_measurement(codec, targets, inpaint):
    """A x = y: what the exact denoiser satisfies, so that moving a network onto it loses nothing."""
    own, truth = codec(3, inpaint=inpaint), volumes(3)
    share = np.stack([np.bincount(v.ravel(), minlength=3) for v in truth["phase"].values]) / 16**3
    inputs = targets(**{f"volume_fraction_{p}": share[:, i] for i, p in enumerate(own.phases)})
    if inpaint:
        known = truth["phase"].values.copy()
        known[:, 3:] = UNKNOWN
        inputs["known"] = (("specimen", "z", "y", "x"), known)
    ready = own.prepare(inputs)
    condition = own.condition(ready, slice(None))
    x = own.encode(truth, ready, slice(None))
    torch.testing.assert_close(own.measured.bind(condition)(x), condition["measurement"], atol=2e-6, rtol=0)


def test_known_voxels_are_measured_and_told(codec, targets):
    own, truth = codec(3, inpaint=True), volumes(3)
    inputs = targets(volume_fraction_pore=0.3, volume_fraction_solid=0.3)
    known = truth["phase"].values.copy()
    known[:, 3:] = UNKNOWN
    inputs["known"] = (("specimen", "z", "y", "x"), known)
    ready = own.prepare(inputs)
    condition = own.condition(ready, slice(None))
    x = own.encode(truth, ready, slice(None))
    measured = own.measured.bind(condition)
    torch.testing.assert_close(measured(x) * condition["known"], condition["measurement"] * condition["known"])
    assert condition["fields"].shape[1] == own.fields
    assert float(condition["known"].mean()) == 3 / 16
    # whatever else a sample is, its known voxels decode to their labels, with exact fractions as well
    sample = torch.randn_like(x)
    sample = sample + measured.inverse(condition["measurement"] - measured(sample))
    for exact in (False, True):
        labels = codec(3, inpaint=True, exact=exact).decode(sample, condition)[:, 0].numpy()
        assert np.array_equal(labels[:, :3], known[:, :3])
    assert np.abs((labels == 0).mean((1, 2, 3)) - 0.3).max() < 1e-3


def test_fractions_that_known_voxels_exceed_are_refused(codec, targets):
    own = codec(2, inpaint=True, exact=True)
    inputs = targets(1, volume_fraction_pore=0.1)
    known = np.full((1, 16, 16, 16), UNKNOWN, np.uint8)
    known[:, :8] = 0
    inputs["known"] = (("specimen", "z", "y", "x"), known)
    condition = own.condition(own.prepare(inputs), slice(None))
    with pytest.raises(UserError, match="pore"):
        own.decode(condition["measurement"], condition)


def test_what_is_left_free_is_zero_and_marked(codec, targets):
    own = codec(2)
    scalars = own.condition(own.prepare(targets(1, effective_diffusivity_pore_z=0.2)), slice(None))["scalars"][0]
    values, given = scalars[: len(own.known)], scalars[len(own.known) :]
    names = [q.name for q in own.known]
    assert given.tolist() == [float(n == "effective_diffusivity_pore_z") for n in names]
    assert values[given == 0].abs().max() == 0 and values[given == 1].abs().min() > 0


def test_state_makes_the_same_codec(codec, targets):
    own = codec(3, inpaint=True, exact=True, voxel_size=(2.0, 1.0, 1.0), unit="um")
    again = MicrostructureCodec.restore(*own.state())
    assert again.state()[0] == own.state()[0]
    inputs = own.prepare(targets(2, volume_fraction_pore=[0.2, 0.5]))
    for key, value in own.condition(inputs, slice(None)).items():
        torch.testing.assert_close(again.condition(inputs, slice(None))[key], value, equal_nan=True)


def test_open_faces_are_cut_off(codec):
    own = codec(2).adapt({"size": [16, 24, 16], "boundary": "open", "exact": None})
    border = own.border
    assert border > 0 and own.shape[1:] == (16 + 2 * border, 24 + 2 * border, 16 + 2 * border)
    assert own.attributes["periodic"] == [0, 0, 0]
    x = torch.randn(1, *own.shape)
    labels = own.decode(x, {"fraction": torch.full((1, 2), torch.nan)})
    assert labels.shape == (1, 1, 16, 24, 16)
    inner = x[:, :, border:-border, border:-border, border:-border]
    whole = codec(2, size=16).like(size=(16, 24, 16)).decode(inner, {"fraction": torch.full((1, 2), torch.nan)})
    assert torch.equal(labels, whole)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"volume_fraction_pore": 0.7, "volume_fraction_solid": 0.4}, "add up to 1.1"),
        ({"volume_fraction_pore": 1.2}, "between 0 and 1"),
        ({"volume_fraction_pore": 0.3, "effective_diffusivity_pore_x": 0.5}, "straight channels"),
        ({"effective_diffusivity_pore_x": -0.1}, "impossible"),
        ({"volume_fraction_pore": np.inf}, "infinite"),
    ],
)
def test_impossible_targets_are_refused(codec, targets, words, match):
    with pytest.raises(UserError, match=match):
        codec(2).prepare(targets(1, **words))


def test_targets_beyond_the_training_range_are_warned_of(codec, targets, caplog):
    codec(2).prepare(targets(1, volume_fraction_pore=0.95))
    assert "0.95 lies outside what was trained on, 0.2 to 0.7" in caplog.text
    caplog.clear()
    codec(2).prepare(targets(1, volume_fraction_pore=0.5))
    assert not caplog.text


def test_the_last_fraction_follows(codec, targets):
    ready = codec(3).prepare(targets(1, volume_fraction_pore=0.3, volume_fraction_binder=0.2))
    assert float(ready["volume_fraction_solid"][0]) == pytest.approx(0.5)


def test_words_are_an_archive(codec):
    own = codec(2)
    asked = own.prepare(own.request({"volume_fraction_pore": [0.3, 0.4], "effective_diffusivity_pore_z": 0.1}))
    assert asked["volume_fraction_solid"].values.tolist() == pytest.approx([0.7, 0.6])
    assert asked["effective_diffusivity_pore_z"].values.tolist() == [0.1, 0.1]
    for bad, match in (
        ({"porosity": 0.3}, "unknown to this bundle"),
        ({"volume_fraction_pore": "many"}, "expected a number"),
        ({"volume_fraction_pore": [0.3, 0.4], "coarsening_time": [1, 2, 3]}, "3 values"),
    ):
        with pytest.raises(UserError, match=match):
            own.request(bad)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"size": [4, 16, 16]}, "at least 8"), ({"boundary": "sticky"}, "periodic or open"), ({"color": 1}, "color")],
)
def test_unknown_options_are_refused(codec, options, match):
    with pytest.raises(UserError, match=match):
        codec(2).adapt(options)
    with pytest.raises(UserError, match="trained on volumes with open faces"):
        codec(2, periodic=(False,) * 3).adapt({"boundary": "periodic"})


def test_wrong_known_voxels_are_refused(codec, targets):
    asked = targets(1, volume_fraction_pore=0.5)
    asked["known"] = (("specimen", "z", "y", "x"), np.full((1, 16, 16, 16), 7, np.uint8))
    with pytest.raises(UserError, match="label 7"):
        codec(2, inpaint=True).prepare(asked)
    with pytest.raises(UserError, match="takes no known voxels"):
        codec(2).prepare(asked)
    asked["known"] = (("specimen", "z", "y", "x2"), np.zeros((1, 16, 16, 8), np.uint8))
    with pytest.raises(UserError, match="shape"):
        codec(2, inpaint=True).prepare(asked)


def test_indicators_are_what_is_compared(codec):
    labels = np.arange(3, dtype=np.float32).reshape(1, 1, 1, 1, 1, 3)
    scored = codec(3).scored(labels)
    assert scored.shape == (1, 1, 2, 1, 1, 3)
    for p, q in itertools.combinations(range(3), 2):  # no two phases look alike, none lies between others
        assert not np.array_equal(scored[..., p], scored[..., q])
