"""Microstructures as y = A x: the codec between labelled volumes and the network.

Phases are the corners of a regular simplex in P − 1 dimensions (±1 for two phases), so that all are equally far from
each other and no phase lies between two others. A network sample is x − base, with base = Σ φ_p v_p, the mean that the
given volume fractions imply, or that of the training specimens where they are free.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.codec import Codec, Index, Layout
from scigen.core.operator import Operator
from scigen.errors import UserError
from scigen.materials.assign import label
from scigen.materials.calibration import Calibration, calibrate
from scigen.materials.export import FORMATS, export
from scigen.materials.known import UNKNOWN, Known, checked_part
from scigen.materials.quantities import Quantity, asked, check_transport, complete, fractions_of, outside
from scigen.materials.traced import TracedMicrostructure

log = logging.getLogger(__name__)


def simplex(phases: int) -> np.ndarray:
    """Corners (P, P − 1) of a regular simplex around 0, of length 1: v_p · v_q = −1/(P − 1)."""
    centred = np.eye(phases) - 1 / phases
    basis = np.linalg.svd(centred)[2][: phases - 1]
    corners = centred @ basis.T
    corners *= np.sign(corners[0, 0]) if phases == 2 else 1.0
    return corners / np.linalg.norm(corners[0])


class MicrostructureCodec(Codec):
    """Fractions, transport, process parameters and known voxels in; phases out."""

    def __init__(
        self,
        size: Sequence[int],
        phases: Sequence[str],
        known: Sequence[Quantity],
        *,
        periodic: Sequence[bool] = (False, False, False),
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        unit: str = "voxel",
        mean: Sequence[float],
        inpaint: bool = False,
        exact: bool = False,
        open_border: int = 0,
        calibrations: Mapping[int, Calibration] | None = None,
        steps: int | None = None,
    ) -> None:
        """Set the codec.

        Args:
            size: voxels along z, y, x.
            phases: their names, in order of the labels.
            known: what conditions.
            periodic: whether volumes wrap around along each axis.
            voxel_size: along z, y, x [unit].
            unit: of the voxel size.
            mean: volume fractions of the training specimens, (P,).
            inpaint: whether networks take known voxels.
            exact: whether `decode` gives every phase exactly the fraction asked for.
            open_border: voxels that are made beyond each face and cut off, for open faces of a periodic model.
            calibrations: of the scores, by the number of levels they were sampled with, found on held-out specimens;
                None leaves them.
            steps: number of levels of what is decoded; the nearest calibration is taken. None: of the most.
        """
        self.calibrations, self.steps = dict(calibrations or {}), steps
        self.size, self.phases, self.known = tuple(int(n) for n in size), list(phases), list(known)
        self.wraps = tuple(bool(p) for p in periodic)
        self.voxel_size, self.unit = tuple(float(v) for v in voxel_size), unit
        self.mean, self.inpaint, self.exact = np.asarray(mean, np.float64), inpaint, exact
        self.border = int(open_border)
        self.corners = simplex(len(self.phases))
        self._corners = torch.from_numpy(self.corners)

    @property
    def shape(self) -> tuple[int, ...]:
        """(P − 1, Z, Y, X)."""
        return (len(self.phases) - 1, *(n + 2 * self.border for n in self.size))

    @property
    def fields(self) -> int:
        """Known voxels and where they are, if the model takes them."""
        return len(self.phases) if self.inpaint else 0

    @property
    def scalars(self) -> int:
        """Every quantity, and whether it is given."""
        return 2 * len(self.known)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether the volumes wrap around."""
        return self.wraps

    @property
    def measured(self) -> Operator | None:
        """Known voxels, and the mean of the others that told fractions imply."""
        return Known(corners=self._corners)

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """The labels."""
        return {
            "phase": {
                "long_name": "phase",
                "flag_values": np.arange(len(self.phases), dtype=np.uint8),
                "flag_meanings": " ".join(self.phases),
            }
        }

    @property
    def dtypes(self) -> dict[str, str]:
        """Labels are whole numbers."""
        return {"phase": "uint8"}

    @property
    def attributes(self) -> dict[str, Any]:
        """Voxel size and boundaries."""
        return {
            "voxel_size": list(self.voxel_size), "voxel_unit": self.unit,
            "periodic": [int(w and not self.border) for w in self.wraps], "scigen_exact_fractions": int(self.exact),
        }  # fmt: skip

    @property
    def purpose(self) -> dict[str, Any]:
        """Digital specimens."""
        return {
            "use": "Microstructures with given volume fractions and transport, as inputs of simulations.",
            "not": "Certification of parts; materials, resolutions and targets outside the training specimens.",
            "limits": [
                "Targets outside the range of the training specimens are extrapolated.",
                "Features longer than a block, or thinner than a voxel, are not represented.",
                "Properties that were not measured in evaluation (strength, fatigue) are not vouched for.",
            ],
        }

    def prepare(self, archive: xr.Dataset) -> xr.Dataset:
        """Targets of an archive with a dimension `specimen`; quantities that it lacks are free.

        Raises:
            UserError: for fractions that are none, impossible transport, or known voxels that do not fit.
        """
        names = [q.name for q in self.known]
        has = [n for n in names if n in archive.data_vars]
        if "specimen" not in archive.dims:
            raise UserError(
                f"The input has the dimensions {', '.join(map(str, archive.dims))}, and no specimen: give a dataset"
                f" with variables {', '.join(names)} along a dimension specimen."
            )
        count = archive.sizes["specimen"]
        if not has and "known" not in archive.data_vars:
            raise UserError(f"The input has none of {', '.join(names)}, and no known voxels (known).")
        out = xr.Dataset(coords={"specimen": archive["specimen"] if "specimen" in archive.coords else np.arange(count)})
        for n in names:
            values = np.asarray(archive[n].values, np.float64) if n in has else np.full(count, np.nan)
            if values.shape != (count,):
                raise UserError(f"'{n}' has the shape {values.shape}, expected one number a specimen, ({count},).")
            if np.isinf(values).any():
                raise UserError(f"'{n}' is infinite at specimen {int(np.argmax(np.isinf(values)))}.")
            out[n] = ("specimen", values)
        if "known" in archive.data_vars:
            out["known"] = (("specimen", "z", "y", "x"), self._part(archive["known"].values, count))
        out = complete(out, self.phases)
        check_transport(out, self.known, self.phases)
        for sentence in outside(out, self.known):
            log.warning("%s: the model extrapolates.", sentence)
        return out

    def request(self, words: Mapping[str, Any], specimens: int = 1) -> xr.Dataset:
        """An archive of targets from words of a command line."""
        return asked(words, self.known, specimens)

    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """Names of the specimens."""
        return [str(s) for s in inputs["specimen"].values]

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """What networks see, and what `decode` needs.

        Returns:
            "scalars" (B, 2 Q): normalised quantities, 0 where free, and whether they are given; "fraction" (B, P), NaN
            where free; "told" (B,), whether all fractions are given; where something is measured (see `Known`)
            "measurement" (B, P − 1, Z, Y, X); for models that take known voxels "fields" (B, P, Z, Y, X) and "known"
            (B, 1, Z, Y, X).
        """
        part = inputs.isel(specimen=index)
        values = np.stack([q.normalise(part[q.name].values) for q in self.known], axis=1)
        given = np.isfinite(values)
        seen = np.concatenate([np.where(given, values, 0.0), given], axis=1)
        share = fractions_of(part, self.phases)
        out = {"scalars": torch.from_numpy(seen.astype(np.float32)), "fraction": torch.from_numpy(share)}
        out["told"] = ~torch.isnan(out["fraction"]).any(1)
        shape = (len(share), *self.shape[1:])
        if self.measured is None:
            return out
        if not self.inpaint:
            out["measurement"] = torch.zeros(len(share), *self.shape)  # the base has the mean already
        else:
            labels = np.full(shape, UNKNOWN, np.uint8)
            if "known" in part:
                b = self.border
                inside = tuple(slice(b, b + n) for n in self.size)
                labels[(slice(None), *inside)] = part["known"].values
            mask = torch.from_numpy(labels != UNKNOWN)[:, None].float()
            x = (self._embed(np.where(labels == UNKNOWN, 0, labels)) - self._base(out["fraction"])).float() * mask
            rest = -x.sum((2, 3, 4), keepdim=True) / (1 - mask).sum((2, 3, 4), keepdim=True).clamp_min(1)
            out["measurement"] = x + rest * out["told"][:, None, None, None, None] * (1 - mask)
            out["known"] = mask
            out["fields"] = torch.cat([x, mask], dim=1)
        return out

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """x − base, (B, P − 1, Z, Y, X), of the true labels."""
        share = torch.from_numpy(fractions_of(inputs.isel(specimen=index), self.phases))
        labels = np.asarray(truth["phase"].isel(specimen=index).values)
        return (self._embed(labels) - self._base(share)).float()

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Labels (B, 1, Z, Y, X): the nearest corner, biased to the exact fractions if these are asked for."""
        share = condition["fraction"].cpu()
        raw = self.scores(x.cpu(), share)
        scores = torch.from_numpy(self.calibration.apply(raw.numpy(), self.wraps))
        known = condition.get("known")
        if known is not None:  # what is told stays as it is
            scores = torch.where(known.cpu() > 0, raw, scores)
        if self.border:
            b = self.border
            z, y, x_ = (slice(b, b + n) for n in self.size)
            scores = scores[:, :, z, y, x_]
        out = []
        for i, one in enumerate(scores.numpy()):
            fixed = None
            if known is not None and self.exact and bool(known[i].any()):
                b = self.border
                fixed = known[i, 0].cpu().numpy()[tuple(slice(b, b + n) for n in self.size)] > 0
            out.append(label(one, share[i].numpy() if self.exact else None, self.phases, fixed))
        return torch.from_numpy(np.stack(out))[:, None].float()

    def traced(self) -> TracedMicrostructure:
        """Quantities and known voxels in, labels out."""
        return TracedMicrostructure(self)

    def scores(self, x: Tensor, share: Tensor) -> Tensor:
        """v_p · (x + base), (B, P, *S) of network samples."""
        full = x.double() + self._base(share)
        return torch.einsum("pc,bc...->bp...", self._corners, full)

    def scored(self, fields: np.ndarray) -> np.ndarray:
        """One indicator a phase but the last, instead of labels."""
        return np.concatenate([fields == p for p in range(len(self.phases) - 1)], axis=-4).astype(np.float32)

    def typical(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Samples about the mean of their own fractions, as if these were given."""
        x = self._embed(np.asarray(truth["phase"].isel(specimen=index).values))
        return (x - x.mean(dim=(2, 3, 4), keepdim=True)).float()

    def adapt(self, options: Mapping[str, Any]) -> "MicrostructureCodec":
        """For volumes of another size, with open faces, or with exact fractions.

        Args:
            options: size (3 voxels numbers or one), boundary (periodic or open), exact (true or false); None leaves.

        Raises:
            UserError: for an unknown option or value.
        """
        own: dict[str, Any] = {}
        for name, value in options.items():
            if value is None:
                continue
            if name == "size":
                size = [int(value)] * 3 if isinstance(value, int) else [int(v) for v in value]
                if len(size) != 3 or min(size) < 8:
                    raise UserError(f"size={value}: expected three numbers of voxels, z, y, x, of at least 8.")
                own["size"] = size
            elif name == "boundary":
                if value not in ("periodic", "open"):
                    raise UserError(f"boundary={value}: periodic or open.")
                if value == "periodic" and not all(self.wraps):
                    raise UserError(
                        "boundary=periodic: this model was trained on volumes with open faces, and makes no periodic"
                        " ones."
                    )
                own["open_border"] = OPEN_BORDER if value == "open" and any(self.wraps) else 0
            elif name == "exact":
                own["exact"] = bool(value)
            else:
                raise UserError(f"{name}=: models of microstructures take size, boundary and exact.")
        return self.like(**own)

    def like(self, **changes: Any) -> "MicrostructureCodec":
        """The same but for these arguments of the constructor."""
        return MicrostructureCodec(**(self.arguments | changes))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor was given."""
        return dict(
            size=self.size, phases=self.phases, known=self.known, periodic=self.wraps, voxel_size=self.voxel_size,
            unit=self.unit, mean=self.mean, inpaint=self.inpaint, exact=self.exact, open_border=self.border,
            calibrations=self.calibrations, steps=self.steps,
        )  # fmt: skip

    @property
    def calibration(self) -> Calibration:
        """Of the number of levels, or the nearest there is one of."""
        if not self.calibrations:
            return Calibration()
        wanted = max(self.calibrations) if self.steps is None else self.steps
        return self.calibrations[min(self.calibrations, key=lambda n: abs(n - wanted))]

    def after(self, steps: int) -> "MicrostructureCodec":
        """With the calibration of so many levels."""
        return self.like(steps=steps)

    def calibrated(
        self, x: Tensor, condition: Mapping[str, Tensor], truth: xr.Dataset, steps: int
    ) -> "MicrostructureCodec":
        """With the smoothing and biases that make volumes of so many levels right on average."""
        share = condition["fraction"].cpu()
        found = calibrate(self.scores(x.cpu(), share).numpy(), truth["phase"].values, share.numpy(), self.wraps)
        log.info(
            "scores after %d calls are smoothed over %g voxels, biases %s",
            steps, found.width, np.round(found.bias, 3).tolist(),
        )  # fmt: skip
        return self.like(calibrations={**self.calibrations, steps: found})

    @property
    def uncalibrated(self) -> "MicrostructureCodec":
        """With scores left as they are."""
        return self.like(calibrations=None)

    def layout(self, inputs: xr.Dataset, archive: xr.Dataset | None = None) -> Layout:
        """Specimens with their targets, and positions of voxel centres."""
        coords: dict[str, Any] = {"specimen": inputs["specimen"]}
        for axis, n, step in zip("zyx", self.size, self.voxel_size, strict=True):
            coords[axis] = (
                axis,
                (np.arange(n) + 0.5) * step,
                {"units": self.unit, "long_name": f"position along {axis}"},
            )
        for q in self.known:
            coords[f"target_{q.name}"] = ("specimen", inputs[q.name].values)
        return Layout(xr.Dataset(coords=coords), ("specimen", "z", "y", "x"))

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of other programs, and pictures."""
        return tuple(FORMATS)

    def export(self, archive: xr.Dataset, stem: Path, formats: Sequence[str]) -> list[Path]:
        """Every volume as tif, vti or npz, or a preview of the first few as png."""
        return export(archive, stem, formats) if formats else []

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All arguments as JSON."""
        return {
            "size": list(self.size), "phases": self.phases, "known": [q.to_dict() for q in self.known],
            "periodic": list(self.wraps), "voxel_size": list(self.voxel_size), "unit": self.unit,
            "mean": self.mean.tolist(), "inpaint": self.inpaint, "exact": self.exact, "open_border": self.border,
            "calibrations": {str(n): asdict(c) for n, c in self.calibrations.items()},
        }, {}  # fmt: skip

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""
        own = dict(settings)
        found = own.pop("calibrations")
        own["calibrations"] = {int(n): Calibration(c["width"], tuple(c["bias"])) for n, c in found.items()}
        return cls(own.pop("size"), own.pop("phases"), [Quantity(**q) for q in own.pop("known")], **own)

    def _part(self, values: np.ndarray, count: int) -> np.ndarray:
        """Known voxels of an archive, checked."""
        if not self.inpaint:
            raise UserError("This model takes no known voxels: fit one with data.known above 0.")
        return checked_part(values, (count, *self.size), self.phases)

    def _embed(self, labels: np.ndarray) -> Tensor:
        """Corners of the labels: (B, Z, Y, X) → (B, P − 1, Z, Y, X) float64."""
        return self._corners[torch.from_numpy(np.ascontiguousarray(labels, np.int64))].movedim(-1, 1)

    def _base(self, share: Tensor) -> Tensor:
        """Σ φ_p v_p, (B, P − 1, 1, 1, 1)."""
        own = torch.where(torch.isnan(share).any(1, keepdim=True), torch.from_numpy(self.mean), share)
        return (own @ self._corners)[..., None, None, None]


OPEN_BORDER = 16
"""Voxels beyond each face that make a periodic model's volume an open one."""
