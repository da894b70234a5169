"""Scans larger than memory are read, checked and prepared by blocks, to the same bits."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri import lazy, reading, synth
from scigen.mri.pairs import paired
from scigen.mri.physics import ReconstructionCodec, fitted
from scigen.mri.reading import open_scans

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")

SLICES, SIZE, COILS = 11, 24, 2


@pytest.fixture(scope="module")
def scans() -> xr.Dataset:
    heads = synth.make(size=SIZE, subjects=1, slices=SLICES, seed=1)
    keys = [f"s/{3 * i}" for i in range(SLICES)]
    made = synth.scan(heads["image"].values, keys, 0, coils=(COILS,), accelerations=(2,))
    return made.drop_vars(["mask_kind", "image"]).assign_attrs(affine=np.eye(4).tolist(), depth=40)


@pytest.fixture(scope="module")
def codec(scans) -> ReconstructionCodec:
    heads = synth.make(size=SIZE, subjects=1, slices=SLICES, seed=1)
    return fitted(scans, heads["image"].values)[0]


def saved(scans: xr.Dataset, folder: Path, kind: str) -> Path:
    """The scans in a format."""
    path = folder / f"s.{kind}"
    if kind == "zarr":
        scans.to_zarr(path, consolidated=False)
    elif kind == "nc":
        paired(scans.drop_attrs()).to_netcdf(path)
    else:
        with h5py.File(path, "w") as file:
            file["kspace"] = scans["kspace"].values
            file["mask"] = scans["mask"].values
            file.attrs["patient_id"] = "p7"
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is large, and how large a block is: three slices."""
    monkeypatch.setattr(lazy, "LARGE", 1000)
    monkeypatch.setattr(lazy, "BLOCK", 3 * COILS * SIZE * SIZE * 8)


@pytest.mark.parametrize("kind", ["zarr", "nc", "h5"])
def test_blocks_are_the_whole_bit_for_bit(scans, codec, tmp_path, kind):
    path = saved(scans, tmp_path, kind)
    found, whole = codec.open(str(path)), codec.prepare(open_scans(path))
    assert found["prior_mean"].chunks is not None and found.chunksizes["slice"] == (3, 3, 3, 2)
    assert codec.prepare(found) is found
    xr.testing.assert_identical(found.compute(), whole)
    assert codec.samples(found) == codec.samples(whole)
    assert codec.layout(found).coords.identical(codec.layout(whole).coords)


@pytest.mark.parametrize("kind", ["zarr", "nc", "h5"])
def test_only_an_item_s_slices_are_read(scans, codec, tmp_path, kind, monkeypatch):
    seen = []

    def watched(path):
        read = reading.open_parts(path)
        return lambda part: seen.append((part.start, part.stop)) or read(part)

    monkeypatch.setattr(lazy, "open_parts", watched)
    found = codec.open(str(saved(scans, tmp_path, kind)))
    seen.clear()
    part = found.isel(slice=slice(6, 9)).compute(scheduler="synchronous")
    assert seen == [(6, 9)]
    assert part["slice"].values.tolist() == codec.samples(found)[6:9]


def test_what_is_small_or_cannot_be_read_in_parts_is_read_whole(scans, codec, tmp_path, monkeypatch):
    several = [saved(scans, tmp_path, "h5")]
    several.append(several[0].with_name("t.h5"))
    several[1].write_bytes(several[0].read_bytes())
    assert lazy.open_lazily(several, codec.prepared) is None
    np.savez(tmp_path / "s.npz", kspace=scans["kspace"].values)
    assert lazy.open_lazily(tmp_path / "s.npz", codec.prepared) is None
    monkeypatch.setattr(lazy, "LARGE", 2**28)
    assert lazy.open_lazily(several[0], codec.prepared) is None


def test_archives_are_told_apart_by_a_few_slices(scans, codec, tmp_path):
    one = codec.open(str(saved(scans, tmp_path, "zarr"))).encoding[lazy.FINGERPRINT]
    other = scans.copy(deep=True)
    other["kspace"].values[-1] *= 2
    (tmp_path / "b").mkdir()
    assert codec.open(str(saved(other, tmp_path / "b", "zarr"))).encoding[lazy.FINGERPRINT] != one
    (tmp_path / "c").mkdir()
    assert codec.open(str(saved(scans, tmp_path / "c", "zarr"))).encoding[lazy.FINGERPRINT] == one


def test_damage_is_told_with_the_block_that_has_it(scans, codec, tmp_path):
    bad = scans.copy(deep=True)
    bad["kspace"].values[7, 1, 3, np.flatnonzero(bad["mask"].values[7, 0])[0]] = np.nan
    found = codec.open(str(saved(bad, tmp_path, "zarr")))
    found.isel(slice=slice(0, 6)).compute()
    with pytest.raises(UserError, match="NaN or infinite at slice s/21, coil 1"):
        found.isel(slice=slice(6, 9)).compute()
