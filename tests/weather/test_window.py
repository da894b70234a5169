"""A window sees what the whole region has there, bit for bit but for rounding."""

import numpy as np
import pytest
import torch

from scigen.core.denoise import DenoiserModule
from scigen.core.guide import Consistent
from scigen.weather.coarsen import coarsen
from scigen.weather.physics import DownscalingCodec

from .test_codec import archive, codec, with_mean


def made(kind: str) -> tuple[DownscalingCodec, object]:
    """A codec and its archive: 8 × 20 cells, or 8 × 24 around the globe."""
    ds = archive(columns=24 if kind == "globe" else 20)
    if kind == "globe":
        ds = ds.assign_coords(longitude=("longitude", 15.0 * np.arange(24), {"standard_name": "longitude"}))
    return (with_mean if kind == "mean" else codec)(
        ds, **({} if kind == "mean" else {"features": ["sun", "place"]})
    ), ds


@pytest.mark.parametrize(
    ("kind", "low", "size"),
    [
        ("plain", (0, 0), (4, 8)), ("plain", (4, 12), (4, 8)), ("plain", (0, 4), (8, 12)), ("plain", (0, 0), (8, 20)),
        ("globe", (0, 20), (4, 8)), ("globe", (4, 0), (4, 4)), ("globe", (0, 8), (8, 8)),
    ],
)  # fmt: skip
def test_a_window_is_a_part_of_the_whole(kind, low, size):
    own, ds = made(kind)
    coarse = coarsen(ds[["t2m", "tp"]], 4)
    window = own.window(low, size)
    rows, columns = (np.arange(a, a + n) % total for a, n, total in zip(low, size, own.shape[1:], strict=True))
    blocks = [cells[::4] // 4 for cells in (rows, columns)]
    whole, part = own.condition(coarse, slice(1, 4)), window.condition(coarse, slice(1, 4))
    for name in ("fields", "base"):
        expected = whole[name][..., rows, :][..., columns]
        torch.testing.assert_close(part[name], expected, rtol=1e-5, atol=1e-5)
    for name in ("measurement", "coarse"):
        torch.testing.assert_close(part[name], whole[name][..., blocks[0], :][..., blocks[1]], rtol=1e-5, atol=1e-5)
    assert torch.equal(part["scalars"], whole["scalars"])
    x, expected = window.encode(ds, coarse, slice(1, 4)), own.encode(ds, coarse, slice(1, 4))
    torch.testing.assert_close(x, expected[..., rows, :][..., columns], rtol=1e-5, atol=1e-5)


def test_truth_meets_the_measurement_of_its_window():
    """The operator is bound to the shares of the cells there: with those of another place it would not."""
    own, ds = made("plain")
    coarse = coarsen(ds[["t2m", "tp"]], 4)
    window = own.window((4, 8), (4, 12))
    condition, x = window.condition(coarse, slice(None)), window.encode(ds, coarse, slice(None))
    torch.testing.assert_close(own.measured.bind(condition)(x), condition["measurement"], rtol=0, atol=1e-5)
    other = own.window((0, 8), (4, 12)).condition(coarse, slice(None)) | {"measurement": condition["measurement"]}
    assert (own.measured.bind(other)(x) - condition["measurement"]).abs().max() > 1e-4


def test_denoisers_are_held_to_the_window():
    class Any(DenoiserModule):
        sigma_data = 1.0

        def forward(self, x, sigma, condition=None):
            return 0.3 * x

    own, ds = made("plain")
    condition = own.window((4, 0), (4, 8)).condition(coarsen(ds[["t2m", "tp"]], 4), slice(None))
    held = Consistent(Any(), own.measured)(torch.randn(6, 2, 4, 8), torch.ones(6), condition)
    torch.testing.assert_close(own.measured.bind(condition)(held), condition["measurement"], rtol=0, atol=1e-5)
