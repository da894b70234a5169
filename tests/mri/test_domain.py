"""Scans and images become splits."""

import numpy as np
import pytest
import xarray as xr

from scigen.mri import synth
from scigen.mri.domain import Mri


@pytest.fixture
def scans() -> xr.Dataset:
    heads = synth.make(size=32, subjects=3, slices=2, seed=0)
    keys = [str(s) for s in heads["slice"].values]
    made = synth.scan(heads["image"].values, keys, 0, coils=(1,), accelerations=(2,)).drop_vars("mask_kind")
    return made.assign_coords(slice=np.array(keys, object), subject=("slice", heads["subject"].values.astype(object)))


def test_undersampled_scans_are_split_by_subject(scans, tmp_path):
    scans.to_zarr(tmp_path / "scans.zarr", consolidated=False)
    data = Mri(str(tmp_path / "scans.zarr"), split=(1, 1, 1)).open(tmp_path)
    assert [len(s.inputs["slice"]) for s in (data.train, data.validation, data.test)] == [2, 2, 2]
    assert "kspace" in data.test.truth and "kspace" not in data.train.truth
