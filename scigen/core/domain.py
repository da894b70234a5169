"""Domain: what a field provides for fitting and judging. Sampling needs none of it: that is the codec's."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.codec import Codec
from scigen.core.ledger import Ledger
from scigen.core.mean import ConditionalMean
from scigen.core.networks.autoencoder import Autoencoder
from scigen.errors import UserError
from scigen.metrics.quality import quality
from scigen.metrics.report import reference
from scigen.metrics.worst import alike, fields, worst
from scigen.plots import failures
from scigen.plots.table import Table


@dataclass(frozen=True)
class Split:
    """Samples of one use: true fields and prepared inputs, sample by sample."""

    truth: xr.Dataset
    inputs: xr.Dataset


@dataclass(frozen=True)
class Data:
    """An archive made ready.

    Attributes:
        train, validation, test: the splits.
        codec: with statistics of the training split.
        fingerprint: of the archive (16 hex digits).
        source: what a person calls it.
        rule: how it was divided, in words; None leaves that to the configuration's shares.
    """

    train: Split
    validation: Split
    test: Split
    codec: Codec
    fingerprint: str
    source: str
    rule: str | None = None


class Domain(ABC):
    """A field: weather, materials, MRI.

    Attributes:
        name: as in `domain=<name>`.
    """

    name: str

    @abstractmethod
    def synth(self, path: Path) -> Path:
        """Make the default data at `path` unless it is there; returns the path."""

    @abstractmethod
    def open(self, cache: Path, codec: Codec | None = None) -> Data:
        """Open the configured archive, check it, split it, fit the codec's statistics.

        Args:
            cache: folder for the default data, which is made there where no archive is configured.
            codec: of a teacher that was given; used instead of a new one.

        Raises:
            UserError: if the archive is not fit to train on, or does not fit the codec.
        """

    @abstractmethod
    def standard(self, archive: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
        """These variables of an archive of the truth, with the names and units that samples have, lazily."""

    @abstractmethod
    def baselines(self, codec: Codec, split: Split) -> dict[str, xr.Dataset]:
        """Cheap deterministic answers by name, as samples archives of one member."""

    def residuals(self, codec: Codec, mean: ConditionalMean, train: Split, told: np.ndarray) -> tuple[Codec, Split]:
        """The codec of residuals over a regression network's mean, and the training split with its predictions.

        Args:
            codec: without a mean; the network learnt its normalised samples.
            mean: the network, for samples that it has not been trained on.
            train: the training split.
            told: out-of-fold predictions for it, normalised, (samples, C, *S).

        Raises:
            UserError: if the field has no such stage.
        """
        raise UserError(f"mean=: domain={self.name} has no regression stage; leave mean= out.")

    def indicators(self, codec: Codec) -> Codec:
        """The codec whose network samples an autoencoder learns to encode, one indicator a class.

        Raises:
            UserError: if the field has no such stage, or this codec does not go with it.
        """
        raise UserError(f"autoencoder=: domain={self.name} has no latent space; leave autoencoder= out.")

    def latent(self, codec: Codec, autoencoder: Autoencoder, train: Split, latents: np.ndarray) -> tuple[Codec, Split]:
        """The codec in an autoencoder's latent space, and the training split with its latents.

        Args:
            codec: of the fields themselves.
            autoencoder: trained on `indicators`.
            train: the training split.
            latents: of it, (samples, C, *S / factor).

        Raises:
            UserError: if the field has no such stage.
        """
        raise UserError(f"autoencoder=: domain={self.name} has no latent space; leave autoencoder= out.")

    def exact(self, codec: Codec, split: Split, members: int, seed: int) -> Iterator[tuple[int, np.ndarray]] | None:
        """Blocks like `Bundle.blocks` of the exact law, driven by the same noise; None where it is not known."""
        return None

    def known(self, codec: Codec, split: Split) -> dict[str, Any] | None:
        """Numbers of the exact law in closed form; None where it is not known."""
        return None

    @abstractmethod
    def evaluate(self, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """Every number of the report: contenders by name, judged against the truth."""

    def held_out(self, codec: Codec, split: Split, seed: int) -> Split | None:
        """Some samples without a part of what was measured, to be sampled once more; None where nothing is held out."""
        return None

    def audited(self, report: xr.Dataset, split: Split, held: Split, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """The report with how well contenders foretell what they were not given.

        Args:
            report: of `evaluate`.
            split: with all that was measured.
            held: of `held_out`.
            samples: of `held`, by the names of the report.
        """
        return report

    @abstractmethod
    def tables(self, report: xr.Dataset) -> Sequence[Table]:
        """The report's tables, for terminal and page."""

    @abstractmethod
    def verdict(self, report: xr.Dataset) -> str:
        """The report in a sentence or two."""

    @abstractmethod
    def to_json(self, report: xr.Dataset) -> dict[str, Any]:
        """The report as JSON types."""

    @abstractmethod
    def figures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Pictures of the report: (caption, path of the PNG)."""

    def quality(self, report: xr.Dataset) -> xr.Dataset:
        """The main score and the spread of every contender, by which settings are compared.

        Args:
            report: of `evaluate`.

        Returns:
            score (model, interval): over the converged teacher's, small is good; spread (model): 1 is right; in attrs
            what they are (score, spread) and whose the score is set against (reference).
        """
        return quality(report)

    def ledger(
        self, codec: Codec, split: Split, teacher: Bundle, student: Bundle, samples: Mapping[str, xr.Dataset]
    ) -> dict[str, Ledger] | None:
        """Where the student's spread comes from, by variable; None where the law of the truth is not known.

        Args:
            codec: of both.
            split: test samples.
            teacher: with its converged sampler.
            student: with its default number of steps.
            samples: archives of both, by role: "teacher", "student".
        """
        return None

    def failures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Pictures of the test samples where the student, or who else there is, does worst: (caption, path)."""
        several = [m for m in samples if samples[m].sizes.get("member", 1) > 1]
        chosen = next((n for r in ("student", "teacher") if (n := reference(report, r)) in several), None)
        chosen = chosen or next(iter(several), None)
        if chosen is None:
            return []
        theirs, true = fields(samples[chosen]), fields(truth)
        for name in theirs:
            if name in true and "member" in theirs[name].dims:
                first, *space = true[name].dims
                both = alike(true[name].rename(name), theirs[name].transpose(first, "member", *space))
                if len(space) > 1 and both is not None:
                    own, found = both
                    return [failures.figure(own, found, chosen, worst(own, found), folder / "failures.png")]
        return []
