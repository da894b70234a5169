"""Where an ensemble does worst: samples by their score, for archives of any field."""

import numpy as np
import xarray as xr

from scigen.io.blocks import Forward
from scigen.metrics.ensemble import fair_crps

Worst = list[tuple[int, float]]
"""Positions of samples and their scores, the worst first."""

LABELS = 16
"""More different whole numbers than this are no labels."""


def fields(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """What is looked at of an archive: its variables with a sample's dimensions; images by their magnitude.

    Pairs `image_re`, `image_im` become one `|image|`.

    Args:
        ds: truth or samples.
    """
    names = [str(n) for n in ds.data_vars]
    out = {}
    for name in names:
        if name.endswith("_re") and f"{name[:-3]}_im" in names:
            real, imaginary = ds[name], ds[f"{name[:-3]}_im"]
            out[f"|{name[:-3]}|"] = (real**2 + imaginary**2) ** 0.5
        elif not (name.endswith("_im") and f"{name[:-3]}_re" in names):
            out[name] = ds[name]
    return out


def alike(truth: xr.DataArray, samples: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray] | None:
    """Both on the samples that both have, in the samples' order of cells; None if the cells are others.

    Args:
        truth: dims (sample, *S); it may hold more samples, and its axes may run the other way.
        samples: dims (sample, member, *S).
    """
    first, *space = (str(d) for d in truth.dims)
    if first in truth.indexes and first in samples.indexes:
        common = samples.indexes[first].intersection(truth.indexes[first])
        truth, samples = truth.sel({first: common}), samples.sel({first: common})
    for dim in space:
        if dim in truth.indexes and dim in samples.indexes and truth[dim].dtype.kind in "iuf":
            own, other = (a[dim].values.astype(float) for a in (truth, samples))
            if own.shape == other.shape and not np.allclose(own, other) and np.allclose(own[::-1], other):
                truth = truth.isel({dim: slice(None, None, -1)})
            elif own.shape != other.shape or not np.allclose(own, other):
                return None
    fits = truth.sizes[first] and (samples.shape[0], *samples.shape[2:]) == truth.shape
    return (truth, samples) if fits else None


def worst(truth: xr.DataArray, samples: xr.DataArray, count: int = 3) -> Worst:
    """The samples where an ensemble does worst.

    The score of a sample of numbers is the fair CRPS, mean over cells. Of labels, which need not lie where the truth's
    do, it is the largest difference of a label's share, mean over members.

    Args:
        truth: dims (sample, *S).
        samples: dims (sample, member, *S), of the same samples.
        count: how many.
    """
    scores: list[float] = []
    dim = str(truth.dims[0])
    pair = [Forward(a.drop_vars(list(a.coords)).to_dataset(name="field"), dim) for a in (truth, samples)]
    for i in range(truth.sizes[dim]):
        true, members = (p[slice(i, i + 1)]["field"].values[0] for p in pair)
        if true.dtype.kind in "ui":
            labels = np.unique(true)[:LABELS]
            share = [np.array([(m == k).mean() for k in labels]) for m in (true, *members)]
            scores.append(float(np.mean([np.abs(s - share[0]).max() for s in share[1:]])))
        else:
            scores.append(float(fair_crps(members, true).mean()))
    order = np.argsort(scores)[::-1][:count]
    return [(int(i), scores[i]) for i in order if np.isfinite(scores[i])]
