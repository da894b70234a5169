"""The MRI domain: reconstruction, tied together for fitting and judging."""

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.errors import UserError
from scigen.metrics.bootstrap import ratio_interval
from scigen.mri import metrics, plots, synth, tables
from scigen.mri.baselines import baselines
from scigen.mri.heldout import SHARE, compared, divided
from scigen.mri.physics import NOTICE, ReconstructionCodec, fitted, truth_of
from scigen.mri.reading import is_scan, open_anatomy, open_scans
from scigen.mri.resample import low_passed
from scigen.mri.retrospective import complete, undersampled
from scigen.mri.scores import sums
from scigen.plots.table import Table

log = logging.getLogger(__name__)

AUDITED = 12
"""Slices of a report that are sampled once more with a part of their lines held out."""


class Mri(Domain):
    """Images from undersampled k-space, of any mask, acceleration and number of coils."""

    name = "mri"

    def __init__(
        self,
        path: str | None = None,
        layout: str | None = None,
        fft_centred: bool = True,
        repair: bool = False,
        split: Sequence[float] = (0.7, 0.05, 0.25),
        size: int | None = None,
        copies: int = 3,
        conditional: bool = True,
        scan: Mapping[str, Any] | None = None,
        synth: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Set where the data are and how they are scanned: the keys of `data` in configs/domain/mri.yaml."""
        self.path, self.layout, self.centred, self.repair = path, layout, fft_centred, repair
        self.size = size
        self.split, self.copies, self.conditional, self.seed = tuple(split), copies, conditional, seed
        self.scan, self.settings = dict(scan or {}), dict(synth or {})
        if copies < 1:
            raise UserError(f"data.copies={copies}: every training image is scanned once at least.")

    def synth(self, path: Path) -> Path:
        """Make the synthetic heads at `path` (zarr) unless they are there; of own images (`data.path`) scans."""
        if not path.exists():
            log.info("making %s at %s", "the default data" if self.path is None else f"scans of {self.path}", path)
            partial = path.with_name(path.name + ".partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                heads = synth.make(**self.settings) if self.path is None else self._scans(self.path)
                words = {
                    n: (c.dims, c.values.astype(object), c.attrs)
                    for n, c in heads.variables.items()
                    if c.dtype.kind == "U"
                }
                heads.assign(words).to_zarr(partial, mode="w", consolidated=True)
            partial.rename(path)
        return path

    def open(self, cache: Path, codec: Codec | None = None) -> Data:
        """Open images or scans (or make the default ones under `cache`), split them by subject, scan the images."""
        path = self.path
        if path is None:
            digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]
            path = str(self.synth(cache / f"mri-{digest}.zarr"))
        parts = self._scanned(path) if is_scan(path) else self._simulated(path)
        images = {name: _image(ds) for name, ds in parts.items()}
        ready: dict[str, xr.Dataset] = {}
        if codec is None:
            codec, ready["train"] = fitted(parts["train"], images["train"], self.conditional)
        elif not isinstance(codec, ReconstructionCodec):
            raise UserError("The teacher's bundle is not one for MRI.")
        splits = {}
        for name, ds in parts.items():
            own = ["kspace", "mask", "sens_maps", "noise_std", "acceleration", "coils"] if name == "test" else []
            truth = ds[[n for n in own if n in ds]].assign(truth_of(images[name]))
            splits[name] = Split(truth, ready.get(name) or codec.prepared(ds))
        digest = hashlib.sha256(images["train"].tobytes() + images["test"].tobytes()).hexdigest()[:16]
        source = str(self.path) if self.path is not None else f"default data ({path})"
        return Data(splits["train"], splits["validation"], splits["test"], codec, digest, source)

    def _scanned(self, path: str) -> dict[str, xr.Dataset]:
        """Scans, split: undersampled ones that came with their truth, or fully sampled ones without a part of it."""
        ds = open_scans(path, layout=self.layout, fft_centred=self.centred, repair=self.repair)
        whole = complete(ds["mask"].values)
        if not whole.all() and (whole.any() or "image" not in ds):
            told = f"{int(whole.sum())} of {len(whole)} slices are" if whole.any() else "it has no images, and is not"
            raise UserError(
                f"{path} cannot be learnt from: {told} fully sampled, and a fit needs the truth. Give fully sampled"
                " scans, of which lines are then left out, or undersampled ones with their images; a finished bundle"
                " samples scans without a truth."
            )
        keys = parts_of(ds["subject"].values, self.split)
        if not whole.any():
            return {name: ds.isel(slice=index).load() for name, index in keys.items()}
        words = {k: v for k, v in self.scan.items() if k in ("accelerations", "kinds", "acs")}
        out = {}
        for name, index in keys.items():
            own, copies = ds.isel(slice=index), self.copies if name == "train" else 1
            made = [undersampled(own, self.seed + copy, copy=copy, **words) for copy in range(copies)]
            out[name] = xr.concat(made, "slice") if copies > 1 else made[0]
        return out

    def _images(self, path: str) -> xr.Dataset:
        """Images to scan, with as many pixels as are asked for."""
        ds = open_anatomy(path)
        return ds if self.size is None else low_passed(ds, self.size)

    def _scans(self, path: str) -> xr.Dataset:
        """Scans of all images, each once, with the images.

        Raises:
            UserError: if the path holds scans already.
        """
        if is_scan(path):
            raise UserError(f"data.path={path} holds scans already: scigen synth scans images.")
        ds = self._images(path)
        image, keys = np.asarray(ds["image"].values, np.complex64), [str(k) for k in ds["slice"].values]
        most = max(int(c) for c in self.scan.get("coils", (1, 4)))
        made = synth.scan(image, keys, self.seed, most=most, **self.scan)
        made["image"] = (("slice", "y", "x"), image)
        subjects = [str(s) for s in ds["subject"].values]
        return made.assign_coords(subject=("slice", subjects)).assign_attrs(made.attrs | ds.attrs)

    def _simulated(self, path: str) -> dict[str, xr.Dataset]:
        """Images, split and scanned: each training image `copies` times."""
        ds = self._images(path)
        image = np.asarray(ds["image"].values, np.complex64)
        if not np.isfinite(image).all():
            raise UserError(f"{path} has NaN or infinite pixels in {int((~np.isfinite(image)).sum())} places.")
        keys = np.array([str(k) for k in ds["slice"].values])
        most = max(int(c) for c in self.scan.get("coils", (1, 4)))
        out = {}
        for name, index in parts_of(ds["subject"].values, self.split).items():
            scans = []
            for copy in range(self.copies if name == "train" else 1):
                made = synth.scan(image[index], list(keys[index]), self.seed + copy, most=most, **self.scan)
                made["image"] = (("slice", "y", "x"), image[index])
                made = made.assign_coords(subject=("slice", [str(s) for s in ds["subject"].values[index]]))
                if copy:
                    made = made.assign_coords(slice=[f"{k}|{copy}" for k in keys[index]])
                scans.append(made)
            out[name] = xr.concat(scans, "slice")
        return out

    def standard(self, archive: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
        """Real and imaginary parts of an archive of images."""
        if set(names) <= set(archive.data_vars):
            return archive
        return archive.assign(
            image_re=archive["image"].real.astype("float32"), image_im=archive["image"].imag.astype("float32")
        )

    def baselines(self, codec: Codec, split: Split) -> dict[str, xr.Dataset]:
        """Zero-filled, SENSE by conjugate gradients, the Gaussian prior's mean, total variation."""
        assert isinstance(codec, ReconstructionCodec)
        return baselines(codec, split)

    def evaluate(self, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """Fidelity, calibration, data consistency of contenders."""
        return metrics.evaluate(truth, samples)

    def held_out(self, codec: Codec, split: Split, seed: int) -> Split | None:
        """A dozen slices without a part of their lines."""
        assert isinstance(codec, ReconstructionCodec)
        if not {"kspace", "mask", "sens_maps", "noise_std"} <= set(split.truth.data_vars):
            return None
        try:
            rest, held = divided(split.truth, seed=seed)
        except UserError as error:
            log.warning("no audit with held-out lines: %s", error)
            return None
        some = np.flatnonzero(held.any((1, 2)))
        rest = rest.isel(slice=some[np.unique(np.linspace(0, len(some) - 1, AUDITED).round().astype(int))])
        return Split(rest, codec.prepared(rest))

    def audited(self, report: xr.Dataset, split: Split, held: Split, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """The report with `held_ratio` (model, interval) and `held_residual` (model), see `heldout.compared`."""
        whole = split.truth.sel(slice=held.truth["slice"].values)
        where = whole["mask"].values & ~held.truth["mask"].values
        ratio, residual = np.full((report.sizes["model"], 3), np.nan), np.full(report.sizes["model"], np.nan)
        for i, model in enumerate(map(str, report["model"].values)):
            if model in samples:
                found = compared(whole, where, samples[model])
                own = found.isel(slice=np.isfinite(found["ratio"].values))
                if own.sizes["slice"]:
                    who, each = own["subject"].values, own["ratio"]
                    ratio[i] = ratio_interval(sums(each, who), sums(xr.ones_like(each), who))
                residual[i] = float(found["residual"].mean())
        report = report.assign(held_ratio=(("model", "interval"), ratio), held_residual=("model", residual))
        return report.assign_attrs(held_share=SHARE, held_slices=int(where.any((1, 2)).sum()))

    def tables(self, report: xr.Dataset) -> Sequence[Table]:
        """Fidelity, calibration, data consistency, by acceleration and coils."""
        return tables.tables(report)

    def verdict(self, report: xr.Dataset) -> str:
        """Each student beside the teacher."""
        return f"{tables.verdict(report)}\n{NOTICE}"

    def to_json(self, report: xr.Dataset) -> dict[str, Any]:
        """All numbers."""
        return metrics.to_json(report)

    def figures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Images, errors and spread, calibration."""
        return plots.figures(report, truth, samples, folder)


def parts_of(subjects: Sequence[Any] | np.ndarray, shares: Sequence[float]) -> dict[str, np.ndarray]:
    """Positions of training, validation and test slices: by subject, or by place where there are fewer than three.

    Raises:
        UserError: if a part would have no slice.
    """
    names = np.array([str(s) for s in subjects])
    of = list(dict.fromkeys(names))
    if len(of) < 3:
        log.warning("%d subjects are too few to be split: the slices are, by place, and neighbours are alike.", len(of))
        unit: np.ndarray = np.arange(len(names))
    else:
        unit = np.array([of.index(n) for n in names])
    total = int(unit.max()) + 1
    ends = np.round(np.cumsum([0, *np.array(shares) / sum(shares)]) * total).astype(int)
    out = {
        name: np.flatnonzero((unit >= ends[i]) & (unit < ends[i + 1]))
        for i, name in enumerate(("train", "validation", "test"))
    }
    for name, index in out.items():
        if not len(index):
            raise UserError(f"data.split={list(shares)} leaves nothing for {name} of {total}: enlarge its share.")
    return out


def _image(ds: xr.Dataset) -> np.ndarray:
    """True complex images (slice, y, x)."""
    return np.asarray(ds["image"].values, np.complex64)
