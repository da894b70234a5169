import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from scigen.errors import UserError
from scigen.materials.preview import COLORS, LIGHT, block, colors_of, isometric, preview, slices

OUT = math.sqrt(3) / 2


def project(z: float, y: float, x: float) -> tuple[float, float]:
    """Where a point of the block lies in an isometric picture: x to the lower right, y to the upper right, z up."""
    return OUT * (x + y), z + 0.5 * (y - x)


def color_at(picture: np.ndarray, sides: tuple[float, float, float], point: tuple[float, float]) -> np.ndarray:
    lz, ly, lx = sides
    width, low, high = OUT * (lx + ly), -0.5 * lx, lz + 0.5 * ly
    column = int(point[0] / width * picture.shape[1])
    row = int((high - point[1]) / (high - low) * picture.shape[0])
    return picture[row, column]


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
def test_every_voxel_of_the_three_visible_faces_has_its_colour(size: tuple[float, float, float]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 7, 6)).astype(np.uint8)
    colors = colors_of(4)
    picture = block(labels, colors, size)
    sides = tuple(float(n * s) for n, s in zip(labels.shape, size, strict=True))
    nz, ny, nx = labels.shape
    seen = [((nz, j + 0.5, i + 0.5), labels[-1, j, i], "top") for j in range(ny) for i in range(nx)]
    seen += [((k + 0.5, 0, i + 0.5), labels[k, 0, i], "left") for k in range(nz) for i in range(nx)]
    seen += [((k + 0.5, j + 0.5, nx), labels[k, j, -1], "right") for k in range(nz) for j in range(ny)]
    for where, label, face in seen:
        z, y, x = (p * s for p, s in zip(where, size, strict=True))
        found = color_at(picture, sides, project(z, y, x))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, [*(LIGHT[face] * np.array(to_rgb(colors[label]))), 1], atol=1e-12)


def test_the_picture_is_a_hexagon_of_the_right_area() -> None:
    picture = block(np.zeros((4, 4, 4), np.uint8), COLORS)
    assert picture[0, 0, 3] == picture[-1, -1, 3] == picture[0, -1, 3] == 0
    assert picture[..., 3].mean() == pytest.approx(0.75, abs=2e-3)  # a regular hexagon in its box
    np.testing.assert_allclose(picture.shape[0] / picture.shape[1], 2 / math.sqrt(3), rtol=3e-3)


def test_edges_are_mixed_of_both_sides() -> None:
    picture = block(np.zeros((4, 4, 4), np.uint8), ["#ffffff"], pixels=60)
    partly = (picture[..., 3] > 0) & (picture[..., 3] < 1)
    assert partly.any()
    assert picture[partly, :3].min() >= min(LIGHT.values()) - 1e-12  # nothing of the empty outside is mixed in


def test_slices_show_the_middle_planes_with_their_lengths() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (8, 10, 12)).astype(np.uint8)
    axes = Figure().subplots(1, 3)
    slices(axes, labels, colors_of(3), (0.5, 0.25, 2.0), "um")
    planes = labels[4], labels[:, 5], labels[:, :, 6]
    ends = [(24, 2.5), (24, 4), (2.5, 4)]
    for ax, plane, (right, up) in zip(axes, planes, ends, strict=True):
        [image] = ax.get_images()
        np.testing.assert_array_equal(image.get_array(), plane)
        assert image.get_extent() == [0, right, 0, up] or tuple(image.get_extent()) == (0, right, 0, up)
        np.testing.assert_allclose(
            image.to_rgba(image.get_array())[..., :3], np.array([to_rgb(c) for c in COLORS])[plane]
        )
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == ["z = 2.25 µm", "y = 1.375 µm", "x = 13 µm"]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("x [µm]", "y [µm]"), ("x [µm]", "z [µm]"), ("y [µm]", "z [µm]"),
    ]  # fmt: skip


def test_lengths_stand_along_the_edges() -> None:
    ax = Figure().subplots()
    isometric(ax, np.zeros((8, 10, 12), np.uint8), COLORS)
    assert {t.get_text() for t in ax.texts} == {"x 12 voxels", "y 10 voxels", "z 8 voxels"}


def contrast(a: str, b: str) -> float:
    """Distance of two colours in linear light as someone without red- or green-sensitive cones sees them at the least.

    Matrices of Viénot, Brettel & Mollon (1999), protanopia and deuteranopia.
    """
    vision = [
        np.eye(3),
        np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    ]
    pair = [np.array(to_rgb(c)) ** 2.2 for c in (a, b)]
    return min(float(np.linalg.norm(m @ pair[0] - m @ pair[1])) for m in vision)


def test_colours_of_up_to_four_phases_differ_for_every_eye() -> None:
    for i in range(4):
        for j in range(i):
            assert contrast(COLORS[i], COLORS[j]) > 0.15
    assert contrast("#ff0000", "#946800") < 0.5 * contrast("#ff0000", "#0072b2")  # the measure sees confusion


def test_a_page_has_every_phase_and_is_the_same_each_time(tmp_path: Path) -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:, :4] = 1
    labels[:4, 4:] = 2
    pages = [
        preview(
            [labels, labels[:, :, :4]],
            tmp_path / "deep" / f"{i}.png",
            ["pore", "solid", "glue"],
            (1, 1, 2),
            "nm",
            ["a", "b"],
        )
        for i in range(2)
    ]
    assert pages[0] == tmp_path / "deep" / "0.png"
    assert pages[0].read_bytes() == pages[1].read_bytes()
    with Image.open(pages[0]) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for color in COLORS[:3]:
        close = np.abs(pixels - 255 * np.array(to_rgb(color))).max(1) <= 1
        assert close.sum() > 2000
    assert not (np.abs(pixels - 255 * np.array(to_rgb(COLORS[3]))).max(1) <= 1).any()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no volume"):
        preview([], tmp_path / "a.png", ["pore"])
    with pytest.raises(UserError, match="label 2"):
        preview([np.full((8, 8, 8), 2, np.uint8)], tmp_path / "a.png", ["pore", "solid"])
