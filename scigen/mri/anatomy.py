"""Random heads: tissue labels of axial slices, from nested ellipses, level sets of smooth noise, and smooth warps.

Every field is a function of position in three dimensions, so that the slices of a head belong together, and a head is
the same on grids of any size. Coordinates x (to the right) and y (down) are -1 … 1 over the field of view; z is 0 at
the level of the ventricles and 1 near the top of the head. Heads are generic: they show no person and no pathology.
"""

from dataclasses import dataclass

import numpy as np

from scigen.mri.contrast import TISSUES

SKIN, FAT, BONE, CSF, GREY, WHITE, LESION = (TISSUES.index(t) for t in TISSUES[1:])

FINER = 2
"""Points of labels to a pixel, along each axis."""

MODES = 48
"""Waves that a smooth noise is the sum of."""

UNTHREADED = 200_000
"""Multiplications in a matrix product that BLAS does in one thread: starting more takes longer than these."""

DRIFT = 0.3
"""Wave number of smooth noise along z over that in the plane."""


class Smooth:
    """Gaussian noise of unit variance with wavelengths in a range, as a function of x, y, z."""

    def __init__(self, rng: np.random.Generator, shortest: float, longest: float) -> None:
        """Draw the waves.

        Args:
            rng: random numbers.
            shortest: wavelength.
            longest: wavelength.
        """
        number = 2 * np.pi / np.exp(rng.uniform(np.log(shortest), np.log(longest), MODES))
        angle = rng.uniform(0, 2 * np.pi, MODES)
        self.x, self.y = number * np.cos(angle), number * np.sin(angle)
        self.z = DRIFT * number * rng.standard_normal(MODES)
        self.phase = rng.uniform(0, 2 * np.pi, MODES)

    def __call__(self, axis: np.ndarray, z: float) -> np.ndarray:
        """On the square grid (y, x) of one axis, at z: a product of matrices, as waves are separable."""
        phase_y = (np.outer(axis, self.y) + (self.phase + self.z * z)).astype(np.float32)
        phase_x = np.outer(self.x, axis).astype(np.float32)
        along_y = np.concatenate([np.cos(phase_y), -np.sin(phase_y)], 1)
        along_x = (2 / MODES) ** 0.5 * np.concatenate([np.cos(phase_x), np.sin(phase_x)])
        rows = max(1, UNTHREADED // along_x.size)
        return np.concatenate([along_y[i : i + rows] @ along_x for i in range(0, len(axis), rows)])


@dataclass(frozen=True)
class Ellipsoid:
    """One in three dimensions, turned in the plane.

    Attributes:
        centre: x, y, z.
        radii: along its own x and y, and z.
        turn: of its own axes [radians].
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    turn: float = 0.0

    def level(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Squared distance from the centre in radii: below 1 inside."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        own = ((dx * cosine + dy * sine) / self.radii[0]) ** 2 + ((dy * cosine - dx * sine) / self.radii[1]) ** 2
        return own + ((z - self.centre[2]) / self.radii[2]) ** 2


class Head:
    """The head of one subject."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw shapes and sizes."""
        u = rng.uniform
        self.half = u(0.68, 0.78), u(0.84, 0.92)
        self.turn, self.shift = u(-0.12, 0.12), (u(-0.05, 0.05), u(-0.04, 0.04))
        self.top = u(1.25, 1.45)
        self.skin, self.fat, self.bone, self.rim = u(0.02, 0.03), u(0.025, 0.05), u(0.045, 0.07), u(0.02, 0.04)
        self.muscle = u(0.04, 0.09)
        self.ribbon, self.depth = u(0.055, 0.075), u(0.2, 0.28)
        self.sulcus = u(0.12, 0.2)
        self.fissure = u(0.010, 0.016)
        self.warps = Smooth(rng, 0.9, 3.0), Smooth(rng, 0.9, 3.0)
        self.strength = u(0.015, 0.03)
        self.layers = Smooth(rng, 0.6, 2.0)
        self.folds = Smooth(rng, 0.24, 0.42)
        self.ventricles = self._ventricles(rng)
        self.nuclei = self._nuclei(rng)
        self.lesions = [
            Ellipsoid(
                (u(-0.4, 0.4), u(-0.5, 0.5), u(0.1, 0.9)), (u(0.04, 0.11), u(0.04, 0.11), u(0.1, 0.25)), u(0, np.pi)
            )
            for _ in range(rng.integers(4))
        ]

    @staticmethod
    def _ventricles(rng: np.random.Generator) -> list[Ellipsoid]:
        """Frontal and occipital horns and bodies of the lateral ventricles of both sides, and the third ventricle."""
        u = rng.uniform
        wide, long, high, lean, out = u(0.035, 0.075), u(0.17, 0.26), u(0.35, 0.55), u(0.15, 0.4), u(0.08, 0.12)
        found = [Ellipsoid((0, u(0.0, 0.06), -0.1), (u(0.012, 0.025), 0.1, 0.3))]
        for side in (-1, 1):
            size = u(0.85, 1.15)
            body = wide * size, long * size, high
            found.append(Ellipsoid((side * out, -0.12 + u(-0.02, 0.02), 0.1), body, side * lean))
            horn = wide * size, 0.7 * long * size, 0.9 * high
            found.append(Ellipsoid((side * (out + 0.06), 0.2 + u(-0.02, 0.02), 0.05), horn, -side * (lean + 0.15)))
        return found

    @staticmethod
    def _nuclei(rng: np.random.Generator) -> list[Ellipsoid]:
        """Thalamus, lentiform and caudate nuclei of both sides."""
        u = rng.uniform
        found = []
        for side in (-1, 1):
            found.append(Ellipsoid((side * 0.1, 0.07, -0.1), (u(0.06, 0.08), u(0.1, 0.13), 0.45), -side * 0.5))
            found.append(Ellipsoid((side * 0.26, -0.06, -0.1), (u(0.05, 0.07), u(0.13, 0.17), 0.4), -side * 0.25))
            found.append(Ellipsoid((side * 0.17, -0.25, 0.0), (u(0.03, 0.045), u(0.07, 0.1), 0.5), side * 0.4))
        return found

    def labels(self, z: float, size: int) -> np.ndarray:
        """Tissue of each point of a slice, as indices of `TISSUES`.

        Args:
            z: 0 … 1.
            size: pixels a side.

        Returns:
            (FINER · size, FINER · size) uint8; pixel i of the slice is around point FINER · i, so that the centre of
            the field of view is at half the size in both.
        """
        axis = grid(FINER * size)
        x, y = self._warped(axis, z)
        extent = np.sqrt(1 - (z / self.top) ** 2)
        width, height = extent * self.half[0], extent * self.half[1]
        angle = np.arctan2(y, x)
        radius = np.hypot(x / width, y / height)
        radius = radius * (1 - 0.03 * np.cos(2 * angle) ** 2 + 0.02 * np.sin(angle))
        depth = (1 - radius) * (width + height) / 2
        varied = 1 + 0.2 * self.layers(axis, z)
        out = np.zeros(x.shape, np.uint8)
        out[depth > 0] = SKIN
        skin = self.skin * np.ones_like(depth)
        out[depth > skin] = FAT
        fat = skin + self.fat * np.clip(varied, 0.5, 2) * (1 + 0.3 * np.sin(angle) ** 2)
        out[depth > fat] = SKIN
        temples = fat + self.muscle * max(0.0, 1 - 1.6 * z) * np.clip(2.2 * np.abs(np.cos(angle - 0.2)) - 1.2, 0, None)
        out[depth > temples] = BONE
        bone = temples + self.bone * np.clip(varied, 0.6, 1.6)
        out[depth > bone] = CSF
        inner = depth - bone - self.rim * np.clip(1.5 - 0.5 * varied, 0.3, 2)
        brain = inner > 0
        out[brain] = self._brain(x, y, z, inner, axis)[brain]
        return out

    def _warped(self, axis: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (y, x) in the frame of the head, smoothly deformed."""
        x, y = axis[None] - self.shift[0], axis[:, None] - self.shift[1]
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        dx, dy = (self.strength * w(axis, z) for w in self.warps)
        return x * cosine + y * sine + dx, y * cosine - x * sine + dy

    def _brain(self, x: np.ndarray, y: np.ndarray, z: float, depth: np.ndarray, axis: np.ndarray) -> np.ndarray:
        """Labels inside the rim; `depth` is measured from the surface of the brain."""
        folds = np.abs(self.folds(axis, z))
        shallow = np.clip(1 - depth / self.depth, 0, 1)
        out = np.full(x.shape, WHITE, np.uint8)
        cortex = (depth < self.ribbon) | (folds < 1.1 * self.sulcus + 0.55 * shallow) & (shallow > 0)
        midline = np.abs(x) + 0.01 * np.clip(np.abs(y) - 0.3, 0, None)
        reach = np.clip(4 * (0.35 - depth), 0, 1) if z < 0.55 else np.ones_like(depth)
        out[cortex | (midline < (self.fissure + 0.7 * self.ribbon) * reach)] = GREY
        out[(folds < self.sulcus * 1.6 * shallow) & (shallow > 0.15)] = CSF
        out[midline < self.fissure * reach] = CSF
        for shape in self.nuclei:
            out[shape.level(x, y, z) < 1] = GREY
        for shape in self.lesions:
            out[(shape.level(x, y, z) < 1) & (out == WHITE)] = LESION
        for shape in self.ventricles:
            out[shape.level(x, y, z) < 1] = CSF
        return out


def grid(size: int) -> np.ndarray:
    """Positions of the points of an axis, the centre at index size // 2."""
    return (np.arange(size) - size // 2) / (size / 2)
