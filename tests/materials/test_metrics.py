"""Judging microstructures: what is known of the answer."""

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.materials.baseline import level_cuts
from scigen.materials.levelcut import gaussian_field
from scigen.materials.metrics import evaluate, to_json
from scigen.materials.statistics import describe_all
from scigen.materials.tables import tables, verdict

ATTRS = {"periodic": [1, 1, 1], "voxel_size": [1.0, 1.0, 1.0], "voxel_unit": "voxel"}
ABOUT = {"flag_meanings": "pore solid"}


def cuts(count: int, size: int = 16, share: float = 0.5, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    """Level cuts with exact fractions, (count, Z, Y, X)."""
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*[np.fft.fftfreq(size)] * 3, indexing="ij")))
    out = np.empty((count, size, size, size), np.uint8)
    for i in range(count):
        field = gaussian_field((size,) * 3, np.exp(-((k * size / scale) ** 2)) * (k > 0), seed * 1000 + i)
        out[i] = field > np.quantile(field, share)
    return out


def archive(labels: np.ndarray, role: str = "", nfe: float = 1.0, **targets) -> xr.Dataset:
    dims = ("specimen", "member", "z", "y", "x")[-labels.ndim :] if labels.ndim == 5 else ("specimen", "z", "y", "x")
    ds = xr.Dataset({"phase": (dims, labels, ABOUT)}, coords={"specimen": np.arange(len(labels))})
    ds = ds.assign_coords({f"target_{k}": ("specimen", np.asarray(v, float)) for k, v in targets.items()})
    return ds.assign_attrs(**ATTRS, scigen_role=role or "student", scigen_nfe=nfe)


def test_the_truth_itself_is_faultless():
    labels = cuts(6)
    report = evaluate(archive(labels), {"same": archive(labels[:, None])})
    one = report.sel(model="same")
    assert float(one["fraction_error"].max()) == 0 and float(one["two_point_error"].max()) == 0
    assert float(one["diffusivity_r2"]) == 1 and float(one["wasserstein"].max()) < 0.35  # interpolated quantiles
    np.testing.assert_allclose(one["surface_ratio"], 1)


def test_draws_of_the_same_law_are_within_chance_and_others_are_not():
    truth = archive(cuts(24))
    fair = cuts(48, seed=1).reshape(24, 2, 16, 16, 16)
    coarse = cuts(48, seed=1, scale=1.2).reshape(24, 2, 16, 16, 16)
    report = evaluate(truth, {"fair": archive(fair), "coarse": archive(coarse)})
    error, floor = report["two_point_error"].sel(phase="pore"), report["two_point_floor"].sel(phase="pore")
    assert float(error.sel(model="fair")) < 2 * float(floor.sel(model="fair"))
    assert float(error.sel(model="coarse")) > 3 * float(floor.sel(model="coarse"))
    surface = report["surface_ratio"].sel(phase="pore")
    assert surface.sel(model="fair", interval="low") < 1 < surface.sel(model="fair", interval="high")
    assert surface.sel(model="coarse", interval="high") < 0.9


def test_fractions_are_held_against_what_was_asked():
    labels = cuts(4, share=0.4)  # pore .4
    asked = archive(labels[:, None], volume_fraction_pore=[0.45] * 4, volume_fraction_solid=[0.55] * 4)
    free = archive(labels[:, None], volume_fraction_pore=[np.nan] * 4)
    report = evaluate(archive(labels), {"asked": asked, "free": free})
    assert float(report["fraction_error"].sel(model="asked", phase="pore")) == pytest.approx(0.05, abs=2e-4)
    assert float(report["fraction_bias"].sel(model="asked", phase="pore")) == pytest.approx(-0.05, abs=2e-4)
    assert float(report["fraction_error"].sel(model="free").max()) == 0


def test_lost_diversity_is_seen_and_scatter_of_fractions_is_told_apart():
    truth = archive(cuts(8))
    full = cuts(32, seed=1).reshape(8, 4, 16, 16, 16)
    lost = np.repeat(full[:, :1], 4, axis=1)
    half = full.copy()
    half[:, 1] = half[:, 0]  # two of four are the same
    scattered = np.stack([cuts(8, seed=1, share=s) for s in (0.4, 0.45, 0.55, 0.6)], axis=1)
    every = {
        "teacher": archive(full, "teacher", 40), "lost": archive(lost), "half": archive(half),
        "scattered": archive(scattered),
    }  # fmt: skip
    report = evaluate(truth, every)
    ratio = report["diversity_ratio"].sel(interval="estimate")
    assert float(ratio.sel(model="teacher")) == 1 and float(ratio.sel(model="lost")) == 0
    assert float(ratio.sel(model="half")) == pytest.approx(5 / 6, abs=0.25)  # 1 − 2/(M(M−1)) of the pairs are left
    assert float(report["freedom"].sel(model="teacher")) == 24
    pure = report["structure_ratio"].sel(interval="estimate")
    assert float(ratio.sel(model="scattered")) > 5 * float(pure.sel(model="scattered"))


def test_the_level_cut_has_the_specimen_s_statistics():
    labels = cuts(3, size=24, share=0.4)
    made = np.stack([level_cuts(v, 2, (True,) * 3, 6, str(i)) for i, v in enumerate(labels)])
    report = evaluate(archive(labels), {"cut": archive(made)})
    assert float(report["fraction_error"].max()) < 1e-3
    assert float(report["two_point_error"].max()) < 0.04
    again = level_cuts(labels[0], 2, (True,) * 3, 6, "0")
    assert np.array_equal(again, made[0]) and not np.array_equal(made[0, 0], made[0, 1])


def test_three_phases_are_cut_with_their_fractions_and_triple_lines_are_compared():
    k = cuts(3, size=24, share=0.5) + 2 * cuts(3, size=24, share=0.6, seed=5)
    labels = np.minimum(k, 2).astype(np.uint8)
    made = np.stack([level_cuts(v, 3, (True,) * 3, 2, str(i)) for i, v in enumerate(labels)])
    about = {"flag_meanings": "pore solid binder"}
    truth, cut = archive(labels), archive(made)
    truth["phase"].attrs, cut["phase"].attrs = about, about
    report = evaluate(truth, {"cut": cut})
    assert float(report["fraction_error"].max()) < 0.03
    assert 0.3 < float(report["triple_line_ratio"].sel(model="cut", interval="estimate")) < 3
    assert "triple line" in [c.title for c in tables(report)[0].columns]


def test_words_and_json_hold_the_numbers():
    truth = archive(cuts(4))
    made = {"teacher": archive(cuts(8, seed=2).reshape(4, 2, 16, 16, 16), "teacher", 40)}
    made["student"] = archive(cuts(8, seed=3).reshape(4, 2, 16, 16, 16))
    report = evaluate(truth, made)
    numbers = to_json(report)
    assert numbers["student"]["diffusivity_r2"] == float(report["diffusivity_r2"].sel(model="student"))
    assert set(numbers["student"]["fraction_error"]) == {"pore", "solid"}
    assert "the teacher's" in verdict(report) and verdict(report).startswith("student")


def test_what_does_not_fit_is_refused():
    truth = archive(cuts(3))
    other = archive(cuts(3)[:, None])
    other["phase"].attrs = {"flag_meanings": "void grain"}
    with pytest.raises(UserError, match="void"):
        evaluate(truth, {"other": other})
    apart = archive(cuts(3)[:, None]).assign_coords(specimen=[7, 8, 9])
    with pytest.raises(UserError, match="share no specimen"):
        evaluate(truth, {"apart": apart})
    with pytest.raises(UserError, match="no samples"):
        evaluate(truth, {})


def test_an_open_block_is_matched_by_what_its_voxels_tell():
    """A part of a larger field: surface, fraction and near correlations are the block's, far ones are nothing."""
    whole = cuts(2, size=64, share=0.6, seed=3, scale=6.0)
    for i, block in enumerate(whole[:, :32, :32, :32]):
        made = level_cuts(block, 2, (False,) * 3, 6, str(i))
        report = evaluate(
            archive(block[None]).assign_attrs(periodic=[0, 0, 0]),
            {"cut": archive(made[None]).assign_attrs(periodic=[0, 0, 0])},
        )
        assert float(abs(report["fraction_bias"]).max()) < 0.03
        assert 0.85 < float(report["surface_ratio"].sel(phase="pore", interval="estimate")[0]) < 1.15


def test_parts_described_apart_are_the_whole_in_any_order():
    samples = archive(cuts(12, size=8).reshape(6, 2, 8, 8, 8))
    whole = describe_all(samples, ["pore"])
    parts = [describe_all(samples.isel(specimen=p), ["pore"]) for p in (slice(4, 6), slice(0, 1), slice(1, 4))]
    xr.testing.assert_identical(xr.concat(parts, "specimen").sel(specimen=samples["specimen"].values), whole)
