"""Batches of pairs: end point, condition and noise of one row belong together."""

import numpy as np
import pytest
import torch
import zarr

from scigen.core import addressed
from scigen.core.datamodule import PairStream, pair_noise

PAIRS = np.repeat(np.arange(7), 2), np.tile([0, 1], 7)  # two of each sample


def marked(codec, levels: int) -> np.ndarray:
    """States that say which pair and level they are: 100 · level + pair."""
    marks = np.arange(14.0)[:, None] + 100 * np.arange(levels)
    return np.broadcast_to(marks[:, :, None, None, None], (14, levels, *codec.shape)).astype(np.float32)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_rows_of_pair_batches_belong_together(bundle, archive, levels):
    """End point, states, condition, noise and name of a row are of one pair; an epoch meets every pair once."""
    codec, inputs = bundle.codec, bundle.codec.prepare(archive)
    samples, members = PAIRS
    stream = PairStream(codec, inputs, marked(codec, levels), samples, members, batch=5, total=6, seed=3)
    whole = codec.condition(inputs, slice(None))
    noise = pair_noise(codec, [codec.samples(inputs)[i] for i in samples], members, 3)
    seen = []
    for batch in stream:
        rows = batch.x[:, 0, 0, 0].long() - 100 * (levels - 1)
        seen += rows.tolist()
        for key, value in batch.condition.items():
            torch.testing.assert_close(value, whole[key][torch.from_numpy(samples)[rows]], rtol=0, atol=0)
        torch.testing.assert_close(batch.noise, noise[rows], rtol=0, atol=0)
        assert batch.samples == tuple(codec.samples(inputs)[samples[r]] for r in rows)
        if levels == 1:
            assert batch.path is None
        else:
            assert batch.path.shape == (5, levels - 1, *codec.shape) and batch.path.dtype == torch.float32
            expected = rows[:, None] + 100.0 * torch.arange(levels - 1)
            torch.testing.assert_close(batch.path[:, :, 0, 0, 0], expected, rtol=0, atol=0)
    assert sorted(seen[:14]) == sorted(seen[14:28]) == list(range(14))


def test_states_in_an_archive_are_read_as_those_in_memory_and_only_where_asked_for(bundle, archive, tmp_path):
    codec, inputs = bundle.codec, bundle.codec.prepare(archive)
    states = marked(codec, 2)
    stored = zarr.create_array(tmp_path / "x.zarr", data=states, chunks=(1, *states.shape[1:]))
    asked = []

    class Watched:
        def __len__(self):
            return len(stored)

        def __getitem__(self, indices):
            asked.append(indices)
            return stored[indices]

    one = PairStream(codec, inputs, states, *PAIRS, batch=5, total=6, seed=3)
    other = PairStream(codec, inputs, Watched(), *PAIRS, batch=5, total=6, seed=3)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.path, b.path) and torch.equal(a.noise, b.noise)
    assert [len(i) for i in asked] == [5] * 6


def test_a_batch_is_a_function_of_its_number(bundle, archive):
    """What a resumed run relies on."""
    codec, inputs = bundle.codec, bundle.codec.prepare(archive)
    stream = PairStream(codec, inputs, marked(codec, 2), *PAIRS, batch=5, total=6, seed=3)
    whole = list(stream)
    stream.start = 4
    for a, b in zip(whole[4:], stream, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.noise, b.noise)
    other = PairStream(codec, inputs, marked(codec, 2), *PAIRS, batch=5, total=6, seed=4)
    assert not torch.equal(next(iter(other)).x, whole[0].x)


def test_noise_of_pairs_is_not_that_of_ensembles(bundle, archive):
    """Else a student would be judged on the very noise that it was trained on."""
    codec = bundle.codec
    keys = codec.samples(codec.prepare(archive))
    pairs = pair_noise(codec, list(keys[:2]), np.array([0, 1]), 0).numpy()
    ensembles = np.stack([addressed.normal(0, k, m, codec.shape) for k in keys for m in range(2)])
    assert not np.isin(pairs, ensembles).any()
