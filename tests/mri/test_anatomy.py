"""Random heads."""

import copy
import itertools

import numpy as np
import pytest

from scigen.mri.anatomy import FINER, Ellipsoid, Head, Smooth, grid
from scigen.mri.contrast import TISSUES


@pytest.fixture(scope="module")
def heads():
    return [Head(np.random.default_rng([7, i])) for i in range(12)]


def share(labels, tissue):
    return float((labels == TISSUES.index(tissue)).mean())


def test_smooth_noise_has_unit_variance_and_its_wavelengths():
    axis = grid(128)
    values = np.stack([Smooth(np.random.default_rng(i), 0.2, 0.4)(axis, 0.3) for i in range(40)])
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert values.var() == pytest.approx(1, abs=0.03)
    power = (np.abs(np.fft.fft2(values * np.outer(np.hanning(128), np.hanning(128)))) ** 2).mean(0)
    k = np.fft.fftfreq(128, d=2 / 128)
    number = np.hypot(k[:, None], k)
    assert power[(number > 2) & (number < 5.5)].sum() > 0.98 * power.sum()


def test_smooth_noise_drifts_with_z():
    noise, axis = Smooth(np.random.default_rng(0), 0.4, 1.0), grid(64)
    near, far = (np.corrcoef(noise(axis, 0.0).ravel(), noise(axis, z).ravel())[0, 1] for z in (0.05, 1.0))
    assert near > 0.95 > 0.7 > far


def test_an_ellipsoid_has_its_area_and_place():
    axis = grid(400)
    inside = Ellipsoid((0.2, -0.1, 0.5), (0.3, 0.1, 0.4), 0.6).level(axis[None], axis[:, None], 0.5) < 1
    assert inside.mean() * 4 == pytest.approx(np.pi * 0.03, rel=0.02)
    y, x = np.nonzero(inside)
    assert axis[x].mean() == pytest.approx(0.2, abs=0.01) and axis[y].mean() == pytest.approx(-0.1, abs=0.01)
    assert np.polyfit(axis[x] - 0.2, axis[y] + 0.1, 1)[0] > 0.3  # it is long along (cos 0.6, sin 0.6)


def test_layers_are_nested(heads):
    """From outside inwards: background, skin, fat, …, bone, then cerebrospinal fluid before any of the brain."""
    brain = [TISSUES.index(t) for t in ("grey", "white", "lesion")]
    for head in heads:
        labels = head.labels(0.3, 64)
        assert (labels[[0, -1]] == 0).all() and (labels[:, [0, -1]] == 0).all()
        for line in (labels[64], labels[:, 64], labels[::-1, 64], labels[64, ::-1]):
            first = [int(np.argmax(line == TISSUES.index(t))) for t in ("skin", "fat", "bone", "csf")]
            assert first == sorted(first) and first[0] > 0
            assert np.argmax(np.isin(line, brain)) > first[-1]


def test_proportions_are_those_of_a_head(heads):
    low, high = (np.stack([h.labels(z, 64) for h in heads]) for z in (0.1, 0.9))
    for labels in (low, high):
        head = 1 - share(labels, "background")
        assert 0.2 < head < 0.75
        assert 0.1 < share(labels, "grey") / head < 0.45
        assert 0.1 < share(labels, "white") / head < 0.45
        assert 0.04 < share(labels, "fat") / head < 0.25
    assert (low > 0).mean() > 1.2 * (high > 0).mean()
    inner = np.s_[:, 40:88, 52:76]
    assert share(low[inner], "csf") > 2 * share(high[inner], "csf")  # ventricles


def test_lesions_are_in_some_heads_only(heads):
    found = [any(share(h.labels(z, 48), "lesion") for z in np.linspace(0.1, 0.9, 9)) for h in heads]
    assert 0 < sum(found) < len(heads)
    assert all(not f or h.lesions for f, h in zip(found, heads, strict=True))
    assert max(len(h.lesions) for h in heads) <= 3
    for head in heads:
        for z in (0.3, 0.6):
            labels = head.labels(z, 48)
            head_without = copy.copy(head)
            head_without.lesions = []
            changed = labels != head_without.labels(z, 48)
            assert (head_without.labels(z, 48)[changed] == TISSUES.index("white")).all()


def test_neighbouring_slices_are_alike_and_subjects_are_not(heads):
    def agreement(a, b):
        there = (a > 0) | (b > 0)
        return (a == b)[there].mean()

    pairs = list(itertools.pairwise(heads))
    near = np.mean([agreement(h.labels(0.3, 48), h.labels(0.33, 48)) for h, _ in pairs])
    other = np.mean([agreement(h.labels(0.3, 48), g.labels(0.3, 48)) for h, g in pairs])
    assert near > 0.85 and other < 0.65


def test_a_head_is_the_same_on_any_grid(heads):
    coarse, fine = heads[0].labels(0.4, 32), heads[0].labels(0.4, 96)
    assert coarse.shape == (FINER * 32,) * 2 and coarse.dtype == np.uint8
    assert (fine[::3, ::3] == coarse).mean() > 0.999
