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
from scigen.mri.contrast import CONTRASTS
from scigen.mri.heldout import SHARE, compared, divided
from scigen.mri.physics import NOTICE, ReconstructionCodec, fitted, truth_of
from scigen.mri.reading import is_scan, open_anatomy, open_scans
from scigen.mri.resample import low_passed
from scigen.mri.retrospective import complete, undersampled
from scigen.mri.scores import sums
from scigen.mri.splitting import parts_of
from scigen.mri.weighted import open_tissues
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
        tissues: Mapping[str, Any] | None = None,
        contrasts: Sequence[str] = CONTRASTS,
        layout: str | None = None,
        fft_centred: bool = True,
        repair: bool = False,
        split: Sequence[float] = (0.7, 0.05, 0.25),
        gap: int | None = None,
        size: int | None = None,
        copies: int = 3,
        conditional: bool = True,
        scan: Mapping[str, Any] | None = None,
        synth: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Set where the data are and how they are scanned: the keys of `data` in configs/domain/mri.yaml."""
        self.path, self.layout, self.centred, self.repair = path, layout, fft_centred, repair
        self.tissues, self.contrasts = dict(tissues or {}), tuple(contrasts)
        self.size, self.gap = size, gap
        self.split, self.copies, self.conditional, self.seed = tuple(split), copies, conditional, seed
        self.scan, self.settings = dict(scan or {}), dict(synth or {})
        if path is not None and self.tissues:
            raise UserError(f"data.path={path} and data.tissues: give images or scans, or maps to make images of.")
        if copies < 1:
            raise UserError(f"data.copies={copies}: every training image is scanned once at least.")

    def synth(self, path: Path) -> Path:
        """Make the synthetic heads at `path` (zarr) unless they are there; of own images or maps of tissues scans."""
        if not path.exists():
            log.info("making %s at %s", f"scans of {self._own}" if self._own else "the default data", path)
            partial = path.with_name(path.name + ".partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                heads = self._scans() if self._own else synth.make(**self.settings)
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
        if not self._own:
            digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]
            path = str(self.synth(cache / f"mri-{digest}.zarr"))
        parts, rule = self._scanned(path) if path is not None and is_scan(path) else self._simulated(path)
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
        source = self._own or f"default data ({path})"
        return Data(splits["train"], splits["validation"], splits["test"], codec, digest, source, rule)

    @property
    def _own(self) -> str:
        """What a person calls the data that are configured; empty for the default data."""
        told = ", ".join(f"{k}={v}" for k, v in self.tissues.items())
        return f"tissues {told}" if told else str(self.path or "")

    def _scanned(self, path: str) -> tuple[dict[str, xr.Dataset], str]:
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
        keys, rule = parts_of(ds, self.split, self.gap)
        if not whole.any():
            return {name: ds.isel(slice=index).load() for name, index in keys.items()}, rule
        words = {k: v for k, v in self.scan.items() if k in ("accelerations", "kinds", "acs")}
        out = {}
        for name, index in keys.items():
            own, copies = ds.isel(slice=index), self.copies if name == "train" else 1
            made = [undersampled(own, self.seed + copy, copy=copy, **words) for copy in range(copies)]
            out[name] = xr.concat(made, "slice") if copies > 1 else made[0]
        return out, rule

    def _images(self, path: str | None) -> xr.Dataset:
        """Images to scan, with as many pixels as are asked for."""
        if path is None:
            return open_tissues(self.tissues, self.contrasts, self.seed, self.size)
        ds = open_anatomy(path)
        return ds if self.size is None else low_passed(ds, self.size)

    def _scans(self) -> xr.Dataset:
        """Scans of all images, each once, with the images.

        Raises:
            UserError: if the path holds scans already.
        """
        if self.path is not None and is_scan(self.path):
            raise UserError(f"data.path={self.path} holds scans already: scigen synth scans images.")
        ds = self._images(self.path)
        return self._scan(ds, self.seed).assign_attrs(ds.attrs)

    def _simulated(self, path: str | None) -> tuple[dict[str, xr.Dataset], str]:
        """Images, split and scanned: each training image `copies` times."""
        ds = self._images(path)
        bad = int((~np.isfinite(ds["image"].values)).sum())
        if bad:
            raise UserError(f"{path} has NaN or infinite pixels in {bad} places.")
        parts, rule = parts_of(ds, self.split, self.gap)
        out = {}
        for name, index in parts.items():
            scans = []
            for copy in range(self.copies if name == "train" else 1):
                made = self._scan(ds.isel(slice=index), self.seed + copy)
                if copy:
                    made = made.assign_coords(slice=[f"{k}|{copy}" for k in made["slice"].values])
                scans.append(made)
            out[name] = xr.concat(scans, "slice")
        return out, rule

    def _scan(self, ds: xr.Dataset, seed: int) -> xr.Dataset:
        """One simulated scan of each image, which keeps its volume, patient and contrast."""
        image, keys = np.asarray(ds["image"].values, np.complex64), [str(k) for k in ds["slice"].values]
        most = max(int(c) for c in self.scan.get("coils", (1, 4)))
        made = synth.scan(image, keys, seed, most=most, **self.scan)
        made["image"] = (("slice", "y", "x"), image)
        told = {
            c: np.array([str(v) for v in ds[c].values]) for c in ("subject", "patient", "contrast") if c in ds.coords
        }
        return made.assign_coords({c: ("slice", v) for c, v in told.items()})

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


def _image(ds: xr.Dataset) -> np.ndarray:
    """True complex images (slice, y, x)."""
    return np.asarray(ds["image"].values, np.complex64)
