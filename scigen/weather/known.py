"""The variables that scigen knows by name: their units, CF names, and what files call them."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A variable that scigen knows by name.

    Attributes:
        units: that it has everywhere in scigen.
        standard_name: of the CF conventions.
        long_name: what a person calls it.
        synonyms: what files call it, in lower case.
        rate: whether files may hold sums over time of it (see `rates`).
        water: whether it is water, so that 1 kg m-2 are 1 mm.
        least: values below zero down to this are rounding and become 0, lower ones are refused [units]; None if
            negative values are as good as others.
    """

    units: str
    standard_name: str
    long_name: str
    synonyms: tuple[str, ...] = ()
    rate: bool = False
    water: bool = False
    least: float | None = None

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes."""
        return dict(units=self.units, standard_name=self.standard_name, long_name=self.long_name)


VARIABLES = {
    "t2m": Variable(
        "K", "air_temperature", "2 metre temperature",
        ("2t", "var_2t", "2m_temperature", "temperature_2m", "tas", "t2", "tmp_2m"),
    ),
    "d2m": Variable(
        "K", "dew_point_temperature", "2 metre dew point temperature",
        ("2d", "var_2d", "2m_dewpoint_temperature", "dewpoint_temperature_2m", "td2m", "dpt_2m"),
    ),
    "u10": Variable(
        "m s-1", "eastward_wind", "10 metre eastward wind",
        ("10u", "u10m", "var_10u", "10m_u_component_of_wind", "eastward_wind_10m", "uas", "u_10m", "ugrd_10m"),
    ),
    "v10": Variable(
        "m s-1", "northward_wind", "10 metre northward wind",
        ("10v", "v10m", "var_10v", "10m_v_component_of_wind", "northward_wind_10m", "vas", "v_10m", "vgrd_10m"),
    ),
    "fg10": Variable(
        "m s-1", "wind_speed_of_gust", "10 metre wind gust",
        ("10fg", "i10fg", "10m_wind_gust_since_previous_post_processing", "instantaneous_10m_wind_gust", "wsgsmax"),
        least=-0.1,
    ),
    "tp": Variable(
        "mm h-1", "lwe_precipitation_rate", "precipitation rate",
        (
            "total_precipitation", "total_precipitation_1hr", "total_precipitation_6hr", "total_precipitation_24hr",
            "tprate", "prate", "mtpr", "mean_total_precipitation_rate", "pr", "precipitation_rate", "rain_rate",
            "precipitation", "precip", "precipitation_amount_1hr", "tot_prec", "apcp", "rainfall",
        ),
        rate=True, water=True, least=-0.05,
    ),
    "ssrd": Variable(
        "W m-2", "surface_downwelling_shortwave_flux_in_air", "downward solar radiation at the surface",
        ("surface_solar_radiation_downwards", "rsds", "dswrf", "swdown", "sdswrf"),
        rate=True, least=-1.0,
    ),
    "r2": Variable(
        "%", "relative_humidity", "2 metre relative humidity",
        ("2r", "r2m", "rh2m", "rh_2m", "2m_relative_humidity", "relative_humidity_2m", "hurs"), least=-0.5,
    ),
    "q2": Variable(
        "kg kg-1", "specific_humidity", "2 metre specific humidity",
        ("2sh", "sh2", "q2m", "2q", "2m_specific_humidity", "specific_humidity_2m", "huss"), least=-1e-4,
    ),
    "sp": Variable(
        "Pa", "surface_air_pressure", "surface pressure", ("surface_pressure", "ps", "psfc", "pres_sfc", "pressfc")
    ),
    "msl": Variable(
        "Pa", "air_pressure_at_mean_sea_level", "mean sea level pressure",
        ("mean_sea_level_pressure", "mslp", "psl", "prmsl", "slp", "mslma", "pressure_reduced_to_msl"),
    ),
    "tcc": Variable(
        "1", "cloud_area_fraction", "total cloud cover", ("total_cloud_cover", "clt", "tcdc", "cldtot"), least=-0.01
    ),
    "refc": Variable(
        "dBZ", "equivalent_reflectivity_factor", "composite radar reflectivity",
        ("composite_reflectivity", "maximum_radar_reflectivity", "refd_max", "max_dbz", "dbz_cmax"),
    ),
}  # fmt: skip
"""Known variables by canonical name. Others are taken by their exact name, in the units that the archive gives."""

ON_LEVELS = {
    "t": Variable("K", "air_temperature", "temperature", ("temperature", "ta", "tmp", "air_temperature")),
    "u": Variable("m s-1", "eastward_wind", "eastward wind", ("u_component_of_wind", "ua", "ugrd", "eastward_wind")),
    "v": Variable("m s-1", "northward_wind", "northward wind", ("v_component_of_wind", "va", "vgrd", "northward_wind")),
    "w": Variable(
        "Pa s-1", "lagrangian_tendency_of_air_pressure", "vertical velocity", ("vertical_velocity", "wap", "vvel")
    ),
    "z": Variable("m2 s-2", "geopotential", "geopotential", ("geopotential", "phi")),
    "gh": Variable("m", "geopotential_height", "geopotential height", ("geopotential_height", "zg", "hgt")),
    "q": Variable("kg kg-1", "specific_humidity", "specific humidity", ("specific_humidity", "hus", "spfh")),
    "r": Variable("%", "relative_humidity", "relative humidity", ("relative_humidity", "hur", "rh")),
}
"""Variables on levels of pressure: t850 is `t` at 850 hPa."""


def on_level(name: str) -> tuple[str, float] | None:
    """What a name such as t850 means: ("t", 850.0 hPa); None for other names, u10 and v10 among them."""
    found = re.fullmatch(r"([a-z]+)(\d{2,4})", name)
    if found is None or found[1] not in ON_LEVELS or name in VARIABLES or not 50 <= int(found[2]) <= 1100:
        return None
    return found[1], float(found[2])


def known(name: str) -> Variable | None:
    """The known variable of a name, on its level if the name has one; None for others."""
    level = on_level(name)
    if level is None:
        return VARIABLES.get(name)
    base = ON_LEVELS[level[0]]
    digits = f"{level[1]:g}"
    spellings = (level[0], *base.synonyms)
    synonyms = tuple(f"{s}{gap}{digits}{end}" for s in spellings for gap in ("", "_") for end in ("", "hpa"))
    return Variable(base.units, base.standard_name, f"{base.long_name} at {digits} hPa", synonyms)
