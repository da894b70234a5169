"""The accessor `.scigen`: known statistics of known ensembles, whatever the members are called."""

import numpy as np
import pytest
import xarray as xr

import scigen
from scigen.errors import UserError


@pytest.fixture
def ensemble(tmp_path) -> xr.Dataset:
    values = np.arange(2 * 5 * 3, dtype="float32").reshape(2, 5, 3)
    ds = xr.Dataset({"t2m": (("time", "number", "x"), values, {"units": "K"})}, {"number": np.arange(5)})
    ds.to_netcdf(tmp_path / "a.nc")
    return scigen.open(tmp_path / "a.nc")


def test_statistics_over_members(ensemble):
    values = np.arange(30.0).reshape(2, 5, 3)
    own = ensemble.scigen
    assert own.dim == "member"  # archives are brought to one name
    np.testing.assert_allclose(own.mean()["t2m"], values.mean(1))
    np.testing.assert_allclose(own.spread()["t2m"], values.std(1, ddof=1))
    np.testing.assert_allclose(own.quantile(0.25)["t2m"], np.quantile(values, 0.25, axis=1))
    np.testing.assert_allclose(ensemble["t2m"].scigen.quantile([0.1, 0.9]), np.quantile(values, [0.1, 0.9], axis=1))
    np.testing.assert_allclose(own.exceedance(6.0)["t2m"], (values > 6).mean(1))
    assert own.mean()["t2m"].attrs["units"] == "K" and own.exceedance(6.0)["t2m"].attrs["units"] == "1"


def test_members_without_a_value_do_not_count_as_below(ensemble):
    holes = ensemble.load().where(ensemble["member"] != 4)
    np.testing.assert_allclose(holes.scigen.exceedance(-1.0)["t2m"], 1.0)


def test_labels_of_phases_have_a_mean_and_a_spread():
    labels = xr.DataArray(np.array([[0, 1, 1, 0]], np.uint8), dims=("x", "realization"))
    assert float(labels.scigen.mean()[0]) == 0.5
    assert float(labels.scigen.spread()[0]) == pytest.approx(np.std([0, 1, 1, 0], ddof=1))


def test_what_is_no_ensemble_is_said(ensemble):
    with pytest.raises(UserError, match="no member dimension among"):
        ensemble.isel(member=0).scigen.mean()
    with pytest.raises(UserError, match=r"q=1.5"):
        ensemble.scigen.quantile(1.5)
