import logging

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials import volumes
from scigen.materials.volumes import Volume, distinct, relabel, require_labels

LABELS = np.random.default_rng(0).integers(0, 3, (9, 10, 11)).astype(np.uint8)
GREYS = np.array([7, 200, 85])


def grey(dtype: str = "uint8") -> np.ndarray:
    return GREYS[LABELS].astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", ">u2", "int64", "float32", "float64"])
def test_labels_follow_the_order_of_the_phases_in_any_type(dtype: str) -> None:
    found = relabel(grey(dtype), {"pore": 7, "solid": 200, "binder": 85}, "a")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, LABELS)


def test_a_phase_may_have_several_grey_values() -> None:
    found = relabel(grey(), {"solid": [85, 200], "pore": 7}, "a")
    np.testing.assert_array_equal(found, LABELS == 0)


def test_without_phases_grey_values_are_taken_in_their_order_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scigen"):
        found = relabel(grey(), None, "a.tif")
    np.testing.assert_array_equal(found, np.array([0, 2, 1])[LABELS])
    assert "{phase_0: 7, phase_1: 85, phase_2: 200}" in caplog.text


def test_negative_and_boolean_greys() -> None:
    np.testing.assert_array_equal(relabel(LABELS.astype("int8") - 1, {"c": 1, "b": 0, "a": -1}, "a"), 2 - LABELS)
    np.testing.assert_array_equal(relabel(LABELS > 1, None, "a"), LABELS > 1)


@pytest.mark.parametrize("mark", [np.uint64(2**64 - 1), np.float32(-3.4028235e38)])
def test_marks_of_missing_data_beyond_64_bits_are_grey_values_as_well(mark: np.generic) -> None:
    image = np.where(LABELS == 2, mark, LABELS.astype(mark.dtype))
    np.testing.assert_array_equal(relabel(image, {"a": 0, "b": 1, "c": int(mark)}, "a"), LABELS)


def test_values_are_counted_in_slabs_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "SLAB", 200)
    values, counts = distinct(grey("int32"), "a")
    expected = np.unique(grey(), return_counts=True)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_array_equal(relabel(grey(), {"p": 7, "s": 200, "b": 85}, "a"), LABELS)


def with_value(value: float, dtype: str = "float32") -> np.ndarray:
    out = grey(dtype)
    out[3, 4, 5] = value
    return out


TWO = {"pore": 0, "solid": 1}


@pytest.mark.parametrize(
    ("image", "phases", "words"),
    [
        (with_value(np.nan), None, ["not finite", "1 of 990", "needs a phase"]),
        (with_value(np.inf), {"a": 7, "b": [85, 200]}, ["not finite"]),
        (with_value(0.5), None, ["0.5", "segment", "4 distinct"]),
        (np.arange(1000).reshape(10, 10, 10), None, ["1000 distinct", "greyscale", "phases="]),
        (np.full((9, 9, 9), 3), None, ["3 everywhere", "two phases"]),
        (with_value(9, "uint8"), {"a": 7, "b": [85, 200]}, ["9 (0.10%)", "no phase", "{a: 7, b: [85, 200]}"]),
        (grey(), {"a": 7, "b": [85, 200], "c": 255}, ["no voxel of c", "7, 85, 200"]),
        (LABELS[0], TWO, ["10×11", "single page", "stack"]),
        (LABELS[:, :, :3], TWO, ["9×10×3", "RGB"]),
        (np.zeros((9, 10, 11, 4), np.uint8), TWO, ["9×10×11×4", "RGB"]),
        (np.zeros((5, 9, 10, 11), np.uint8), TWO, ["4 axes", "specimen"]),
        (np.zeros((0, 10, 11), np.uint8), TWO, ["no voxels"]),
        (np.zeros((9, 9, 9), complex), TWO, ["complex128", "whole numbers"]),
        (np.zeros((9, 9, 9), "U3"), TWO, ["<U3"]),
        (LABELS, {"pore": 0}, ["two or more"]),
        (LABELS, {}, ["two or more"]),
        (LABELS, {"pore": 0, "solid": "white"}, ["solid=white", "whole number"]),
        (LABELS, {"pore": 0, "solid": 0.5}, ["solid=0.5"]),
        (LABELS, {"pore": 0, "solid": []}, ["solid=[]"]),
        (LABELS, {"pore": 0, "solid": [1, 0]}, ["0 is given to pore and to solid"]),
    ],
)
def test_what_is_not_segmented_is_refused_with_its_reason(
    image: np.ndarray, phases: dict[str, int] | None, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        relabel(image, phases, "a.tif")
    for word in words:
        assert word in str(caught.value)


def test_a_phase_may_be_absent_where_that_is_allowed() -> None:
    found = relabel(np.zeros((9, 9, 9), np.uint8), {"solid": 255, "pore": 0}, "a", absent=True)
    assert (found == 1).all()


def test_labels_of_floats_are_whole_and_within_the_phases() -> None:
    assert require_labels(LABELS.astype(np.float32), "a", 3).dtype == np.uint8
    with pytest.raises(UserError, match="0 to 2, expected 0 to 1"):
        require_labels(LABELS, "a", 2)
    with pytest.raises(UserError, match="-1"):
        require_labels(LABELS.astype(int) - 1, "a", 3)
    with pytest.raises(UserError, match="not finite"):
        require_labels(np.full((9, 9, 9), np.nan), "a", 3)


def test_a_volume_is_three_axes_of_labels() -> None:
    Volume("a", LABELS)
    for wrong in ({"labels": LABELS[0]}, {"labels": LABELS.astype(int)}, {"voxel_size": (1.0, 0.0, 1.0)}):
        with pytest.raises(ValueError, match="expected"):
            Volume(**({"name": "a", "labels": LABELS} | wrong))  # type: ignore[arg-type]
