"""Laws of the Cahn–Hilliard solver."""

from itertools import pairwise

import numpy as np
import pytest

from scigen.materials.phasefield import CahnHilliard, chemical


def energy(u: np.ndarray, kappa: tuple[float, float, float]) -> float:
    """Σ u²(1−u)² + ½ Σ κ_a |∂_a u|², with spectral gradients."""
    total = float((u**2 * (1 - u) ** 2).sum())
    for axis, k in enumerate(kappa):
        n = u.shape[axis + 1]
        waves = 2j * np.pi * np.fft.fftfreq(n).reshape([-1 if a == axis else 1 for a in range(3)])
        slope = np.fft.ifftn(waves * np.fft.fftn(u, axes=(1, 2, 3)), axes=(1, 2, 3)).real
        total += 0.5 * k * float((slope**2).sum())
    return total


@pytest.mark.parametrize("fractions", [(0.4, 0.6), (0.3, 0.3, 0.4)])
def test_mass_is_conserved_and_energy_falls(fractions):
    kappa = (2.0, 1.0, 1.0)
    run = CahnHilliard((16, 16, 16), fractions, kappa, np.random.default_rng(0))
    energies = []
    for u in run.snapshots([5, 10, 20, 40, 80]):
        np.testing.assert_allclose(u.mean((1, 2, 3)), fractions, atol=1e-5)
        np.testing.assert_allclose(u.sum(0), 1, atol=1e-5)
        energies.append(energy(u, kappa))
    assert all(b < a for a, b in pairwise(energies))


@pytest.mark.parametrize("kappa", [0.5, 1.0, 2.0])
def test_a_flat_interface_is_the_known_profile(kappa):
    """(1 + tanh(x/√(2κ)))/2 is the equilibrium."""
    run = CahnHilliard((48, 2, 2), (0.5, 0.5), (kappa, kappa, kappa), np.random.default_rng(0))
    z = np.arange(48) - 23.5
    wall = 0.5 * (1 + np.tanh((12 - np.abs(z)) / np.sqrt(2 * kappa)))
    run.modes = np.fft.rfftn(np.broadcast_to(wall[:, None, None], (48, 2, 2)))[None].astype(np.complex64)
    run.advance(50)
    np.testing.assert_allclose(run.concentrations[0, :, 0, 0], wall, atol=0.01)


def test_the_fastest_wave_grows_as_linear_theory_says():
    """Around u = ½: growth k² (1 − κ k²) of a small wave, g'(½) = −1."""
    n, m, kappa, dt = 64, 6, 1.0, 0.01
    run = CahnHilliard((n, 2, 2), (0.5, 0.5), (kappa,) * 3, np.random.default_rng(0), dt=dt)
    wave = 0.5 + 1e-3 * np.cos(2 * np.pi * m * np.arange(n) / n)
    run.modes = np.fft.rfftn(np.broadcast_to(wave[:, None, None], (n, 2, 2)))[None]
    run.advance(2)
    k2 = (2 * np.pi * m / n) ** 2
    grown = np.abs(np.fft.fft(run.concentrations[0, :, 0, 0]))[m] / (0.5e-3 * n)
    np.testing.assert_allclose(grown, np.exp(2 * k2 * (1 - kappa * k2)), rtol=0.01)


def test_two_of_three_phases_are_the_two_phase_equation():
    """Where the third phase is absent its multiplier vanishes, and it stays absent."""
    u = np.random.default_rng(0).uniform(0, 1, 100)
    drive = np.stack([chemical(u), chemical(1 - u), chemical(np.zeros(100))])
    np.testing.assert_allclose(drive.mean(0), 0, atol=1e-12)


def test_three_phases_meet_at_triple_lines():
    run = CahnHilliard((24, 24, 24), (0.33, 0.33, 0.34), (1.0,) * 3, np.random.default_rng(3))
    run.advance(150)
    labels = run.concentrations.argmax(0)
    around = np.stack([np.roll(labels, (-j, -k), (1, 2)) for j in (0, 1) for k in (0, 1)])
    kinds = sum((around == p).any(0).astype(int) for p in range(3))
    assert (kinds == 3).mean() > 0.005  # edges where all three meet
    pairs = {tuple(sorted(p)) for p in zip(labels.ravel(), np.roll(labels, 1, 0).ravel(), strict=True)}
    assert {(0, 1), (0, 2), (1, 2)} <= pairs  # no phase is wrapped in another
