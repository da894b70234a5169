"""Default weather data whose conditional law is known exactly: Gaussian fields over a fixed orography.

t2m, u10, v10 = mean(orography, hour, season) + anomaly. The anomaly is a stationary Gaussian vector field with given
cross-spectra: winds from a stream function and a velocity potential, temperature partly tied to the stream function;
power ∝ k^(−5/3) for wind and k^(−2) for temperature towards small scales (as observed at the mesoscale, Nastrom & Gage
1985). It is drawn on a torus of twice the size and cut, so that the region has open boundaries, and every wavenumber is
an AR(1) process in time whose memory shortens with scale. At one time the fields given their block means y = A x are
Gaussian:

    E[x | y] = m + Σ Aᵀ (A Σ Aᵀ)⁻¹ (y − A m),        Cov[x | y] = Σ − Σ Aᵀ (A Σ Aᵀ)⁻¹ A Σ.

tp, rain, comes of a stationary Gaussian field z of its own, of unit variance, independent of the others: dry where z is
below a threshold, tp = rain (z − threshold)^TAIL above. So its marginal law is known (`Law.rain_quantile`), not that of
a field given its block means.
"""

import functools
import json
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr, ndtri

from scigen.errors import UserError
from scigen.weather.variables import VARIABLES as KNOWN

ATTRIBUTE = "scigen_law"
"""Archive attribute that holds the parameters of the law as JSON, so that the exact answer travels with the data."""

GAUSSIAN = ("t2m", "u10", "v10")
"""Variables whose joint law is Gaussian, in channel order."""

VARIABLES = {name: KNOWN[name].attrs for name in (*GAUSSIAN, "tp")}
"""CF attributes of what it has."""

TAIL = 2.5
"""Exponent of the rain rate over its threshold."""


@dataclass(frozen=True)
class Law:
    """Parameters of the synthetic climate and everything that follows from them in closed form.

    Attributes:
        size: cells of the region along latitude and longitude.
        seed: of orography and weather.
        spacing: grid spacing [degrees].
        south: latitude of the first row [degrees_north].
        spread_t2m: standard deviation of the temperature anomaly [K].
        spread_wind: standard deviation of each wind component's anomaly [m s-1].
        outer: wavenumber on the torus where the power law sets in.
        tie: correlation of temperature with the stream function.
        divergent: share of the wind variance that is divergent.
        memory: e-folding time of the largest scales [hours].
        wet: share of the cells where it rains at all.
        rain: rain rate one standard deviation of z above the threshold [mm h-1].
    """

    size: int = 32
    seed: int = 0
    spacing: float = 0.25
    south: float = 48.0
    spread_t2m: float = 3.0
    spread_wind: float = 4.0
    outer: float = 2.0
    tie: float = 0.6
    divergent: float = 0.2
    memory: float = 48.0
    wet: float = 0.25
    rain: float = 1.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        positive = (self.spacing, self.spread_t2m, self.spread_wind, self.outer, self.memory, self.rain)
        inside = 0 <= self.tie < 1 and 0 <= self.divergent <= 1 and 0 < self.wet < 1
        if self.size < 4 or self.seed < 0 or not inside or min(positive) <= 0:
            raise UserError(
                "The synthetic climate needs size >= 4, seed >= 0, 0 <= tie < 1, 0 <= divergent <= 1, 0 < wet < 1, and"
                f" positive spacing, spreads, outer, memory and rain: {self}."
            )

    @property
    def torus(self) -> int:
        """Cells of the torus along each axis."""
        return 2 * self.size

    @functools.cached_property
    def amplitude(self) -> np.ndarray:
        """L(k), complex (3 variables, 3 sources, torus, torus): anomaly = IFFT(L(k) FFT(white sources))."""
        n = self.torus
        k1 = np.fft.fftfreq(n, 1 / n)
        ky, kx = np.meshgrid(k1, k1, indexing="ij")
        k = np.hypot(ky, kx)
        # power per mode ∝ E(k)/k; the stream function has that of the wind over k²
        wind = (k**2 + self.outer**2) ** (-(5 / 3 + 1) / 4)
        heat = (k**2 + self.outer**2) ** (-(2 + 1) / 4)
        wind[0, 0] = heat[0, 0] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            iy, ix = (1j * np.where((np.abs(c) == n // 2) | (k == 0), 0.0, c / k) for c in (ky, kx))
        rot, div = np.sqrt(1 - self.divergent) * wind, np.sqrt(self.divergent) * wind
        zero = np.zeros_like(wind)
        rows = np.array(
            [
                [self.tie * heat, zero, np.sqrt(1 - self.tie**2) * heat],
                [-iy * rot, ix * div, zero],
                [ix * rot, iy * div, zero],
            ]
        )
        # white noise of unit variance has E|FFT|² = n², so a pixel's variance is the mean of |L|² over the modes
        spread = np.sqrt((np.abs(rows) ** 2).sum(1).mean((1, 2)))
        wanted = np.array([self.spread_t2m, self.spread_wind, self.spread_wind])
        return rows * (wanted / spread)[:, None, None, None]

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """Σ, (3 s², 3 s²) for a region of s × s cells, variables outermost [products of units]."""
        s, n = self.size, self.torus
        cross = np.einsum("aikl,bikl->abkl", self.amplitude, self.amplitude.conj())
        lags = np.fft.ifft2(cross).real  # R_ab(lag) = E[x_a(p + lag) x_b(p)]
        i = np.arange(s)
        lag = (i[:, None] - i[None, :]) % n
        blocks = lags[:, :, lag[:, None, :, None], lag[None, :, None, :]]  # a, b, y, x, y', x'
        return blocks.transpose(0, 2, 3, 1, 4, 5).reshape(3 * s * s, 3 * s * s)

    @functools.cached_property
    def orography(self) -> np.ndarray:
        """Height of the surface [m], (size, size): smooth hills over a sea at 0 m."""
        n = self.torus
        rng = np.random.default_rng([self.seed, 1])
        k1 = np.fft.fftfreq(n, 1 / n)
        k = np.hypot(*np.meshgrid(k1, k1, indexing="ij"))
        shape = np.where(k > 0, (k**2 + 3.0**2) ** -1.4, 0.0)
        hills = np.fft.ifft2(shape * np.fft.fft2(rng.standard_normal((n, n)))).real[: self.size, : self.size]
        return 700.0 * np.clip(hills / hills.std() + 0.2, 0.0, None)

    @property
    def latitude(self) -> np.ndarray:
        """Latitudes [degrees_north], ascending."""
        return self.south + self.spacing * np.arange(self.size)

    @property
    def longitude(self) -> np.ndarray:
        """Longitudes [degrees_east]."""
        return self.spacing * np.arange(self.size)

    def mean(self, time: np.ndarray) -> np.ndarray:
        """Mean fields at the given times: (time, 3, size, size) [K, m s-1, m s-1].

        Temperature has a yearly and a daily cycle and falls with height, faster in the afternoon and in summer; the
        mean wind grows with height.
        """
        stamp = pd.DatetimeIndex(time)
        day = 2 * np.pi * (stamp.hour + stamp.minute / 60) / 24
        year = 2 * np.pi * (stamp.day_of_year - 1) / 365.25
        warm, noon = -np.cos(year - 2 * np.pi * 15 / 365), -np.cos(day - 2 * np.pi * 3 / 24)
        z = self.orography / 1000.0
        lapse = -(5.5 + 1.5 * noon + 1.0 * warm)  # K km-1
        column = lambda v: np.asarray(v)[:, None, None]  # noqa: E731
        t2m = 283.0 + column(8.0 * warm + 3.0 * noon) + column(lapse) * z
        u10 = column(3.0 - 1.0 * warm) * (1 + 0.5 * z)
        v10 = column(1.0 + 0.0 * warm) * (1 + 0.5 * z)
        return np.stack([t2m, u10, v10], axis=1)

    def weather(self, times: int, step_hours: float) -> np.ndarray:
        """Anomalies at equidistant times: (times, 3, size, size) float32."""
        return self._evolve(self.amplitude, times, step_hours, 2)

    def rainfall(self, times: int, step_hours: float) -> np.ndarray:
        """Rain rates at equidistant times [mm h-1]: (times, size, size) float32."""
        k1 = np.fft.fftfreq(self.torus, 1 / self.torus)
        k = np.hypot(*np.meshgrid(k1, k1, indexing="ij"))
        shape = np.where(k > 0, (k**2 + (2 * self.outer) ** 2) ** (-(3 + 1) / 4), 0.0)
        z = self._evolve((shape / np.sqrt(np.mean(shape**2)))[None, None], times, step_hours, 3)[:, 0]
        return (self.rain * np.maximum(z + ndtri(self.wet), 0.0) ** TAIL).astype(np.float32)

    def rain_quantile(self, share: float | np.ndarray) -> np.ndarray:
        """Quantiles of the rain rate over all cells and times, in closed form [mm h-1]."""
        return self.rain * np.maximum(ndtri(share) + ndtri(self.wet), 0.0) ** TAIL

    def wet_share(self, rate: float) -> float:
        """Share of cells and times with at least this rain rate above 0 [mm h-1], in closed form."""
        return float(ndtr(ndtri(self.wet) - (rate / self.rain) ** (1 / TAIL)))

    def _evolve(self, amplitude: np.ndarray, times: int, step_hours: float, stream: int) -> np.ndarray:
        """Fields of these spectra (variables, sources, torus, torus), every wavenumber an AR(1) process in time."""
        n, (variables, sources) = self.torus, amplitude.shape[:2]
        rng = np.random.default_rng([self.seed, stream])
        k1 = np.fft.fftfreq(n, 1 / n)
        k = np.hypot(*np.meshgrid(k1, k1, indexing="ij"))
        rho = np.exp(-step_hours / self.memory * np.maximum(k / self.outer, 1.0) ** (2 / 3))
        out = np.empty((times, variables, self.size, self.size), np.float32)
        source = np.fft.fft2(rng.standard_normal((sources, n, n)))
        for i in range(times):
            if i:
                source = rho * source + np.sqrt(1 - rho**2) * np.fft.fft2(rng.standard_normal((sources, n, n)))
            field = np.fft.ifft2(np.einsum("aikl,ikl->akl", amplitude, source)).real
            out[i] = field[:, : self.size, : self.size]
        return out

    def to_json(self) -> str:
        """The parameters as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, ds: xr.Dataset) -> "Law | None":
        """The law that an archive was made by, from its attribute; None for any other archive."""
        try:
            return cls(**json.loads(ds.attrs[ATTRIBUTE]))
        except (KeyError, TypeError, ValueError, UserError):  # none, or none that this version knows
            return None


def make(law: Law, times: int = 8192, step_hours: int = 6, start: str = "2015-01-01") -> xr.Dataset:
    """Make an archive of the synthetic climate.

    Args:
        law: the climate.
        times: number of times.
        step_hours: hours between them.
        start: first time.

    Returns:
        t2m, u10, v10, tp (time, latitude, longitude) float32 and orography (latitude, longitude) [m], CF attributes.
    """
    if times < 1 or step_hours < 1:
        raise UserError(f"synth: times={times} and step_hours={step_hours} must be at least 1.")
    time = pd.date_range(start, periods=times, freq=f"{step_hours}h")
    fields = law.weather(times, step_hours)
    for lo in range(0, times, 512):
        fields[lo : lo + 512] += law.mean(time[lo : lo + 512]).astype(np.float32)
    dims = ("time", "latitude", "longitude")
    columns = [*np.moveaxis(fields, 1, 0), law.rainfall(times, step_hours)]
    ds = xr.Dataset(
        {name: (dims, own, attrs) for own, (name, attrs) in zip(columns, VARIABLES.items(), strict=True)},
        coords={
            "time": ("time", time, dict(standard_name="time", axis="T")),
            "latitude": ("latitude", law.latitude, dict(standard_name="latitude", units="degrees_north", axis="Y")),
            "longitude": ("longitude", law.longitude, dict(standard_name="longitude", units="degrees_east", axis="X")),
        },
        attrs={"Conventions": "CF-1.11", "title": "Synthetic weather with a known law", ATTRIBUTE: law.to_json()},
    )
    ds["orography"] = (dims[1:], law.orography.astype(np.float32), dict(units="m", standard_name="surface_altitude"))
    return ds
