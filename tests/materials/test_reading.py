import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from PIL import Image

from scigen.errors import UserError
from scigen.materials.reading import read_volumes

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")
MATERIALS = Path(REAL or ".") / "materials"

LABELS = np.random.default_rng(1).integers(0, 3, (12, 10, 9)).astype(np.uint8)
GREYS = np.array([0, 85, 170], np.uint8)
GREY = GREYS[LABELS]
PHASES = {"pore": 0, "active": 85, "binder": 170}


def zarr_array(path: Path, values: np.ndarray, attrs: dict[str, object] | None = None, zarr_format: int = 3) -> None:
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, zarr_format=zarr_format)
    array[...] = values
    array.attrs.update(attrs or {})


def hdf5(path: Path, *, compression: str | None = None, **values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for key, array in values.items():
            file.create_dataset(key.replace("__", "/"), data=array, compression=compression)


def dataset(name: str = "image", dims: tuple[str, ...] = ("z", "y", "x"), values: np.ndarray = GREY) -> xr.Dataset:
    return xr.Dataset({name: (dims, values)})


def bilevel(path: Path) -> None:
    pages = [Image.fromarray(page > 0).convert("1") for page in LABELS]
    pages[0].save(path, save_all=True, append_images=pages[1:])


WRITERS: dict[str, Callable[[Path], object]] = {
    "plain.tif": lambda p: tifffile.imwrite(p, GREY),
    "upper.TIFF": lambda p: tifffile.imwrite(p, GREY),
    "deflate.tif": lambda p: tifffile.imwrite(p, GREY, compression="zlib"),
    "tiled.tif": lambda p: tifffile.imwrite(p, GREY, tile=(16, 16)),
    "big.tif": lambda p: tifffile.imwrite(p, GREY, bigtiff=True),
    "pages.tif": lambda p: tifffile.imwrite(p, GREY, metadata=None),
    "white.tif": lambda p: tifffile.imwrite(p, GREY, photometric="miniswhite"),
    "palette.tif": lambda p: tifffile.imwrite(
        p, GREY, photometric="palette", colormap=np.random.default_rng(0).integers(0, 65535, (3, 256)).astype("uint16")
    ),
    "imagej.tif": lambda p: tifffile.imwrite(p, GREY.astype(">u2"), imagej=True, metadata={"axes": "ZYX"}),
    "times.tif": lambda p: tifffile.imwrite(p, GREY, imagej=True, metadata={"axes": "TYX"}),
    "ome.tif": lambda p: tifffile.imwrite(p, GREY, ome=True, metadata={"axes": "ZYX"}),
    "float.tif": lambda p: tifffile.imwrite(p, GREY.astype(np.float32)),
    "a.npy": lambda p: np.save(p, GREY),
    "fortran.npy": lambda p: np.save(p, np.asfortranarray(GREY)),
    "channel.npy": lambda p: np.save(p, GREY[None, ..., None]),
    "a.npz": lambda p: np.savez(p, whatever=GREY),
    "a.h5": lambda p: hdf5(p, image=GREY),
    "deep.hdf5": lambda p: hdf5(p, some__where__image=GREY, other=np.arange(5), compression="gzip"),
    "array.zarr": lambda p: zarr_array(p, GREY),
    "array2.zarr": lambda p: zarr_array(p, GREY, zarr_format=2),
    "group.zarr": lambda p: zarr.create_group(p).create_array("image", data=GREY),
    "xarray.zarr": lambda p: dataset().to_zarr(p, consolidated=False),
    "turned.zarr": lambda p: dataset(dims=("X", "Y", "Z"), values=GREY.T).to_zarr(p, consolidated=False),
    "a.nc": lambda p: dataset().to_netcdf(p),
    "classic.nc": lambda p: dataset(values=GREY.astype("int32")).to_netcdf(p, format="NETCDF3_CLASSIC"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_labels(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found, phases = read_volumes(tmp_path / name, PHASES)
    assert phases == list(PHASES)
    [volume] = found
    np.testing.assert_array_equal(volume.labels, LABELS)
    assert volume.labels.dtype == np.uint8
    assert (volume.voxel_size, volume.unit, volume.name) == ((1, 1, 1), "voxel", Path(name).stem)


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">i4", "float64"])
def test_raw_numbers_need_a_shape_and_a_type(dtype: str, tmp_path: Path) -> None:
    GREY.astype(dtype).tofile(tmp_path / "a.raw")
    found, _ = read_volumes(tmp_path / "a.raw", PHASES, shape=LABELS.shape, dtype=dtype)
    np.testing.assert_array_equal(found[0].labels, LABELS)


def test_images_of_one_bit(tmp_path: Path) -> None:
    bilevel(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_volumes(tmp_path / "a.tif")[0][0].labels, LABELS > 0)


def test_minis_white_is_a_matter_of_display(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    with Image.open(tmp_path / "a.tif") as shown:
        np.testing.assert_array_equal(np.asarray(shown), 255 - GREY[0])  # what a reader that applies it gives
    np.testing.assert_array_equal(read_volumes(tmp_path / "a.tif", PHASES)[0][0].labels, LABELS)


# ------------------------------------------------------------------------------------------------------- voxel size

SIZE = (0.5, 0.25, 0.125)


def imagej(path: Path, unit: str = "um", **more: object) -> None:
    about = {"axes": "ZYX", "spacing": 0.5, "unit": unit, **more}
    tifffile.imwrite(path, LABELS, imagej=True, resolution=(8, 4), metadata=about)


def ome(path: Path, units: tuple[str, str, str] = ("µm", "µm", "µm")) -> None:
    about: dict[str, object] = {"axes": "ZYX"}
    for axis, size, unit in zip("ZYX", SIZE, units, strict=True):
        about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(path, LABELS, ome=True, metadata=about)


def with_attributes(path: Path) -> None:
    hdf5(path, image=LABELS)
    with h5py.File(path, "a") as file:
        file["image"].attrs["element_size_um"] = SIZE


def ome_zarr(path: Path, version: str) -> None:
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    levels = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [s * 2**i for s in SIZE]}]}
        for i in range(2)
    ]
    about = {"multiscales": [{"axes": axes, "datasets": levels}]}
    group.attrs.update({"ome": about} if version == "0.5" else about)
    for i in range(2):
        thin = LABELS[:: 2**i, :: 2**i, :: 2**i]
        group.create_array(str(i), shape=thin.shape, dtype="uint8")[...] = thin


def centres(path: Path, units: str = "um") -> None:
    coords = {
        a: (a, (np.arange(n) + 0.5) * s, {"units": units}) for a, n, s in zip("zyx", LABELS.shape, SIZE, strict=True)
    }
    dataset(values=LABELS).assign_coords(coords).to_netcdf(path)


SIZED: dict[str, Callable[[Path], object]] = {
    "imagej.tif": imagej,
    "micron.tif": lambda p: imagej(p, "micron"),
    "escaped.tif": lambda p: imagej(p, "\\u00B5m"),
    "ome.tif": ome,
    "a.npz": lambda p: np.savez(p, phase=LABELS, voxel_size=np.array(SIZE), unit=np.array("um")),
    "element.h5": with_attributes,
    "bare.zarr": lambda p: zarr_array(p, LABELS, {"voxel_size": SIZE, "unit": "micrometre"}),
    "ome4.zarr": lambda p: ome_zarr(p, "0.4"),
    "ome5.zarr": lambda p: ome_zarr(p, "0.5"),
    "x.zarr": lambda p: dataset(values=LABELS).assign_attrs(voxel_size=SIZE, unit="um").to_zarr(p, consolidated=False),
    "json.nc": lambda p: dataset(values=LABELS).assign_attrs(voxel_size=json.dumps(SIZE), unit="um").to_netcdf(p),
    "coordinates.nc": centres,
}


@pytest.mark.parametrize("name", SIZED)
def test_voxel_sizes_in_files_are_exact_and_in_the_order_z_y_x(name: str, tmp_path: Path) -> None:
    SIZED[name](tmp_path / name)
    [volume], _ = read_volumes(tmp_path / name)
    np.testing.assert_array_equal(volume.labels, LABELS)
    assert (volume.voxel_size, volume.unit) == (SIZE, "um")


def test_what_is_given_comes_before_what_the_file_says(tmp_path: Path) -> None:
    imagej(tmp_path / "a.tif")
    [volume], _ = read_volumes(tmp_path / "a.tif", voxel_size=[3, 2, 1], unit="nm")
    assert (volume.voxel_size, volume.unit) == ((3, 2, 1), "nm")
    assert read_volumes(tmp_path / "a.tif", voxel_size=2)[0][0].voxel_size == (2, 2, 2)
    [volume], _ = read_volumes(tmp_path / "a.tif", unit="nm")  # converted
    assert (volume.voxel_size, volume.unit) == ((500, 250, 125), "nm")


def test_the_resolution_of_plain_tiff_is_for_printers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS, resolution=(72, 72), resolutionunit="inch")
    assert read_volumes(tmp_path / "a.tif")[0][0].unit == "voxel"


def test_imagej_leaves_out_a_spacing_of_one_and_a_unit_that_nobody_set(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS, imagej=True, resolution=(8, 4), metadata={"axes": "ZYX", "unit": "um"})
    assert read_volumes(tmp_path / "a.tif")[0][0].voxel_size == (1, 0.25, 0.125)
    tifffile.imwrite(tmp_path / "b.tif", LABELS, imagej=True, resolution=(72, 72), metadata={"axes": "ZYX"})
    assert read_volumes(tmp_path / "b.tif")[0][0].voxel_size == (1, 1, 1)


def test_an_unknown_voxel_size_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    with caplog.at_level(logging.INFO, logger="scigen"):
        read_volumes(tmp_path / "a.npy")
    assert "No voxel size is known of a: 1 voxel is taken" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"voxel_size": 0}, ["voxel_size=0", "positive"]),
        ({"voxel_size": [1, 2]}, ["voxel_size=[1, 2]", "three in the order z, y, x"]),
        ({"voxel_size": [1, -2, 1]}, ["voxel_size=[1, -2, 1]"]),
        ({"voxel_size": float("nan")}, ["voxel_size=nan"]),
        ({"voxel_size": "large"}, ["voxel_size=large"]),
        ({"voxel_size": 1, "unit": "kg"}, ["unit='kg'", "length"]),
        ({"voxel_size": 1, "unit": "furlongz"}, ["unit='furlongz'"]),
        ({"unit": "um"}, ["unit=um", "voxel_size as well"]),
        ({"periodic": [True, False]}, ["periodic=[True, False]"]),
        ({"shape": [3, 4]}, ["shape=[3, 4]", "[z, y, x]"]),
        ({"shape": [3, 4, -1]}, ["shape=[3, 4, -1]"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], words: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    with pytest.raises(UserError) as caught:
        read_volumes(tmp_path / "a.npy", **given)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_a_voxel_size_in_the_file_that_is_none_is_refused(tmp_path: Path) -> None:
    zarr_array(tmp_path / "a.zarr", LABELS, {"voxel_size": [1, 2]})
    with pytest.raises(UserError, match="voxel_size of a"):
        read_volumes(tmp_path / "a.zarr")


def test_attributes_of_a_dataset_come_before_those_of_its_file(tmp_path: Path) -> None:
    with_attributes(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["voxel_size"] = file.attrs["element_size_um"] = 7.0
        file["image"].attrs["voxel_size"], file["image"].attrs["unit"] = SIZE, "nm"
    [volume], _ = read_volumes(tmp_path / "a.h5")
    assert (volume.voxel_size, volume.unit) == (SIZE, "nm")


def test_periodic_axes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    assert read_volumes(tmp_path / "a.npy", periodic=True)[0][0].periodic == (True, True, True)
    assert read_volumes(tmp_path / "a.npy", periodic=[True, False, False])[0][0].periodic == (True, False, False)


# ------------------------------------------------------------------------------------------------------ many volumes


@pytest.mark.parametrize("kind", ["folder", "glob", "list"])
def test_many_files_come_in_natural_order_with_phases_of_all_together(kind: str, tmp_path: Path) -> None:
    for i in (10, 9, 1):
        np.save(tmp_path / f"v{i}.npy", np.where(LABELS == 2, i * 10, LABELS))
    (tmp_path / "notes.txt").write_text("not a volume")
    path = {"folder": tmp_path, "glob": str(tmp_path / "*.npy"), "list": [tmp_path / f"v{i}.npy" for i in (1, 9, 10)]}
    found, phases = read_volumes(path[kind])
    assert [v.name for v in found] == ["v1", "v9", "v10"]
    assert phases == [f"phase_{i}" for i in range(5)]
    for volume, label in zip(found, (2, 3, 4), strict=True):  # one file alone would call all of them 2
        np.testing.assert_array_equal(volume.labels, np.where(LABELS == 2, label, LABELS))


def test_a_phase_may_be_missing_in_some_of_many_volumes_but_not_in_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    np.save(tmp_path / "b.npy", np.minimum(LABELS, 1))
    table = {"p": 0, "q": 1, "r": 2}
    with caplog.at_level(logging.INFO, logger="scigen"):
        found, _ = read_volumes(tmp_path, table)
    assert found[1].labels.max() == 1 and "b has no voxel of r" in caplog.text
    with pytest.raises(UserError, match="No volume has a voxel of s"):
        read_volumes(tmp_path, table | {"s": 3})


def test_single_pages_of_a_folder_make_one_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, page in enumerate(LABELS):
        tifffile.imwrite(tmp_path / f"page{i}.tif", page)
    with caplog.at_level(logging.INFO, logger="scigen"):
        for path in (tmp_path, str(tmp_path / "page*.tif")):
            [volume], _ = read_volumes(path)
            np.testing.assert_array_equal(volume.labels, LABELS)
    assert "12 pages make one volume, page0.tif first, page11.tif last" in caplog.text
    pages = [tmp_path / f"page{i}.tif" for i in range(12)]
    np.testing.assert_array_equal(read_volumes(pages, stack=True)[0][0].labels, LABELS)
    for given in ({"path": pages}, {"path": tmp_path, "stack": False}):
        with pytest.raises(UserError, match="single page"):
            read_volumes(**given)  # type: ignore[arg-type]
    tifffile.imwrite(tmp_path / "page5.tif", LABELS[5, :-1])
    with pytest.raises(UserError, match="page5 is 9×9"):
        read_volumes(tmp_path)


def test_folders_of_pages_are_a_volume_each(tmp_path: Path) -> None:
    for specimen, labels in (("one", LABELS), ("two", LABELS[::-1])):
        (tmp_path / specimen).mkdir()
        for i, page in enumerate(labels):
            tifffile.imwrite(tmp_path / specimen / f"{i}.tif", page)
    for path in (str(tmp_path / "*"), [tmp_path / "one", tmp_path / "two"]):
        for stack in (None, True):
            found, _ = read_volumes(path, stack=stack)
            assert [v.name for v in found] == ["one", "two"]
            np.testing.assert_array_equal(found[0].labels, LABELS)
            np.testing.assert_array_equal(found[1].labels, LABELS[::-1])


def test_a_stack_is_made_of_pages_only(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    with pytest.raises(UserError, match="a is 12×10×9: expected single pages"):
        read_volumes(tmp_path, stack=True)


def test_every_dataset_with_three_axes_is_a_volume(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.h5", s10=LABELS, s9=LABELS[::-1], table=np.zeros((4, 4)))
    found, _ = read_volumes(tmp_path / "a.h5")
    assert [v.name for v in found] == ["a-s9", "a-s10"]
    np.testing.assert_array_equal(found[0].labels, LABELS[::-1])
    [one], _ = read_volumes(tmp_path / "a.h5", variable="s10")
    np.testing.assert_array_equal(one.labels, LABELS)


def test_datasets_that_are_stored_flat_take_the_shape_given(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.h5", sample_0=LABELS.ravel(), sample_1=LABELS[::-1].ravel())
    found, _ = read_volumes(tmp_path / "a.h5", shape=LABELS.shape)
    np.testing.assert_array_equal(found[1].labels, LABELS[::-1])
    with pytest.raises(UserError, match="sample_0 1080"):
        read_volumes(tmp_path / "a.h5")


def test_names_tell_files_apart(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "v.npy", LABELS)
    tifffile.imwrite(tmp_path / "a" / "v.tif", LABELS)
    found, _ = read_volumes([tmp_path / "a", tmp_path / "b"])
    assert len({v.name for v in found}) == 3
    with pytest.raises(UserError, match="given twice"):
        read_volumes([tmp_path / "a", tmp_path / "a" / "v.npy"])


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_an_ensemble_gives_a_volume_for_each_specimen_and_member(suffix: str, tmp_path: Path) -> None:
    values = np.stack([np.stack([LABELS, LABELS[::-1]]), np.stack([LABELS[:, ::-1], LABELS[:, :, ::-1]])])
    ds = dataset("phase", ("specimen", "member", "z", "y", "x"), values.astype(np.float32))
    ds = ds.assign_coords(specimen=["wet", "dry"], member=[0, 1]).assign_attrs(
        voxel_size=json.dumps(SIZE), unit="um", phases=json.dumps(["pore", "solid", "glue"])
    )
    path = tmp_path / f"out{suffix}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        _ = ds.to_zarr(path, consolidated=False) if suffix == ".zarr" else ds.to_netcdf(path)
    found, phases = read_volumes(path)
    assert phases == ["pore", "solid", "glue"]
    assert [v.name for v in found] == ["out-wet-0", "out-wet-1", "out-dry-0", "out-dry-1"]
    assert [v.group for v in found] == ["out-wet"] * 2 + ["out-dry"] * 2
    assert {(v.voxel_size, v.unit) for v in found} == {(SIZE, "um")}
    for volume, labels in zip(found, values.reshape(4, *LABELS.shape), strict=True):
        np.testing.assert_array_equal(volume.labels, labels)


def test_flags_of_the_cf_conventions_name_phases(tmp_path: Path) -> None:
    ds = dataset()
    ds["image"].attrs = {"flag_values": np.array([170, 0, 85], np.uint8), "flag_meanings": "binder pore active"}
    ds.to_netcdf(tmp_path / "a.nc")
    [volume], phases = read_volumes(tmp_path / "a.nc")
    assert phases == ["binder", "pore", "active"]
    np.testing.assert_array_equal(volume.labels, np.array([1, 2, 0])[LABELS])


# ----------------------------------------------------------------------------------------------------------- refusals


def refused(path: object, words: list[str], **given: object) -> None:
    with pytest.raises(UserError) as caught:
        read_volumes(path, **given)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_what_is_not_there_is_refused_with_what_is_near(tmp_path: Path) -> None:
    np.save(tmp_path / "electrode.npy", LABELS)
    refused(tmp_path / "electrod.npy", ["electrod.npy is not there", "electrode.npy"])
    refused(tmp_path / "none" / "a.npy", ["no folder", "none"])
    refused(str(tmp_path / "*.tif"), ["Nothing matches", "electrode.npy"])
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", ["folder without volumes", "nothing"])
    refused([], ["names no file"])
    np.save(tmp_path / "small.npy", LABELS[:, :7])
    refused(tmp_path / "small.npy", ["12×7×9", "8 voxels"])


@pytest.mark.parametrize("name", ["a.png", "a.vti", "a", "a.tif.partial"])
def test_unknown_kinds_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something")
    refused(tmp_path / name, ["unfinished"] if name.endswith("partial") else [name, ".tif", ".npy", ".zarr"])


def test_colours_and_single_pages_are_refused(tmp_path: Path) -> None:
    for name, channels in (("rgb", 3), ("rgba", 4)):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((12, 10, 9, channels), np.uint8), photometric="rgb")
        refused(tmp_path / f"{name}.tif", ["colours", f"12×10×9×{channels}"])
    planes = np.zeros((12, 3, 10, 9), np.uint8)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    refused(tmp_path / "planes.tif", ["colours", "12×3×10×9"])
    tifffile.imwrite(tmp_path / "page.tif", LABELS[0])
    refused(tmp_path / "page.tif", ["10×9", "single page"])
    tifffile.imwrite(tmp_path / "hyper.tif", np.stack([LABELS] * 2), imagej=True, metadata={"axes": "TZYX"})
    refused(tmp_path / "hyper.tif", ["2×12×10×9", "one channel and time"])
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(LABELS)
        file.write(LABELS[:, :8])
    refused(tmp_path / "two.tif", ["2 images of different shapes", "12×8×9"])


def test_pages_that_imagej_announces_must_be_there(tmp_path: Path) -> None:
    text = "ImageJ=1.11a\nimages=12\nslices=12\n"
    tifffile.imwrite(tmp_path / "a.tif", LABELS[:9], description=text, metadata=None)
    refused(tmp_path / "a.tif", ["a.tif", "12", "damaged or cut short"])


def test_compression_that_is_not_installed_is_named(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in GREY]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    if importlib.util.find_spec("imagecodecs"):
        np.testing.assert_array_equal(read_volumes(tmp_path / "a.tif", PHASES)[0][0].labels, LABELS)
    else:
        refused(tmp_path / "a.tif", ["LZW", "pip install imagecodecs"])


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    zarr_array(tmp_path / "a.zarr", LABELS)
    chunk = next(p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:50])
    refused(tmp_path / "a.zarr", ["a.zarr", "damaged"])
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    refused(tmp_path / "a.zarr", ["a.zarr", "damaged"])


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    fired = tmp_path / "fired"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (fired,)

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", phase=np.array([Trap()], object), allow_pickle=True)
    for name in ("a.npy", "a.npz"):
        refused(tmp_path / name, [name, "pickled", "np.save"])
    assert not fired.exists()


def test_raw_files_of_another_size_are_refused(tmp_path: Path) -> None:
    LABELS.astype(np.uint16).tofile(tmp_path / "a.raw")
    refused(tmp_path / "a.raw", ["shape=[z, y, x]"])
    refused(tmp_path / "a.raw", ["2,160 bytes", "1,080", "dtype=uint16"], shape=LABELS.shape)
    refused(tmp_path / "a.raw", ["dtype=colour"], shape=LABELS.shape, dtype="colour")


def test_a_variable_is_named_where_several_could_be_meant(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=LABELS, two=LABELS)
    refused(tmp_path / "a.npz", ["one, two", "variable=NAME"])
    refused(tmp_path / "a.npz", ["no variable=three", "one, two"], variable="three")
    assert len(read_volumes(tmp_path / "a.npz", variable="two")[0]) == 1
    dataset("one").assign(two=(("z", "y", "x"), GREY)).to_netcdf(tmp_path / "a.nc")
    refused(tmp_path / "a.nc", ["one, two", "variable=NAME"])
    hdf5(tmp_path / "a.h5", one=LABELS)
    refused(tmp_path / "a.h5", ["variable=three", "one"], variable="three")
    hdf5(tmp_path / "flat.h5", one=LABELS[0])
    refused(tmp_path / "flat.h5", ["three axes", "one 10×9"])
    zarr_array(tmp_path / "flat.zarr", LABELS[0])
    refused(tmp_path / "flat.zarr", ["single page"])
    dataset(dims=("a", "b", "c", "d"), values=np.stack([GREY] * 9)).to_netcdf(tmp_path / "four.nc")
    refused(tmp_path / "four.nc", ["('a', 'b', 'c', 'd')", "specimen", "rename"])


def test_members_that_were_not_written_are_refused(tmp_path: Path) -> None:
    values = np.stack([GREY, np.full(GREY.shape, np.nan)])
    dataset("phase", ("specimen", "z", "y", "x"), values).to_netcdf(tmp_path / "a.nc")
    refused(tmp_path / "a.nc", ["a-1", "not finite", "1080 of 1080"])


CUT = ["plain.tif", "deflate.tif", "pages.tif", "tiled.tif", "imagej.tif", "ome.tif", "a.npy", "a.npz", "a.h5",
       "deep.hdf5", "a.nc", "classic.nc"]  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_short_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    refusals = 0
    for share in (0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        try:
            [volume], _ = read_volumes(tmp_path / name, PHASES)
        except UserError as error:
            assert name in str(error) and len(str(error)) > 40, str(error)
            refusals += 1
        else:
            np.testing.assert_array_equal(volume.labels, LABELS)  # only what follows the data was lost
    assert refusals >= 4


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.npz", "a.h5", "a.nc"])
def test_rubbish_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"rubbish, " * 500)
    refused(tmp_path / name, [name])


# ---------------------------------------------------------------------------------------------------------- real data


@real
def test_berea_has_the_porosity_of_the_rock() -> None:
    [volume], phases = read_volumes(MATERIALS / "berea.tif", {"pore": 0, "solid": 255})
    assert phases == ["pore", "solid"] and volume.labels.shape == (400, 400, 400)
    assert (volume.labels == 0).mean() == pytest.approx(0.1965, abs=5e-5)  # 0.8035 if MINISWHITE is applied


@real
def test_the_electrode_has_its_three_phases() -> None:
    [volume], _ = read_volumes(MATERIALS / "electrode.tiff", PHASES)
    shares = np.bincount(volume.labels.ravel()) / volume.labels.size
    np.testing.assert_allclose(shares, [0.4499, 0.4005, 0.1496], atol=5e-5)
    with pytest.raises(UserError, match=r"85 \(40.05%\), 170 \(14.96%\)"):
        read_volumes(MATERIALS / "electrode.tiff", {"pore": 0, "solid": 255})
