"""ISMRMRD raw data: Cartesian acquisitions of two dimensions as scans (Inati et al. 2017, Magn. Reson. Med. 77).

Needs the package `ismrmrd`: pip install 'scigen[ismrmrd]'.
"""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import reading
from scigen.mri.fastmri import SUFFIXES as HDF5
from scigen.mri.fastmri import without_oversampling
from scigen.mri.layout import assemble

log = logging.getLogger(__name__)

SUFFIXES = (*HDF5, ".mrd")

GROUP = "dataset"
"""Of HDF5 files, where the library writes header and acquisitions."""

SKIPPED = (
    "NAVIGATION_DATA", "PHASECORR_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA", "HPFEEDBACK_DATA",
    "SURFACECOILCORRECTIONSCAN_DATA", "PHASE_STABILIZATION", "PHASE_STABILIZATION_REFERENCE",
)  # fmt: skip
"""Flags of acquisitions that are no lines of the image."""

SINGLE = ("contrast", "phase", "repetition", "set", "kspace_encode_step_2")
"""Counters that must not differ within a file; averages may, and are averaged."""


def is_raw(path: Path) -> bool:
    """Whether a file holds acquisitions of ISMRMRD."""
    if not path.name.lower().endswith(SUFFIXES) or not h5py.is_hdf5(path):
        return False
    with reading(str(path)), h5py.File(path, "r") as file:
        group = file.get(GROUP)
        return isinstance(group, h5py.Group) and {"xml", "data"} <= set(group)


def read_ismrmrd(path: Path) -> xr.Dataset:
    """One file as a scan dataset, not checked yet.

    Lines are placed by their counters and the header's encoding limits, readouts by their centre sample. Lines for
    calibration fill what the image's own lines leave. Oversampling of the readout is taken away by cropping in image
    space. If noise was measured, coils are whitened with its covariance, and `noise_std` is what is left, at the
    bandwidth of the image.

    Args:
        path: of the file.

    Returns:
        `kspace` with the readout along ky and the lines along kx, `mask`, and `noise_std` if it was measured; slices
        "<file stem>/<number>"; attributes `acquisition`, the protocol's name, `voxel_size` (z, y, x) [mm] and
        `recon_shape`.

    Raises:
        UserError: if the package is not there, or the file is damaged, not Cartesian, three-dimensional, or holds
            several contrasts, phases, repetitions or sets.
    """
    header, lines, noise = _acquisitions(path)
    encoding = header.encoding[0]
    space, recon = encoding.encodedSpace, encoding.reconSpace
    rows, columns = int(space.matrixSize.x), int(space.matrixSize.y)
    limits = encoding.encodingLimits.kspace_encoding_step_1 if encoding.encodingLimits else None
    centre = int(limits.center) if limits is not None else columns // 2
    slices = sorted({int(a.idx.slice) for a in lines})
    shape = (len(slices), int(lines[0].active_channels), rows, columns)
    kspace, count = np.zeros(shape, np.complex128), np.zeros((shape[0], *shape[2:]), int)
    for calibrating in (False, True):
        filled = count > 0
        for a in lines:
            if bool(a.is_flag_set(_flag("IS_PARALLEL_CALIBRATION"))) != calibrating:
                continue
            s, column = slices.index(int(a.idx.slice)), int(a.idx.kspace_encode_step_1) - centre + columns // 2
            data = np.asarray(a.data)[:, int(a.discard_pre) : int(a.number_of_samples) - int(a.discard_post)]
            if a.is_flag_set(_flag("IS_REVERSE")):
                data = data[:, ::-1]
            first = rows // 2 - (int(a.center_sample) - int(a.discard_pre))
            last = first + data.shape[1]
            if len(data) != shape[1] or not 0 <= column < columns or first < 0 or last > rows:
                raise UserError(
                    f"{path}: line {int(a.idx.kspace_encode_step_1)} of slice {slices[s]} has {data.shape[0]} coils and"
                    f" {data.shape[1]} samples from {first} on, expected {shape[1]} and {rows} of {columns} lines:"
                    " header and acquisitions contradict each other."
                )
            free = ~filled[s, first:last, column]
            kspace[s, :, first:last, column] += np.where(free, data, 0)
            count[s, first:last, column] += free
    kspace /= np.maximum(count, 1)[:, None]
    std = None
    if noise:
        kspace, std = _whitened(kspace, noise, lines[0], header)
    target = round(rows * float(recon.fieldOfView_mm.x) / float(space.fieldOfView_mm.x))
    mask = count > 0
    if target < rows and (mask == mask.any(1, keepdims=True)).all():
        log.info("%s: the readout is oversampled: cropped from %d rows to %d.", path, rows, target)
        kspace, mask = without_oversampling(kspace, target), mask[:, :target]
    elif target < rows:
        log.warning("%s: the readout is oversampled, and not sampled whole: left as it is.", path)
    ds = assemble(kspace.astype(np.complex64), str(path), path.stem, mask=mask, noise_std=std)
    size, field = recon.matrixSize, recon.fieldOfView_mm
    ds.attrs = {
        "voxel_size": [float(field.z), float(field.x) / int(size.x), float(field.y) / int(size.y)],
        "recon_shape": [min(int(size.x), kspace.shape[-2]), min(int(size.y), columns)],
    }
    name = getattr(header.measurementInformation, "protocolName", None)
    ds.attrs |= {"acquisition": str(name)} if name else {}
    ds.encoding["source"] = str(path)
    return ds


def _acquisitions(path: Path) -> tuple[Any, list[Any], list[Any]]:
    """Header, lines of the image and of calibration, and measurements of noise."""
    try:
        import ismrmrd
    except ImportError as error:
        raise UserError(f"{path} is ISMRMRD raw data: pip install 'scigen[ismrmrd]' reads it.") from error
    with reading(str(path)), ismrmrd.Dataset(str(path), GROUP, mode="r") as file:
        xml = file.read_xml_header()
        every = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
    try:
        header = ismrmrd.xsd.CreateFromDocument(xml)
        encoding = header.encoding[0]
        trajectory = getattr(encoding.trajectory, "value", encoding.trajectory)
    except Exception as error:  # whatever a parser of XML raises
        raise UserError(f"{path}: its header cannot be understood ({error}): convert the raw data again.") from error
    if str(trajectory) != "cartesian":
        raise UserError(f"{path}: the trajectory is {trajectory}, expected cartesian: grid the raw data first.")
    noise = [a for a in every if a.is_flag_set(_flag("IS_NOISE_MEASUREMENT"))]
    lines = [a for a in every if not any(a.is_flag_set(_flag(f"IS_{n}")) for n in (*SKIPPED, "NOISE_MEASUREMENT"))]
    if not lines:
        raise UserError(f"{path} has {len(every)} acquisitions, none of them a line of an image.")
    for name in SINGLE:
        values = sorted({int(getattr(a.idx, name)) for a in lines})
        if len(values) > 1:
            raise UserError(
                f"{path}: the acquisitions differ in {name} ({', '.join(map(str, values[:5]))}), expected slices of two"
                " dimensions of one kind: write a file of each."
            )
    return header, lines, noise


def _flag(name: str) -> int:
    """The library's number of a flag."""
    import ismrmrd

    return int(getattr(ismrmrd, f"ACQ_{name}"))


def _whitened(kspace: np.ndarray, noise: list[Any], line: Any, header: Any) -> tuple[np.ndarray, float | None]:
    """k-space whose coils have independent noise of one strength, and this, per real and imaginary part."""
    samples = np.concatenate([np.asarray(a.data, np.complex128) for a in noise], axis=1)
    coils = kspace.shape[1]
    if len(samples) != coils or samples.shape[1] < 2 * coils:
        log.warning("the measurement of noise, %s, does not fit %d coils: not used.", samples.shape, coils)
        return kspace, None
    covariance = samples @ samples.conj().T / (2 * samples.shape[1])  # of each part
    system = header.acquisitionSystemInformation
    share = float(getattr(system, "relativeReceiverNoiseBandwidth", None) or 1)
    dwell = float(noise[0].sample_time_us), float(line.sample_time_us)
    if min(dwell) > 0:
        covariance *= dwell[0] / (dwell[1] * share)
    std = float(np.sqrt(np.trace(covariance).real / coils))
    if not std > 0:
        return kspace, None
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        log.warning("the covariance of the coils' noise is singular: they are not whitened.")
        return kspace, std
    return std * np.einsum("ij,sjyx->siyx", np.linalg.inv(root), kspace), std
