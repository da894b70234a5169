"""Tables and verdict: what they say is what the report holds."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from scigen.mri.metrics import evaluate
from scigen.mri.plots import figures
from scigen.mri.tables import tables, verdict

SIZE = 16


def archive(images: np.ndarray, truth: xr.Dataset, role: str, nfe: float) -> xr.Dataset:
    dims = ("slice", "member", "y", "x")
    parts = {"image_re": (dims, images.real.astype("f4")), "image_im": (dims, images.imag.astype("f4"))}
    return xr.Dataset(parts, {"slice": truth["slice"]}, {"scigen_role": role, "scigen_nfe": nfe})


@pytest.fixture(scope="module")
def judged():
    """Eight slices of two subjects; a teacher, a student that is worse, a baseline with one member."""
    rng = np.random.default_rng(0)
    image = np.zeros((8, SIZE, SIZE))
    image[:, 3:-3, 3:-3] = 1 + 0.2 * rng.random((8, 10, 10))
    mask = np.broadcast_to(np.arange(SIZE) % 2 == 0, (8, SIZE, SIZE)).copy()
    kspace = np.where(mask, np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2)), norm="ortho"), (1, 2)), 0)
    kspace = kspace + 0.05 * mask * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))
    truth = xr.Dataset(
        {
            "image_re": (("slice", "y", "x"), image.astype("f4")),
            "image_im": (("slice", "y", "x"), 0 * image.astype("f4")),
            "kspace": (("slice", "coil", "ky", "kx"), kspace[:, None].astype("c8")),
            "mask": (("slice", "ky", "kx"), mask),
            "sens_maps": (("slice", "coil", "y", "x"), np.ones((8, 1, SIZE, SIZE), "c8")),
            "noise_std": ("slice", np.full(8, 0.05)),
            "acceleration": ("slice", np.repeat([4.0, 8.0], 4)),
            "coils": ("slice", np.ones(8, int)),
        },
        {"slice": [f"s{i % 2}/{i}" for i in range(8)], "subject": ("slice", [f"s{i % 2}" for i in range(8)])},
    )

    def around(width: float, members: int) -> np.ndarray:
        noise = rng.normal(size=(2, 8, members + 1, SIZE, SIZE))
        noise = width * (noise[0] + 1j * noise[1])
        return image[:, None] + noise[:, :1] + noise[:, 1:]

    samples = {
        "teacher, 20 steps": archive(around(0.05, 4), truth, "teacher", 20),
        "student, 1 step": archive(around(0.1, 4), truth, "student", 1),
        "zero-filled": archive(around(0.3, 1), truth, "baseline", 0),
    }
    return truth, samples, evaluate(truth, samples)


def test_cells_are_the_reports_numbers(judged):
    _, _, report = judged
    fidelity, calibration, consistency, groups = tables(report)
    one = report.sel(model="student, 1 step")
    total = one.sel(group="all")
    assert "8 slices of 2 subjects" in fidelity.title
    row = {c.title: cell for c, cell in zip(fidelity.columns, fidelity.rows[1], strict=True)}
    assert row["contender"][0] == "student, 1 step" and row["calls"][0] == "1"
    assert row["PSNR"][0] == f"{float(total['psnr']):.2f}"
    assert row["to teacher"][0] == f"−{-float(total['psnr_difference'][0]):.2f}" and " to " in row["to teacher"][1]
    row = {c.title: cell for c, cell in zip(calibration.columns, calibration.rows[1], strict=True)}
    assert row["CRPS ratio"][0] == f"{float(total['crps_ratio'][0]):.3f}"
    assert row["cover 60 %"][0] == f"{100 * float(total['coverage'].sel(level=0.9)):.1f}"  # of four members
    row = {c.title: cell for c, cell in zip(consistency.columns, consistency.rows[1], strict=True)}
    assert float(row["χ²"][0]) == pytest.approx(float(total["chi_square"]), rel=1e-3)
    assert [c.title for c in groups.columns[2:]] == ["4×, 1 coil", "8×, 1 coil"]
    assert groups.rows[1][3][0] == f"{float(one['psnr'].sel(group='8×, 1 coil')):.2f}"


def test_one_member_leaves_dashes(judged):
    _, _, report = judged
    calibration = tables(report)[1]
    row = {c.title: cell[0] for c, cell in zip(calibration.columns, calibration.rows[2], strict=True)}
    assert row["spread–skill"] == row["cover 60 %"] == row["corr."] == "–" and row["CRPS"] != "–"


def test_one_group_needs_no_table_of_groups(judged):
    truth, samples, _ = judged
    assert len(tables(evaluate(truth.isel(slice=slice(4)), samples))) == 3


def test_members_of_different_number_have_their_own_nominal_coverage(judged):
    truth, samples, _ = judged
    mixed = samples | {"student, 1 step": samples["student, 1 step"].isel(member=slice(3))}
    calibration = tables(evaluate(truth, mixed))[1]
    at = [c.title for c in calibration.columns].index("cover nominal")
    assert [row[at][1] for row in calibration.rows] == ["of 60.0", "of 50.0", ""]


def test_repeated_members_are_told(judged):
    truth, samples, _ = judged
    twice = samples["student, 1 step"].isel(member=[0, 1, 1, 2])
    notes = tables(evaluate(truth, samples | {"student, 1 step": twice}))[1].notes
    assert any("3 different of 4 members" in n and "student" in n for n in notes) and len(notes) == 2


def test_the_verdict_holds_the_student_beside_the_teacher(judged):
    _, _, report = judged
    line = verdict(report)
    total = report.sel(group="all")
    student, teacher = total.sel(model="student, 1 step"), total.sel(model="teacher, 20 steps")
    apart = float(student["psnr_difference"][0])
    assert line.count("\n") == 0 and line.startswith("student, 1 step: PSNR")
    assert f"{-apart:.2f} dB below the teacher's" in line
    assert f"CRPS {float(student['crps_ratio'][0]):.3f} × the teacher's" in line
    chi = f"χ² of the data {float(student['chi_square']):.3f} (the teacher's {float(teacher['chi_square']):.3f})"
    assert chi in line and "60.0 % interval" in line


def test_a_verdict_without_teacher_or_noise_says_less(judged):
    truth, samples, _ = judged
    quiet = truth.assign(noise_std=("slice", np.full(8, np.nan)))
    line = verdict(evaluate(quiet, {"student": samples["student, 1 step"]}))
    assert "teacher" not in line and "χ²" not in line and "residual of the data" in line and "nan" not in line
    assert verdict(evaluate(truth, {"zero-filled": samples["zero-filled"]})) == ""


def test_they_print_on_a_narrow_terminal(judged):
    console = Console(width=80, record=True)
    for table in tables(judged[2]):
        console.print(table)
    assert max(map(len, console.export_text().splitlines())) <= 80


@pytest.mark.parametrize("bare", [False, True])
def test_figures_are_drawn_with_and_without_the_measurement(judged, tmp_path, bare):
    truth, samples, _ = judged
    if bare:
        truth, samples = truth[["image_re", "image_im"]], {"zero-filled": samples["zero-filled"]}
    made = figures(evaluate(truth, samples), truth, samples, tmp_path)
    names = [path.name for _, path in made]
    due = ["example-1.png", "example-2.png", *([] if not bare else ["example-3.png"])]
    assert names == [*due, *([] if bare else ["calibration.png"]), "quality.png"]
    assert all(path.stat().st_size > 5000 for _, path in made)
    assert ("χ²" in made[-1][0]) is not bare
    assert bare or ["8×" in made[0][0], "4×" in made[1][0]] == [True, True]
