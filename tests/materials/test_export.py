import base64
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr

from scigen.errors import UserError
from scigen.materials import export as module
from scigen.materials.export import export
from scigen.materials.reading import read_volumes

SIZE = (0.5, 0.35, 0.25)
LABELS = np.random.default_rng(2).integers(0, 3, (2, 2, 12, 10, 9)).astype(np.uint8)


def ensemble(labels: np.ndarray = LABELS, **attrs: object) -> xr.Dataset:
    about = {"voxel_size": list(SIZE), "unit": "um", "phases": ["pore", "solid", "glue"]} | attrs
    return xr.Dataset(
        {"phase": (("specimen", "member", "z", "y", "x"), labels)},
        {"specimen": ["wet", "a/b c"][: len(labels)], "member": [0, 1][: labels.shape[1]]},
        {k: v for k, v in about.items() if v is not None},
    )


def read_vti(path: Path) -> tuple[np.ndarray, list[float]]:
    """Parsed anew from VTK's description of its format: labels by [x, y, z], spacing along x, y, z."""
    root = ET.parse(path).getroot()
    assert root.attrib["type"] == "ImageData" and root.attrib["compressor"] == "vtkZLibDataCompressor"
    assert (root.attrib["byte_order"], root.attrib["header_type"]) == ("LittleEndian", "UInt64")
    image = root.find("ImageData")
    cells = root.find("ImageData/Piece/CellData")
    array = root.find("ImageData/Piece/CellData/DataArray")
    assert image is not None and cells is not None and array is not None and array.text is not None
    assert array.attrib == {"type": "UInt8", "Name": "phase", "format": "binary"}
    assert cells.attrib["Scalars"] == "phase"
    text, long = array.text.strip(), 8
    [count] = struct.unpack_from("<Q", base64.b64decode(text[:12]))
    head = 4 * -(-long * (3 + count) // 3)  # characters of base64 that hold the header
    _, whole, last, *packed = struct.unpack(f"<{3 + count}Q", base64.b64decode(text[:head]))
    body, data, at = base64.b64decode(text[head:]), b"", 0
    for number, length in enumerate(packed):
        part = zlib.decompress(body[at : at + length])
        assert len(part) == (last if last and number == count - 1 else whole)
        data, at = data + part, at + length
    assert at == len(body)
    extent = list(map(int, image.attrib["WholeExtent"].split()))
    nx, ny, nz = (extent[2 * i + 1] - extent[2 * i] for i in range(3))
    out = np.empty((nx, ny, nz), np.uint8)
    for cell, value in enumerate(data):  # cell (i, j, k) has the number i + nx (j + ny k)
        out[cell % nx, cell // nx % ny, cell // (nx * ny)] = value
    assert len(data) == out.size
    return out, list(map(float, image.attrib["Spacing"].split()))


@pytest.mark.parametrize("kind", ["tif", "npz"])
def test_what_is_written_reads_back_with_its_voxel_size(kind: str, tmp_path: Path) -> None:
    paths = export(ensemble(), tmp_path / "deep" / "run", [kind])
    assert [p.name for p in paths] == [f"run-{s}-{m}.{kind}" for s in ("wet", "a_b_c") for m in (0, 1)]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == sorted(p.name for p in paths)
    for path, labels in zip(paths, LABELS.reshape(4, *LABELS.shape[2:]), strict=True):
        [volume], phases = read_volumes(path)
        np.testing.assert_array_equal(volume.labels, labels)
        assert (volume.voxel_size, volume.unit) == (SIZE, "um")
        assert phases == (["pore", "solid", "glue"] if kind == "npz" else ["phase_0", "phase_1", "phase_2"])


@pytest.mark.parametrize("block", [2**15, 100, 1080])
def test_vtk_image_data_has_x_fastest(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)  # one that is not full, several, one that is full
    paths = export(ensemble(), tmp_path / "run", ["vti"])
    for path, labels in zip(paths, LABELS.reshape(4, *LABELS.shape[2:]), strict=True):
        found, spacing = read_vti(path)
        np.testing.assert_array_equal(found, labels.transpose(2, 1, 0))
        assert spacing == [0.25, 0.35, 0.5]


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        ((1.0, 1.0, 1.0), None, "voxel"),
        ((2.0, 1.0, 1.0), None, "voxel"),
        ((0.1, 0.2, 0.3), "nm", "nm"),
        ((2.25e-6, 2.25e-6, 2.25e-6), "m", "um"),
        ((7.0, 1 / 3, 123.456), "mm", "mm"),
        ((1e9, 1e9, 2e9), "nm", "mm"),
        ((5e-9, 5e-9, 5e-9), "mm", "nm"),
    ],
)
def test_voxel_sizes_survive_tiff(size: tuple[float, ...], unit: str | None, expected: str, tmp_path: Path) -> None:
    [path] = export(ensemble(LABELS[:1, :1], voxel_size=list(size), unit=unit), tmp_path / "a", ["tif"])
    [volume], _ = read_volumes(path)
    assert volume.unit == expected
    scale = {("m", "um"): 1e6, ("nm", "mm"): 1e-6, ("mm", "nm"): 1e6}.get((str(unit), expected), 1)
    np.testing.assert_allclose(volume.voxel_size, np.array(size) * scale, rtol=1e-6)


def test_imagej_finds_a_stack(tmp_path: Path) -> None:
    [path] = export(ensemble(LABELS[:1, :1]), tmp_path / "a", ["tif"])
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej and file.imagej_metadata is not None
        about = file.imagej_metadata
        assert (about["slices"], about["unit"], about["spacing"]) == (12, "um", 0.5)
        assert (about["min"], about["max"]) == (0, 2)  # else labels 0, 1, 2 are all black


def test_a_single_volume_needs_no_number(tmp_path: Path) -> None:
    ds = ensemble(LABELS[:1, :1].astype(np.float32)).isel(specimen=0, member=0)
    paths = export(ds, tmp_path / "a.v1", ["tif", "vti", "npz", "png"])
    assert [p.name for p in paths] == ["a.v1.tif", "a.v1.vti", "a.v1.npz", "a.v1.png"]
    assert paths[-1].read_bytes().startswith(b"\x89PNG")
    with np.load(paths[2], allow_pickle=False) as npz:
        assert npz["phase"].dtype == np.uint8 and npz["phases"].tolist() == ["pore", "solid", "glue"]
        np.testing.assert_array_equal(npz["voxel_size"], SIZE)


def test_names_that_become_equal_give_way_to_numbers(tmp_path: Path) -> None:
    ds = ensemble(LABELS[:, :1]).assign_coords(specimen=["a/b", "a?b"])
    assert [p.name for p in export(ds, tmp_path / "r", ["npz"])] == ["r-0-0.npz", "r-1-0.npz"]


def test_existing_files_stay_unless_told(tmp_path: Path) -> None:
    (tmp_path / "a-1-1.npz").write_text("mine")
    ds = ensemble().drop_vars(["specimen", "member"])
    with pytest.raises(UserError, match=r"a-1-1\.npz exists"):
        export(ds, tmp_path / "a", ["tif", "npz"])
    assert [p.name for p in tmp_path.iterdir()] == ["a-1-1.npz"]
    export(ds, tmp_path / "a", ["tif", "npz"], overwrite=True)
    assert len(list(tmp_path.iterdir())) == 8
    assert read_volumes(tmp_path / "a-1-1.npz")[0][0].labels.shape == (12, 10, 9)


def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LABELS.astype(np.float32)
    labels[1, 1, 3] = np.nan  # in the last volume
    (tmp_path / "a-wet-0.tif").write_text("old")
    with pytest.raises(UserError, match="a-a_b_c-1 is not finite"):
        export(ensemble(labels), tmp_path / "a", ["tif", "vti", "npz", "png"], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a-wet-0.tif"]
    assert (tmp_path / "a-wet-0.tif").read_text() == "old"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(module.WRITERS, "npz", full)
    with pytest.raises(UserError, match="No space left on device"):
        export(ensemble(), tmp_path / "b", ["tif", "npz"])
    assert [p.name for p in tmp_path.iterdir()] == ["a-wet-0.tif"]


@pytest.mark.parametrize(
    ("ds", "formats", "words"),
    [
        (ensemble(), ["tif", "stl"], ["stl", "tif, vti, npz, png"]),
        (ensemble(), "tif", ["formats=tif", "list"]),
        (ensemble().rename(phase="density"), ["tif"], ["no variable 'phase'", "density"]),
        (ensemble().rename(z="depth"), ["tif"], ["depth", "'z', 'y', 'x'"]),
        (ensemble(LABELS + 1), ["tif"], ["labels 1 to 3", "0 to 2"]),
        (ensemble(LABELS / 2), ["npz"], ["fractions"]),
        (ensemble(voxel_size=[1, 2]), ["npz"], ["voxel_size", "[1, 2]"]),
        (ensemble().isel(member=slice(0)), ["npz"], ["empty"]),
        (ensemble(voxel_size=1e-9, unit=None), ["tif"], ["1e-09", "voxel", "another format"]),
        (ensemble(voxel_size=[1e-9, 1e9, 1]), ["tif"], ["1e-09"]),
    ],
)
def test_what_cannot_be_written_is_refused(
    ds: xr.Dataset, formats: list[str], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        export(ds, tmp_path / "a", formats)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())
