"""What is made of scans: the prior's mean, with the same bits alone and among others."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.mri import preparation, synth
from scigen.mri.operator import Sense, posterior_mean
from scigen.mri.physics import fitted
from scigen.mri.preparation import Lines, derived, live_coils, scan_of, scan_scales


@pytest.fixture(scope="module")
def scans() -> xr.Dataset:
    """One coil and three of four, masks of lines and of points."""
    heads = synth.make(size=24, subjects=4, slices=3, seed=1)
    keys = [str(s) for s in heads["slice"].values]
    kinds = ("random", "gaussian")
    return synth.scan(heads["image"].values, keys, 2, coils=(1, 3), accelerations=(2,), kinds=kinds, most=4)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (5, 8)])
def test_without_shifts_the_normal_operator_is_the_same(size: tuple[int, int], lines: bool) -> None:
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, *size, generator=g, dtype=torch.complex128)
    mask = torch.rand(2, 1 if lines else size[0], size[1], generator=g).lt(0.5).expand(2, *size)
    x = torch.randn(2, *size, generator=g, dtype=torch.complex128)
    lined = Lines(maps, mask)
    assert len(lined.axes) == (1 if lines else 2)
    whole = Sense(maps, mask)
    for made in (lined.normal(x), whole.normal(x)):
        assert torch.allclose(made, whole.combine(whole.measure(x)), atol=1e-12)


def test_the_prior_s_mean_is_that_of_the_whole_scan(scans: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "TOLERANCE", 1e-6)
    codec, _ = fitted(scans, scans["image"].values)
    spectrum = torch.from_numpy(1.0 / np.asarray(codec.measured.precision))
    made = derived(scans, spectrum, 100)
    maps, mask, kspace = (torch.from_numpy(scans[n].values) for n in ("sens_maps", "mask", "kspace"))
    sense, scale = Sense(maps, mask), torch.from_numpy(scan_scales(scans))
    aliased = sense.combine(kspace) / scale[:, None, None]
    assert np.allclose(made["aliased"].values, aliased.numpy(), atol=1e-6)
    precision = spectrum.reciprocal().float().expand(len(scale), -1, -1)
    noise = torch.from_numpy(made["noise"].values)
    want = posterior_mean(sense, 0 * aliased, aliased, noise, precision, sense.density(), 200, 1e-6)
    assert np.abs(made["prior_mean"].values - want.numpy()).max() < 1e-4
    assert not derived(scans, spectrum, 100, conditional=False)["prior_mean"].values.any()


def test_no_bit_depends_on_other_slices_or_on_absent_coils(scans: xr.Dataset) -> None:
    spectrum = torch.ones(24, 24, dtype=torch.float64)
    whole = derived(scans, spectrum, 24)
    assert len({(int(c), str(k)) for c, k in zip(scans["coils"], scans["mask_kind"].values, strict=True)}) == 4
    for i in range(scans.sizes["slice"]):
        alone = scans.isel(slice=[i])
        for part in (alone, alone.isel(coil=slice(0, int(scans["coils"][i])))):
            one = derived(part, spectrum, 24)
            for name in one:
                np.testing.assert_array_equal(one[name].values[0], whole[name].values[i], err_msg=str(name))


def test_coils_that_are_absent_are_left_out(scans: xr.Dataset) -> None:
    live = live_coils(scans)
    np.testing.assert_array_equal(live.sum(1), scans["coils"])
    part = np.flatnonzero(live.sum(1) == 1)
    sense, kspace = scan_of(scans, part, live)
    assert sense.maps.shape[1] == kspace.shape[1] == 1
    np.testing.assert_array_equal(kspace[:, 0].numpy(), scans["kspace"].values[part, 0])
