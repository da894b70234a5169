"""Panels show the numbers they are given."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.plots import panels, style

LOOKS = style.looks({"teacher": "teacher", "student": "student"})


@pytest.fixture
def axes():
    with style.canvas(4, 4) as figure:
        yield figure.subplots(2, 1)


def test_spectra_draw_power_and_its_ratio_to_the_truth(axes):
    k = np.arange(1, 21)
    truth = 1.0 / k**3
    panels.spectra(*axes, k, truth, {"student": 0.5 * truth}, LOOKS, units="m s-1", labels={"student": "one call"})
    drawn, power = axes[0].get_lines()
    np.testing.assert_allclose(power.get_ydata(), 0.5 * truth)
    assert drawn.get_label() == "truth" and power.get_label() == "one call"
    np.testing.assert_allclose(axes[1].get_lines()[-1].get_ydata(), 0.5)
    assert "(m s-1)²" in axes[0].get_ylabel()


def test_wavenumbers_without_power_do_not_break_spectra(axes):
    panels.spectra(*axes, [1, 2, 3], [1.0, 0.0, 0.0], {"student": [1.0, 1.0, 0.0]}, LOOKS)
    axes[0].figure.canvas.draw()
    assert np.isfinite(axes[1].get_ylim()).all()


def test_rank_histograms_are_in_units_of_flat(axes):
    panels.rank_histogram(axes[0], [10, 10, 40, 20], LOOKS["student"])
    assert [p.get_height() for p in axes[0].patches] == [0.5, 0.5, 2.0, 1.0]
    assert axes[0].get_ylim()[1] > 2


def test_intervals_far_off_become_arrows_at_the_edge_with_their_number(axes):
    rows = {"teacher": [0.98, 0.95, 1.01], "student": [0.4], "unknown": [np.nan, np.nan, np.nan]}
    panels.intervals(axes[0], rows, LOOKS, target=1.0, reach=0.1)
    points = {line.get_marker(): line.get_xdata()[0] for line in axes[0].get_lines() if line.get_marker() != "None"}
    assert points == {"o": 0.98, "<": 0.9}
    assert [t.get_text() for t in axes[0].texts] == ["0.980", "0.400"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["teacher", "student"]


LOG = "epoch,step,loss,lr,loss/fake\n0,1,2.0,0.1,\n0,2,,0.1,3.0\n0,3,1.0,0.1,nan\n"


def test_training_curves_read_lightnings_csv(axes, tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    assert panels.training_curves(axes[0], tmp_path / "metrics.csv") == ["loss", "loss/fake"]
    loss, fake = axes[0].get_lines()
    assert loss.get_xydata().tolist() == [[1, 2], [3, 1]] and fake.get_xydata().tolist() == [[2, 3]]
    assert axes[0].get_yscale() == "log"
    assert panels.training_curves(axes[1], tmp_path / "metrics.csv", ["lr"]) == ["lr"]


def test_a_training_log_that_is_not_there_or_holds_nothing_is_named(axes, tmp_path):
    with pytest.raises(UserError, match="no training log"):
        panels.training_curves(axes[0], tmp_path / "metrics.csv")
    for text in ("", "epoch,step\n0,1\n", "loss\n1\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(UserError, match="has the columns"):
            panels.training_curves(axes[0], tmp_path / "metrics.csv")
