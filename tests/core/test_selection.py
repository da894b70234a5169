"""The composite sees every fault, and the weights that it prefers are the ones kept."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import nn

from scigen.core.ema import PowerEMA
from scigen.core.selection import WIDTHS, Selector, faults


def world(m: int = 12, spread: float = 1.0, smooth: bool = False, noise: float = 0.0, seed: int = 0):
    """Members and truth around a known signal: both of unit uncertainty where spread = 1 and nothing else is wrong."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((200, 1, 8, 8))
    truth = signal + rng.standard_normal((200, 1, 8, 8))
    own = rng.standard_normal((200, m, 1, 8, 8))
    if smooth:
        own = uniform_filter(own, (0, 0, 0, 3, 3), mode="wrap")
        own /= own.std()
    members = signal[:, None] + spread * own + noise * rng.standard_normal(own.shape)
    return members, truth


def test_a_perfect_ensemble_has_no_fault():
    found = faults(*world())
    expected = (1 / np.pi**0.5) / 2**0.5  # E CRPS of N(0, 1) against itself over the truth's spread √2
    assert found["crps"] == pytest.approx(np.log(expected), abs=0.01)
    assert found["ssr"] == pytest.approx(1.0, abs=0.01)
    assert found["spectrum"] < 0.05
    assert found["score"] == pytest.approx(found["crps"] + abs(found["ssr"] - 1) + found["spectrum"])


@pytest.mark.parametrize("members", [2, 5, 30])
def test_composite_does_not_depend_on_the_number_of_members(members):
    assert faults(*world(members))["score"] == pytest.approx(faults(*world(12))["score"], abs=0.04)


@pytest.mark.parametrize("k", [0.8, 0.9, 1.15])
def test_a_wrong_spread_that_crps_hardly_sees_counts(k):
    right, wrong = faults(*world()), faults(*world(spread=k))
    assert wrong["crps"] - right["crps"] == pytest.approx(np.log((2 * (1 + k * k)) ** 0.5 - k), abs=0.01)
    assert wrong["ssr"] == pytest.approx(k, abs=0.02)
    assert wrong["score"] - right["score"] > 0.9 * abs(1 - k)


def test_smooth_members_of_the_right_spread_are_seen_by_the_spectrum():
    right, wrong = faults(*world()), faults(*world(smooth=True))
    assert abs(wrong["ssr"] - 1) < 0.03 and wrong["crps"] == pytest.approx(right["crps"], abs=0.01)
    assert wrong["spectrum"] > 0.3 and wrong["score"] > right["score"] + 0.3


def test_fields_without_space_have_no_spectrum():
    members, truth = world()
    assert faults(members[..., 0, 0], truth[..., 0, 0])["spectrum"] == 0.0


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))


def walk(folder, judge, patience=0, steps=40, every=5):
    """Weights 1, 2, …, averaged, kept and judged every few steps; returns the choice, the averages, the last step."""
    module, selector = Weight(), Selector(folder, judge, patience)
    ema = PowerEMA(module, (0.05, 0.10))
    seen = {}
    for step in range(1, steps + 1):
        module.weight.data.fill_(float(step))
        ema.update(module)
        if step % every == 0:
            seen[step] = float(ema.average().weight)
            selector.snapshot(ema, step)
            if selector.exhausted(step):
                break
    return selector.choose(ema, step), seen, step


def test_the_best_snapshot_is_kept_even_if_training_went_on(tmp_path):
    chosen, seen, last = walk(tmp_path, lambda m: {"score": abs(float(m.weight) - 14.0)})
    best = min(seen, key=lambda s: abs(seen[s] - 14.0))
    assert last == 40 and best == 15
    assert float(chosen.weight) == seen[best]


def test_a_wider_average_wins_at_the_end_where_it_is_better(tmp_path):
    """Weights τ: the average of width w at the end is t (γ + 1)/(γ + 2), lowest for the widest."""
    chosen, seen, _ = walk(tmp_path, lambda m: {"score": abs(float(m.weight) - 33.0)}, steps=40)
    scores = Selector(tmp_path).scores()
    assert set(scores[scores["step"] == 40]["width"]) == set(WIDTHS)
    by_width = {w: float(s) for w, s in zip(scores["width"], scores["score"], strict=True) if w != 0.05}
    assert min(by_width.values()) < abs(seen[40] - 33.0)
    assert abs(float(chosen.weight) - 33.0) == pytest.approx(scores["score"].min())


@pytest.mark.parametrize(("patience", "stops"), [(0, 40), (1, 20), (3, 30)])
def test_patience(tmp_path, patience, stops):
    """The score is best at step 15: a patience of p snapshots ends the training p snapshots later."""
    _, _, last = walk(tmp_path, lambda m: {"score": abs(float(m.weight) - 14.0)}, patience)
    assert last == stops


def test_without_a_judge_the_last_average_is_kept(tmp_path):
    chosen, seen, _ = walk(tmp_path, None)
    assert float(chosen.weight) == seen[40]
    assert not Selector(tmp_path).table.exists()


def test_scores_of_steps_that_are_done_again_are_replaced(tmp_path):
    walk(tmp_path, lambda m: {"score": 1.0})
    walk(tmp_path, lambda m: {"score": 2.0})
    scores = Selector(tmp_path).scores()
    assert (scores["score"] == 2.0).all() and not scores.duplicated(["step", "width"]).any()


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    def judge(m):
        return {"score": float("nan") if float(m.weight) < 30 else float(m.weight)}

    chosen, seen, last = walk(tmp_path, judge, patience=2)
    scores = Selector(tmp_path).scores()
    assert scores["score"].isna().any() and last == 40
    assert float(chosen.weight) == pytest.approx(scores["score"].min())
    nothing, seen, _ = walk(tmp_path / "none", lambda m: {"score": float("nan")})
    assert float(nothing.weight) == seen[40]
