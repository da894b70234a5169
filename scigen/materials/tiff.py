"""TIFF stacks: grey values as stored, voxel sizes of ImageJ and OME."""

import contextlib
import logging
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import tifffile

from scigen.errors import UserError
from scigen.materials.scan import Scan, length_unit

log = logging.getLogger(__name__)


def read_tiff(path: Path, name: str) -> Scan:
    """The stack, or the page, of a TIFF file.

    Grey values are those stored. A photometric interpretation of MINISWHITE says how to show them and is not applied:
    applied, it swaps pore and solid. A colour map is not applied either. The resolution of plain TIFF is meant for
    printers and is not read; that of ImageJ and OME is.

    Args:
        path: of the file.
        name: of the volume.

    Returns:
        The scan, two-dimensional for a single page.

    Raises:
        UserError: if it is no TIFF, damaged, cut short, compressed in a way that is not installed, in colours, or has
            several images.
    """
    try:
        with _errors() as errors, tifffile.TiffFile(path) as file:
            scan = _read(file, path, name)
            announced = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
            pages = math.prod(scan.values.shape[:-2])
            if announced > pages:
                errors.append(f"it announces {announced} pages and holds {pages}")
    except UserError:
        raise
    except Exception as error:  # the kinds of error of damaged files are as many as their tags
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "imagecodecs" in text:
            raise UserError(
                f"{path} is compressed in a way that needs another package ({text}): pip install imagecodecs, or save "
                "the stack without compression or with deflate."
            ) from error
        if isinstance(error, tifffile.TiffFileError) and "not a TIFF" in text:
            raise UserError(f"{path} is no TIFF file ({text}): give the stack, or correct its suffix.") from error
        raise _damaged(path, text) from error
    if errors:
        raise _damaged(path, errors[0])
    return scan


def _read(file: tifffile.TiffFile, path: Path, name: str) -> Scan:
    """Grey values and voxel size of an open file."""
    stacks = [s for s in file.series if len(s.shape) > 2] or list(file.series)
    if len(stacks) != 1:
        shapes = ", ".join("×".join(map(str, s.shape)) for s in stacks[:4])
        raise UserError(f"{path} holds {len(stacks)} images of different shapes ({shapes}): give one stack a file.")
    series = stacks[0]
    if "S" in series.axes:
        raise UserError(
            f"{path} is in colours ({'×'.join(map(str, series.shape))}, axes {series.axes}): expected grey values. "
            "Save the labels as a greyscale stack."
        )
    values = series.asarray()
    if values.ndim == 3 and series.axes[0] in "TC":
        log.info("%s: its %d %s are taken as z.", path, len(values), {"T": "times", "C": "channels"}[series.axes[0]])
    scan = Scan(name, values)
    if file.ome_metadata:
        return _ome(scan, file.ome_metadata)
    return _imagej(scan, file, path) if file.is_imagej else scan


def _imagej(scan: Scan, file: tifffile.TiffFile, path: Path) -> Scan:
    """With the calibration of ImageJ: pixels a unit along x and y, spacing along z."""
    about = file.imagej_metadata or {}
    unit = length_unit(str(about.get("unit", "")), f"unit of {path}")
    tags = file.pages.first.tags
    pixels = [tags[key].value if key in tags else (0, 0) for key in ("YResolution", "XResolution")]
    if "unit" not in about or not all(a and b for a, b in pixels):
        return scan
    y, x = (b / a for a, b in pixels)
    z = abs(float(about.get("spacing", 1.0)))  # ImageJ leaves out a spacing of 1
    return Scan(scan.name, scan.values, (z, y, x), unit)


def _ome(scan: Scan, text: str) -> Scan:
    """With the physical sizes of OME, if all three are there."""
    pixels = next((e for e in ET.fromstring(text).iter() if e.tag.endswith("}Pixels")), None)
    if pixels is None or not all(pixels.get(f"PhysicalSize{a}") for a in "ZYX"):
        return scan
    units = {length_unit(pixels.get(f"PhysicalSize{a}Unit", "µm"), f"unit of {scan.name}") for a in "ZYX"}
    if len(units) > 1 or units == {"voxel"}:
        return scan
    z, y, x = (float(pixels.get(f"PhysicalSize{a}", "1")) for a in "ZYX")
    return Scan(scan.name, scan.values, (z, y, x), units.pop())


def _damaged(path: Path, text: str) -> UserError:
    return UserError(f"{path} seems damaged or cut short ({text.rstrip('.')}): fetch or make it again.")


@contextlib.contextmanager
def _errors() -> Iterator[list[str]]:
    """Collect what tifffile only logs: of a file that is cut short it gives the pages that it can find."""
    logger, found = logging.getLogger("tifffile"), list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, propagate = Collector(logging.ERROR), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
