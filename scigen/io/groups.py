"""Groups of netCDF files and zarr stores: which there are, and one of them with the coordinates of the root."""

from pathlib import Path

import netCDF4
import xarray as xr
import zarr

from scigen.errors import UserError
from scigen.io.coordinates import NAMES

MARK = "::"
"""Between the path of an archive and the name of a group in it: store.zarr::forecast/surface."""

PLACES = {"Y": ("latitude", "lat", "xlat", "nav_lat"), "X": ("longitude", "lon", "xlong", "xlon", "nav_lon")}
"""What coordinates of places are called, in lower case, whether they are on axes or on cells."""


class InGroups(UserError):
    """An archive holds variables in groups only."""


def split_group(path: str) -> tuple[str, str | None]:
    """Path of an archive and name of a group: "a.nc::in/side" is ("a.nc", "in/side"); None without a name."""
    archive, mark, group = path.partition(MARK)
    return archive, (group.strip("/") or None) if mark else None


def group_names(path: Path) -> list[str]:
    """Names of the groups that hold variables, in order, such as "input" or "surface/wind"."""
    if path.is_dir():
        root = zarr.open_group(path, mode="r")
        held = {
            name.rpartition("/")[0] for name, member in root.members(max_depth=None) if isinstance(member, zarr.Array)
        }
        return sorted(held - {""})
    with netCDF4.Dataset(path) as file:
        names, left = [], [("", file)]
        while left:
            at, group = left.pop(0)
            names += [at] if at and group.variables else []
            left += [(f"{at}/{k}".strip("/"), inner) for k, inner in group.groups.items()]
    return names


def with_root(ds: xr.Dataset, root: xr.Dataset) -> xr.Dataset:
    """The dataset of a group with times and places that its file keeps in the root, where it lacks them.

    A leading dimension without coordinate that is as long as the root's times is taken for time.
    """
    if "time" in root.variables and "time" not in ds.dims and root["time"].ndim == 1:
        leading = {str(v.dims[0]) for v in ds.data_vars.values() if v.ndim >= 3}
        own = [d for d in leading if ds.sizes[d] == root.sizes["time"] and d not in ds.coords]
        ds = ds.rename({own[0]: "time"}) if len(own) == 1 else ds
    known = (*NAMES["T"], *PLACES["Y"], *PLACES["X"], *map(str, root.coords))
    fitting = {
        str(name): root[name].reset_coords(drop=True).variable
        for name in root.variables
        if (str(name).lower() in known or name in root.coords)
        and name not in ds.variables
        and all(ds.sizes.get(d) == n for d, n in root[name].sizes.items())
    }
    return ds.assign_coords(fitting)


def refuse_rootless(path: Path, names: list[str]) -> UserError:
    """What to say of an archive without variables in its root."""
    if not names:
        return UserError(f"{path} holds no variable: give an archive that does.")
    few = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return InGroups(
        f"{path} holds no variable in its root group, but in {len(names)} other{'s' * (len(names) > 1)}: {few}. Name "
        f"one behind two colons, {path}{MARK}{names[0]}."
    )
