"""The parameters of a microstructure's making, read off the microstructure: kernel regression on its statistics.

Ridge regression with a Gaussian kernel on volume fractions, two-point function and lineal path along the axes; width
and ridge are those with the least leave-one-group-out error, known in closed form: with G = (K + λI)⁻¹ and weights
w = G y the errors of a group g that is left out are (G_gg)⁻¹ w_g. Snapshots of one simulation are one group, so that
the error is that on new simulations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from scigen.materials.blocks import Block, Cutting
from scigen.materials.correlation import lineal_path, two_point_axes
from scigen.materials.specimens import Specimens
from scigen.materials.statistics import phase_names

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
WIDTHS = (0.5, 1.0, 2.0, 4.0)
"""Tried, in units of the median distance."""


def features(labels: np.ndarray, phases: int, periodic: Sequence[bool]) -> np.ndarray:
    """Statistics (F,) of a volume (Z, Y, X) that a regression reads."""
    each = labels == np.arange(phases - 1).reshape(-1, 1, 1, 1) if phases > 1 else labels[None] == 0
    return np.concatenate([two_point_axes(each, periodic).ravel(), lineal_path(each, periodic).ravel()])


@dataclass(frozen=True)
class ProcessModel:
    """Parameters from statistics.

    Attributes:
        names: of the parameters.
        centre: mean of the training statistics, (F,).
        basis: (F, D) from statistics to whitened ones.
        support: whitened training statistics (N, D).
        weights: (N, parameters).
        offset: (parameters,) means of the logarithms.
        width: of the kernel.
        error: rms error of ln(parameter) on simulations left out of the fit, (parameters,).
    """

    names: tuple[str, ...]
    centre: np.ndarray
    basis: np.ndarray
    support: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    width: float
    error: np.ndarray

    @classmethod
    def fit(cls, statistics: np.ndarray, targets: Mapping[str, np.ndarray], groups: Sequence[str]) -> "ProcessModel":
        """Fit positive parameters.

        Args:
            statistics: (N, F), of `features`.
            targets: (N,) by name.
            groups: (N,) which samples are left out together.
        """
        names = tuple(targets)
        y = np.log(np.stack([targets[n] for n in names], axis=1))
        offset = y.mean(0)
        centre = statistics.mean(0)
        _, s, vt = np.linalg.svd(statistics - centre, full_matrices=False)
        keep = s > 1e-3 * s[0]
        basis = vt[keep].T / np.maximum(s[keep], 1e-12) ** 0.5  # half whitened: what varies more counts more
        support = (statistics - centre) @ basis
        unit = float(np.median(np.sqrt(_squares(support[:500], support[:500]))))
        members = [np.flatnonzero(np.asarray(groups) == g) for g in dict.fromkeys(groups)]
        best: tuple[float, Any] = (np.inf, None)
        for w in WIDTHS:
            kernel = np.exp(-_squares(support, support) / (2 * (w * unit) ** 2))
            for ridge in RIDGES:
                inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
                weights = inverse @ (y - offset)
                left = np.concatenate([np.linalg.solve(inverse[np.ix_(g, g)], weights[g]) for g in members])
                score = float(np.mean(np.square(left).mean(0) / np.maximum(y.var(0), 1e-12)))
                if score < best[0]:
                    best = (score, (weights, w * unit, np.sqrt(np.square(left).mean(0))))
        weights, width, error = best[1]
        return cls(names, centre, basis, support, weights, offset, width, error)

    def predict(self, statistics: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters (N,) by name from statistics (N, F)."""
        kernel = np.exp(-_squares((statistics - self.centre) @ self.basis, self.support) / (2 * self.width**2))
        values = np.exp(kernel @ self.weights + self.offset)
        return {n: values[:, i] for i, n in enumerate(self.names)}


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (N, M)."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)


def reader(
    specimens: Specimens, cutting: Cutting, blocks: Sequence[Block], values: Mapping[str, np.ndarray]
) -> ProcessModel:  # fmt: skip
    """A model of the process parameters, fitted to training blocks."""
    count = len(specimens.phases)
    rows = np.stack([features(cutting.labels(specimens, b), count, cutting.periodic) for b in blocks])
    groups = [specimens.groups[b.specimen] for b in blocks]
    return ProcessModel.fit(rows, {n: values[n] for n in specimens.process}, groups)


def with_process(
    report: xr.Dataset, model: ProcessModel, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]
) -> xr.Dataset:  # fmt: skip
    """The report with what is read off the volumes.

    Added are process_rmse (model, parameter), the rms of ln(read off ÷ the held-out specimen's own), and process_error
    (parameter), the same of the held-out specimens themselves.
    """
    periodic = [bool(p) for p in truth.attrs["periodic"]]
    phases = len(phase_names(truth))
    keys = truth["specimen"].values
    for ds in samples.values():
        keys = keys[np.isin(keys, ds["specimen"].values)]
    own = truth.sel(specimen=keys)

    def error(labels: np.ndarray) -> np.ndarray:
        rows = np.stack([features(v, phases, periodic) for v in labels.reshape(-1, *labels.shape[-3:])])
        read = model.predict(rows)
        each = [np.log(read[n].reshape(len(keys), -1)) - np.log(own[n].values)[:, None] for n in model.names]
        return np.array([float(np.sqrt(np.square(e).mean())) for e in each])

    found = [error(samples[str(m)]["phase"].sel(specimen=keys).values) for m in report["model"].values]
    report["process_rmse"] = (("model", "parameter"), np.stack(found))
    report["process_error"] = ("parameter", error(own["phase"].values))
    return report.assign_coords(parameter=list(model.names))
