"""Signal equations of spin echo, inversion recovery and gradient echo, and the tissues of the head."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scigen.errors import UserError

TISSUES = ("background", "skin", "fat", "bone", "csf", "grey", "white", "lesion")
"""Tissue classes, in the order of their labels; skin is muscle, too."""

PROPERTIES = np.array([
    # T1, T2, T2* [ms], PD
    (1000.0, 50.0, 30.0, 0.00),
    (900.0, 47.0, 30.0, 1.00),
    (350.0, 70.0, 58.0, 1.00),
    (800.0, 5.0, 2.0, 0.08),
    (2569.0, 329.0, 58.0, 1.00),
    (833.0, 83.0, 69.0, 0.86),
    (500.0, 70.0, 61.0, 0.77),
    (752.0, 237.0, 204.0, 0.76),
])  # fmt: skip
"""Of each tissue at 1.5 T, about as simulations of the brain use them; background and bone give (nearly) no signal."""

CONTRASTS = ("T1", "T2", "PD", "FLAIR", "GRE")
"""Weightings: the first three are spin echoes."""


@dataclass(frozen=True)
class Pulses:
    """A pulse sequence and its times [ms].

    Attributes:
        contrast: one of `CONTRASTS`.
        tr: repetition time.
        te: echo time.
        ti: inversion time; of FLAIR alone.
        flip: flip angle [degrees]; of GRE alone.
    """

    contrast: str
    tr: float
    te: float
    ti: float | None = None
    flip: float | None = None

    def signal(self, tissues: np.ndarray) -> np.ndarray:
        """Magnitudes (tissue,) of tissues (tissue, [T1, T2, T2*, PD])."""
        t1, t2, t2star, pd = tissues.T
        if self.ti is not None:
            return inversion_recovery(t1, t2, pd, self.tr, self.te, self.ti)
        if self.flip is not None:
            return gradient_echo(t1, t2star, pd, self.tr, self.te, self.flip)
        return spin_echo(t1, t2, pd, self.tr, self.te)


def spin_echo(t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, tr: float, te: float) -> np.ndarray:
    """PD (1 − exp(−TR/T1)) exp(−TE/T2)."""
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def inversion_recovery(t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, tr: float, te: float, ti: float) -> np.ndarray:
    """PD |1 − 2 exp(−TI/T1) + exp(−TR/T1)| exp(−TE/T2)."""
    return pd * np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def gradient_echo(t1: np.ndarray, t2star: np.ndarray, pd: np.ndarray, tr: float, te: float, flip: float) -> np.ndarray:
    """PD sin α (1 − E) / (1 − E cos α) exp(−TE/T2*), E = exp(−TR/T1): spoiled, in the steady state."""
    angle, recovery = np.deg2rad(flip), np.exp(-tr / t1)
    return pd * np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle)) * np.exp(-te / t2star)


def null_time(t1: float, tr: float) -> float:
    """Inversion time [ms] at which the tissue gives no signal: T1 ln(2 / (1 + exp(−TR/T1)))."""
    return float(t1 * np.log(2 / (1 + np.exp(-tr / t1))))


RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "T1": {"tr": (400, 700), "te": (8, 20)},
    "T2": {"tr": (3000, 6000), "te": (80, 120)},
    "PD": {"tr": (2500, 5000), "te": (12, 30)},
    "FLAIR": {"tr": (8000, 11000), "te": (90, 130)},
    "GRE": {"tr": (20, 60), "te": (3, 12), "flip": (20, 40)},
}
"""From which times [ms] and flip angles [degrees] are drawn, uniformly."""

NULLING = 0.05
"""How far the inversion time of FLAIR is from nulling cerebrospinal fluid, at most and relative."""

VARIATION = 0.06
"""Standard deviation of the logarithm of tissue properties among subjects."""


def draw(rng: np.random.Generator) -> tuple[Pulses, np.ndarray]:
    """A random pulse sequence, and the tissue properties (tissue, [T1, T2, T2*, PD]) of one subject."""
    tissues = varied(rng)
    return pulses(rng, CONTRASTS[rng.integers(len(CONTRASTS))], tissues), tissues


def varied(rng: np.random.Generator) -> np.ndarray:
    """The tissue properties (tissue, [T1, T2, T2*, PD]) of one subject."""
    return PROPERTIES * np.exp(VARIATION * rng.standard_normal(PROPERTIES.shape))


def pulses(rng: np.random.Generator, contrast: str, tissues: np.ndarray) -> Pulses:
    """Random times of a weighting; FLAIR nulls the cerebrospinal fluid of these tissues.

    Raises:
        UserError: for a weighting that is not known.
    """
    if contrast not in RANGES:
        raise UserError(f"contrast={contrast}: expected one of {', '.join(CONTRASTS)}.")
    times = {key: float(rng.uniform(*span)) for key, span in RANGES[contrast].items()}
    if contrast == "FLAIR":
        t1 = float(tissues[TISSUES.index("csf"), 0])
        times["ti"] = null_time(t1, times["tr"]) * float(rng.uniform(1 - NULLING, 1 + NULLING))
    return Pulses(contrast, **times)
