"""A volume as a file holds it: grey values, and what the file says about their voxels and phases."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from scigen.errors import UserError
from scigen.io.units import parse_units

Size = tuple[float, float, float]

PIXELS = ("", "voxel", "voxels", "pixel", "pixels", "px")
UNITS = ("nm", "um", "mm", "cm", "m", "angstrom", "inch")
"""Names of units as scigen writes them."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What one file, or a part of it, holds.

    Attributes:
        name: for messages and outputs.
        values: grey values, (Z, Y, X) if it is in order.
        voxel_size: along z, y, x as the file has it, None if it has none.
        unit: of lengths, None if the file names none.
        phases: grey value by name, None if the file names none.
        group: see `scigen.materials.volumes.Volume`.
    """

    name: str
    values: np.ndarray
    voxel_size: Size | None = None
    unit: str | None = None
    phases: Mapping[str, int] | None = None
    group: str = ""

    def about(self, *attributes: Mapping[str, Any]) -> Self:
        """With what attributes say, the first that say it: `voxel_size`, `unit` or `voxel_unit`, `phases`.

        `element_size_um`, which ilastik and PlantSeg write, and the flags of the CF conventions are known as well.

        Raises:
            UserError: if one cannot be understood.
        """
        attrs: dict[str, Any] = {}
        for more in attributes:
            attrs = {**more, **attrs}
        size, unit = attrs.get("voxel_size"), attrs.get("voxel_unit", attrs.get("unit"))
        if size is None and "element_size_um" in attrs:
            size, unit = attrs["element_size_um"], "um"
        return replace(
            self,
            voxel_size=self.voxel_size if size is None else three(_plain(size), f"voxel_size of {self.name}"),
            unit=self.unit if unit is None else length_unit(str(_plain(unit)), f"unit of {self.name}"),
            phases=_phases(attrs) or self.phases,
        )


def three(size: Any, key: str) -> Size:
    """One number or three, in the order z, y, x, as three.

    Args:
        size: what was given.
        key: what it is, for messages.

    Raises:
        UserError: if it is not one or three positive numbers.
    """
    try:
        numbers = np.atleast_1d(np.asarray(size, np.float64)).ravel()
    except (TypeError, ValueError):
        numbers = np.array([])
    if len(numbers) not in (1, 3) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise UserError(f"{key}={size}: expected one positive number, or three in the order z, y, x.")
    z, y, x = np.broadcast_to(numbers, 3).tolist()
    return z, y, x


def length_unit(text: str, key: str) -> str:
    """A unit of length in scigen's spelling: "um" for µm, micron or micrometre, "voxel" for pixels.

    Args:
        text: any spelling.
        key: what it is, for messages.

    Raises:
        UserError: if it is no unit of length.
    """
    text = text.strip().replace("\\u00B5", "µ")  # ImageJ escapes it
    if text.lower() in PIXELS:
        return "voxel"
    if text in UNITS:
        return text
    unit = parse_units(text)
    if unit is None or unit.dimensionality != {"[length]": 1}:
        raise UserError(f"{key}={text!r}: expected a unit of length, such as um or nm, or voxel.")
    return next((u for u in UNITS if math.isclose((1 * unit).to(parse_units(u)).magnitude, 1)), text)


def settle(scan: Scan, size: Size | None, unit: str | None) -> tuple[Size, str]:
    """Voxel size and its unit, of what was given and what the file says: what was given comes first.

    Args:
        scan: as read.
        size: as given.
        unit: as given; the size of the file is converted to it.

    Raises:
        UserError: if a unit was given for a size that nobody knows, or the unit of the file does not convert.
    """
    if size is not None:
        return size, unit or scan.unit or "voxel"
    if scan.voxel_size is None:
        if unit not in (None, "voxel"):
            raise UserError(f"unit={unit}, but {scan.name} does not say its voxel size: give voxel_size as well.")
        return (1.0, 1.0, 1.0), "voxel"
    if unit is None or scan.unit is None or unit == scan.unit:
        return scan.voxel_size, unit or scan.unit or "voxel"
    if "voxel" in (unit, scan.unit):
        raise UserError(
            f"unit={unit}, but the voxel size of {scan.name}, {scan.voxel_size}, is in {scan.unit}: leave unit out, or "
            "give voxel_size as well."
        )
    z, y, x = (convert(s, scan.unit, unit) for s in scan.voxel_size)
    return (z, y, x), unit


def convert(length: float, unit: str, wanted: str) -> float:
    """A length in another unit, to twelve digits."""
    return float(f"{(length * parse_units(unit)).to(parse_units(wanted)).magnitude:.12g}")


def _phases(attrs: Mapping[str, Any]) -> dict[str, int] | None:
    """Phases that attributes name: a list, or the CF flags; None if there is nothing or it is of another form."""
    names = _plain(attrs.get("phases"))
    if isinstance(names, Mapping) and all(isinstance(v, int) for v in names.values()):
        return dict(names)
    values: Sequence[Any] | None = None
    if names is None and "flag_meanings" in attrs and "flag_values" in attrs:
        names, values = str(attrs["flag_meanings"]).split(), np.atleast_1d(attrs["flag_values"]).tolist()
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(n, str) for n in names):
        return None
    values = range(len(names)) if values is None else values
    return dict(zip(names, map(int, values), strict=True)) if len(values) == len(names) else None


def _plain(value: Any) -> Any:
    """An attribute in Python's own types; text that is JSON, as netCDF needs for lists, is decoded."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
    if isinstance(value, str) and value[:1] in "[{" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
