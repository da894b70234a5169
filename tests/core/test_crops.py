"""Random crops: parts of the samples they name, at places that are a function of the seed and these samples."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scigen.core.crops import PLACES, Crops
from scigen.core.streaming import archive_stream
from scigen.errors import UserError
from scigen.weather.domain import Weather
from scigen.weather.synth import Law, make


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("crops") / "fine.zarr"
    make(Law(size=16), 60).chunk(time=10).to_zarr(path, consolidated=False)
    return Weather(str(path), variables=["t2m", "u10"], factor=4, gap=0).open(Path("nowhere"))


def stream(data, crop, total=6, chunked=False):
    truth, inputs = data.train.truth, data.train.inputs
    if chunked:
        truth, inputs = truth.chunk(time=8), inputs.chunk(time=8)
    return archive_stream(data.codec, truth, inputs, 8, total, seed=3, crop=crop)


@pytest.mark.parametrize("chunked", [False, True])
def test_crops_are_parts_of_the_samples(data, chunked):
    """Each crop is found in its sample, at a block; the places differ between batches and are the same again."""
    crops, again = stream(data, 8, chunked=chunked), list(stream(data, 8, chunked=chunked))
    seen = set()
    for number, batch in enumerate(crops):
        assert batch.x.shape == (8, 2, 8, 8) and batch.condition["share"].shape == (8, 1, 8, 8)
        assert torch.equal(batch.x, again[number].x)
        indices = crops.indices(number)
        whole = data.codec.encode(data.train.truth, data.train.inputs, indices)
        lows = np.repeat(np.array(crops.crops.places(indices)), 8 // PLACES, axis=0)
        for x, full, (y, z) in zip(batch.x, whole, lows, strict=True):
            torch.testing.assert_close(x, full[:, y : y + 8, z : z + 8], rtol=1e-5, atol=1e-5)
            assert y % 4 == z % 4 == 0
            seen.add((y, z))
    assert len(seen) > 4


def test_every_place_is_met_as_often(data):
    crops = Crops(data.codec, [8, 16], seed=0)
    rng = np.random.default_rng(0)
    lows = np.array([low for _ in range(500) for low in crops.places(rng.integers(0, 40, 8))])
    assert set(lows[:, 1]) == {0}
    values, counts = np.unique(lows[:, 0], return_counts=True)
    assert list(values) == [0, 4, 8] and counts.min() > 0.9 * len(lows) / 3


def test_a_crop_of_the_whole_is_the_whole(data):
    a, b = next(iter(stream(data, 16))), next(iter(stream(data, None)))
    torch.testing.assert_close(a.x, b.x)
    assert all(torch.allclose(a.condition[k], v) for k, v in b.condition.items())


@pytest.mark.parametrize("crop", [6, 20, [8], [8, 0], -4])
def test_crops_that_do_not_fit_are_refused(data, crop):
    with pytest.raises(UserError, match=r"multiples of 4 of at most"):
        Crops(data.codec, crop)


def test_an_axis_that_wraps_is_kept_whole(data, monkeypatch):
    monkeypatch.setattr(type(data.codec), "periodic", (False, True))
    with pytest.raises(UserError, match=r"keep it whole, crop=\[8, 16\]"):
        Crops(data.codec, 8)
    assert Crops(data.codec, [8, 16]).room == [3, 1]
