"""Archives at a URL: what lies there is what a local path gives, and what does not is said."""

import functools
import http.server
import threading
import uuid

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.remote import split_url


@pytest.fixture
def fields() -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), rng.standard_normal((5, 4, 6)).astype("float32"), {"units": "K"})},
        {
            "time": pd.date_range("2020-01-01", periods=5, freq="6h"),
            "latitude": np.linspace(50, 47, 4),
            "longitude": np.linspace(5, 10, 6),
        },
    )


@pytest.fixture
def served(tmp_path):
    """A folder, and its URL on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *a: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_zarr_store_in_memory_is_what_it_is_on_disk(fields, tmp_path, version, consolidated):
    fields.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    where = f"/{uuid.uuid4().hex}.zarr"
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "a.zarr"), where, recursive=True)
    near, far = open_archive(tmp_path / "a.zarr"), open_archive(f"memory:/{where}")
    assert far["t2m"].chunks and far.identical(near) and fingerprint(far) == fingerprint(near)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_stores_and_files_over_http(fields, served):
    pytest.importorskip("aiohttp", reason="the library that fsspec reads http with is not installed")
    folder, url = served
    fields.to_zarr(folder / "a.zarr", zarr_format=2)
    fields.to_netcdf(folder / "a.nc")
    for name in ("a.zarr", "a.nc"):
        xr.testing.assert_identical(open_archive(f"{url}/{name}").load(), open_archive(folder / name).load())
    with pytest.raises(UserError, match="is not there"):
        open_archive(f"{url}/b.nc")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nothing.zarr", "is not there"),
        ("carrier-pigeon://loft/a.zarr", "no address that fsspec knows"),
        ("http://127.0.0.1:9/a.zarr", "cannot be reached|aiohttp|is not there"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url, message):
    with pytest.raises(UserError, match=message):
        open_archive(url)


def test_urls_and_groups():
    assert split_url("s3://a/b.zarr::in/side") == ("s3://a/b.zarr", "in/side")
    assert split_url("filecache::s3://a/b.zarr") == ("filecache::s3://a/b.zarr", None)
    assert split_url("s3://a/b.zarr") == ("s3://a/b.zarr", None)
