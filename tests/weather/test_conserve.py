"""Block means of rain are the coarse ones, whatever was generated."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from scigen.weather.conserve import LARGEST, scale_blocks
from scigen.weather.operators import BlockMean

A = BlockMean(np.repeat(np.cos(np.deg2rad(50 + np.arange(8.0)))[:, None], 12, 1), 4)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_means_are_met_and_nothing_falls_below_zero(seed, wet):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, 8, 12, dtype=torch.float64, generator=generator).abs() ** 3
    x = x * (torch.rand(x.shape, generator=generator) < wet)
    y = torch.rand(2, 1, 2, 3, dtype=torch.float64, generator=generator) ** 4 * (torch.arange(6).reshape(2, 3) > 0)
    out = scale_blocks(A, x, y)
    torch.testing.assert_close(A(out), y, rtol=1e-12, atol=1e-12)
    assert (out >= 0).all()


def test_dry_cells_stay_dry_and_patterns_are_kept():
    x = torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    x[..., :2, :2], x[..., 0, 0] = 1.0, 3.0
    out = scale_blocks(A, x, 2 * A(x))
    torch.testing.assert_close(out, 2 * x)


def test_a_nearly_dry_block_makes_no_deluge():
    """One drizzling cell is asked for a wet block: the rest is spread, and only the rest."""
    x = torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    x[..., 0, 0] = 0.05
    y = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    y[..., 0, 0] = 1.0
    out = scale_blocks(A, x, y)
    assert out.max() < LARGEST * 0.05 + 1.01 and (out[..., :4, :4] > 0).all()
    assert (out[..., 4:, :] == 0).all() and (out[..., 4:] == 0).all()
