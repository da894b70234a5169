"""Batches of pairs: end point, condition and noise of one row belong together."""

import numpy as np
import torch

from scigen.core import addressed
from scigen.core.datamodule import PairStream, pair_noise


def test_rows_of_pair_batches_belong_together(bundle, archive):
    """Two pairs per sample, each end point marked by its number."""
    codec, inputs = bundle.codec, bundle.codec.prepare(archive)
    samples, members = np.repeat(np.arange(7), 2), np.tile([0, 1], 7)
    ends = torch.arange(14.0).reshape(-1, 1, 1, 1).expand(14, *codec.shape)
    stream = PairStream(codec, inputs, ends, samples, members, batch=5, total=6, seed=3)
    whole = codec.condition(inputs, slice(None))
    noise = pair_noise(codec, [codec.samples(inputs)[i] for i in samples], members, 3)
    seen = []
    for batch in stream:
        rows = batch.x[:, 0, 0, 0].long()
        seen += rows.tolist()
        for key, value in batch.condition.items():
            torch.testing.assert_close(value, whole[key][torch.from_numpy(samples)[rows]], rtol=0, atol=0)
        torch.testing.assert_close(batch.noise, noise[rows], rtol=0, atol=0)
    assert sorted(seen[:14]) == sorted(seen[14:28]) == list(range(14))


def test_noise_of_pairs_is_not_that_of_ensembles(bundle, archive):
    """Else a student would be judged on the very noise that it was trained on."""
    codec = bundle.codec
    keys = codec.samples(codec.prepare(archive))
    pairs = pair_noise(codec, list(keys[:2]), np.array([0, 1]), 0).numpy()
    ensembles = np.stack([addressed.normal(0, k, m, codec.shape) for k in keys for m in range(2)])
    assert not np.isin(pairs, ensembles).any()
