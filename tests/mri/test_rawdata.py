"""ISMRMRD: a file that the library writes becomes the scan that it was made of."""

import sys
from pathlib import Path

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.rawdata import is_raw, read_ismrmrd
from scigen.mri.reading import is_scan, open_scans

ismrmrd = pytest.importorskip("ismrmrd", reason="ismrmrd is not installed: pip install 'scigen[ismrmrd]'")

SLICES, COILS, OVER, ROWS, COLUMNS = 2, 3, 48, 24, 20
CENTRE = 8
"""The scanner counts 18 of 20 columns: from 2 on, so that column 10 is its line 8."""


def header(trajectory: str = "cartesian", centre: int = CENTRE) -> str:
    space = (
        "<{0}Space><matrixSize><x>{1}</x><y>{2}</y><z>1</z></matrixSize>"
        "<fieldOfView_mm><x>{3}</x><y>200</y><z>5</z></fieldOfView_mm></{0}Space>"
    )
    return f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
    <acquisitionSystemInformation><relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>
    </acquisitionSystemInformation>
    <experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
    <encoding>{space.format("encoded", OVER, COLUMNS, 480)}{space.format("recon", ROWS, COLUMNS, 240)}
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>17</maximum><center>{centre}</center>
    </kspace_encoding_step_1></encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"""


def image() -> np.ndarray:
    """Coil images of twice the field of view along the readout, empty beyond the middle half."""
    rng = np.random.default_rng(0)
    out = np.zeros((SLICES, COILS, OVER, COLUMNS), complex)
    inner = slice(OVER // 2 - 8, OVER // 2 + 8)
    out[:, :, inner, 5:15] = rng.standard_normal((SLICES, COILS, 16, 10)) + 3
    return out


def write(
    path: Path, kspace: np.ndarray, lines: dict[int, str], text: str | None = None, noise: np.ndarray | None = None,
    centre: int = CENTRE,
    **counters: int,
) -> Path:  # fmt: skip
    """Lines of scanner numbers with their flags, in a random order; a line with `contrast` counts up where asked."""
    with ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(text or header(centre=centre))

        def add(
            data: np.ndarray, flags: tuple[str, ...] = (), line: int = 0, number: int = 0, dwell: float = 5.0
        ) -> None:
            a = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64))
            a.sample_time_us, a.center_sample = dwell, data.shape[1] // 2
            a.idx.kspace_encode_step_1, a.idx.slice = line, number
            for key, value in counters.items():
                setattr(a.idx, key, value * (line % 2))
            for flag in flags:
                a.set_flag(getattr(ismrmrd, f"ACQ_{flag}"))
            file.append_acquisition(a)

        if noise is not None:
            add(noise, ("IS_NOISE_MEASUREMENT",), dwell=10.0)
        rng = np.random.default_rng(1)
        for number in range(SLICES):
            for line in rng.permutation(list(lines)).tolist():
                column = line - centre + COLUMNS // 2
                add(kspace[number, :, :, column], tuple(f for f in (lines[line],) if f), line, number)
        add(np.full((COILS, OVER), 1e6), ("IS_NAVIGATION_DATA",))
        add(np.full((COILS, OVER), 1e6), ("IS_PHASECORR_DATA",))
    return path


def test_lines_lie_where_they_belong_and_the_readout_is_cropped(tmp_path: Path) -> None:
    k = fft2c(image())
    lines = {n: "" for n in range(0, 18, 2)} | {7: "IS_PARALLEL_CALIBRATION", 9: "IS_PARALLEL_CALIBRATION"}
    path = write(tmp_path / "a.h5", k, lines)
    assert is_raw(path) and is_scan(path)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        again = next(a for a in map(file.read_acquisition, range(20)) if a.idx.kspace_encode_step_1 == 8)
        again.data[:] = 2 * again.data
        again.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        file.append_acquisition(again)  # the image has this line of its own
    ds = read_ismrmrd(path)
    taken = np.zeros(COLUMNS, bool)
    taken[[n - CENTRE + COLUMNS // 2 for n in lines]] = True
    np.testing.assert_array_equal(ds["mask"].values, np.broadcast_to(taken, (SLICES, ROWS, COLUMNS)))
    middle = slice(OVER // 2 - ROWS // 2, OVER // 2 + ROWS // 2)
    want = fft2c(image()[:, :, middle]) * taken
    np.testing.assert_allclose(ds["kspace"].values, want, atol=1e-4)
    assert ds.attrs["voxel_size"] == [5.0, 10.0, 10.0] and ds["slice"].values.tolist() == ["a/0", "a/1"]
    assert "noise_std" not in ds


def test_a_whole_scan_has_its_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrd", fft2c(image()), dict.fromkeys(range(COLUMNS), ""), centre=COLUMNS // 2)
    ds = open_scans(path)
    assert ds.attrs["image"] == "complex" and ds["image"].shape == (SLICES, ROWS, COLUMNS)
    rss = np.sqrt((np.abs(ifft2c(ds["kspace"].values)) ** 2).sum(1))
    np.testing.assert_allclose(np.abs(ds["image"].values)[rss > 3], rss[rss > 3], rtol=0.2)


def test_measured_noise_whitens_the_coils_at_the_image_s_bandwidth(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    mixing = np.array([[1, 0, 0], [0.8, 0.5, 0], [0.2j, 0, 2]])

    def draw(*shape: int) -> np.ndarray:
        white = rng.standard_normal((COILS, *shape)) + 1j * rng.standard_normal((COILS, *shape))
        return np.tensordot(mixing, white, 1)

    # the noise scan is twice as slow, and its filter lets 0.8 of the noise pass
    k = np.moveaxis(draw(SLICES, OVER, COLUMNS), 0, 1)
    noise = draw(20000) * np.sqrt(0.8 / 2)
    ds = read_ismrmrd(write(tmp_path / "a.h5", k, dict.fromkeys(range(18), ""), noise=noise))
    std = float(ds["noise_std"].values[0])
    made = ds["kspace"].values[:, :, ds["mask"].values[0]]
    rows = np.concatenate(list(made), axis=1)
    found = rows @ rows.conj().T / (2 * rows.shape[1])
    np.testing.assert_allclose(found, std**2 * np.eye(COILS), atol=0.12 * std**2)
    assert std == pytest.approx(np.sqrt(np.trace(mixing @ mixing.conj().T).real / COILS), rel=0.03)


def test_averages_are_averaged(tmp_path: Path) -> None:
    k = fft2c(image())
    path = write(tmp_path / "a.h5", k, dict.fromkeys(range(18), ""))
    with ismrmrd.Dataset(str(path), "dataset") as file:
        a = file.read_acquisition(0)
        a.data[:] = a.data + 2
        a.idx.average = 1
        file.append_acquisition(a)
    got, want = read_ismrmrd(path), read_ismrmrd(write(tmp_path / "b.h5", k, dict.fromkeys(range(18), "")))
    gap = np.abs(got["kspace"].values - want["kspace"].values).max((1, 2))
    assert (gap > 1e-3).sum() == 1  # of one line of one slice, where it is the mean of both


def test_what_is_no_stack_of_cartesian_slices_is_refused(tmp_path: Path) -> None:
    k, lines = fft2c(image()), dict.fromkeys(range(18), "")
    with pytest.raises(UserError, match="trajectory is radial"):
        read_ismrmrd(write(tmp_path / "a.h5", k, lines, header("radial")))
    with pytest.raises(UserError, match="differ in contrast"):
        read_ismrmrd(write(tmp_path / "b.h5", k, lines, contrast=1))
    with pytest.raises(UserError, match="kspace_encode_step_2"):
        read_ismrmrd(write(tmp_path / "c.h5", k, lines, kspace_encode_step_2=1))
    with pytest.raises(UserError, match="cannot be understood"):
        read_ismrmrd(write(tmp_path / "d.h5", k, lines, "<nothing"))
    with pytest.raises(UserError, match="contradict each other"):
        read_ismrmrd(write(tmp_path / "e.h5", k[:, :, :, :], lines, header().replace(f"<x>{OVER}</x>", "<x>40</x>")))
    with pytest.raises(UserError, match="none of them a line"):
        read_ismrmrd(write(tmp_path / "f.h5", k, {}))


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5", fft2c(image()), {8: ""})
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(UserError, match=r"scigen\[ismrmrd\]"):
        read_ismrmrd(path)
