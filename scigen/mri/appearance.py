"""What makes an image of plain tissues look acquired: variation within them, shading, receive gain, smooth phase."""

import numpy as np

from scigen.mri.anatomy import Smooth

GAIN = (0.5, 2.0)
"""Receive gain of a volume, drawn log-uniformly."""

TEXTURE = 0.04
"""Standard deviation of the variation within tissues, relative."""

SHADING = 0.06
"""Standard deviation of the smooth variation over the head, relative."""

WRINKLES = 0.4
"""Standard deviation of the phase over its quadratic trend [radians]."""


def gain(rng: np.random.Generator) -> float:
    """A receive gain."""
    return float(np.exp(rng.uniform(*np.log(GAIN))))


class Appearance:
    """Amplitude and phase of one volume, as functions of position; coordinates are those of `scigen.mri.anatomy`."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw them."""
        self.texture, self.shading, self.wrinkles = Smooth(rng, 0.08, 0.3), Smooth(rng, 1.0, 3.0), Smooth(rng, 0.8, 2.5)
        self.constant, self.tilt = rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5, 2)
        self.bend = rng.uniform(-0.8, 0.8, 3)

    def amplitude(self, axis: np.ndarray, z: float) -> np.ndarray:
        """What magnitudes are multiplied by, on the square grid (y, x) of one axis: about 1, never below 0.3."""
        return np.clip(1 + TEXTURE * self.texture(axis, z) + SHADING * self.shading(axis, z), 0.3, None)

    def phase(self, axis: np.ndarray, z: float) -> np.ndarray:
        """Radians on the square grid (y, x) of one axis: a quadratic trend in the plane and smooth wrinkles."""
        x, y = axis[None], axis[:, None]
        bend = self.bend
        trend = self.constant + self.tilt[0] * x + self.tilt[1] * y
        trend = trend + bend[0] * x * x + bend[1] * x * y + bend[2] * y * y
        return trend + WRINKLES * self.wrinkles(axis, z)
