"""Where an ensemble does worst: samples by their score, for archives of any field."""

import numpy as np
import xarray as xr

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


def worst(truth: xr.DataArray, samples: xr.DataArray, count: int = 3) -> Worst:
    """The samples where an ensemble does worst.

    The score of a sample of numbers is the fair CRPS, mean over cells. Of labels, which need not lie where the truth's
    do, it is the largest difference of a label's share, mean over members.

    Args:
        truth: dims (sample, *S).
        samples: dims (sample, member, *S), of the same samples.
        count: how many.
    """
    scores = []
    for i in range(truth.sizes[truth.dims[0]]):
        true, members = np.asarray(truth[i].values), np.asarray(samples[i].values)
        if true.dtype.kind in "ui":
            labels = np.unique(true)[:LABELS]
            share = [np.array([(m == k).mean() for k in labels]) for m in (true, *members)]
            scores.append(float(np.mean([np.abs(s - share[0]).max() for s in share[1:]])))
        else:
            scores.append(float(fair_crps(members, true).mean()))
    order = np.argsort(scores)[::-1][:count]
    return [(int(i), scores[i]) for i in order if np.isfinite(scores[i])]
