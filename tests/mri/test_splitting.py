"""No anatomy in two parts; of one anatomy, no slice near one of another part, in whatever contrast."""

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri.splitting import parts_of

SHARES = (0.7, 0.1, 0.2)


def slices(levels: dict[str, list[int]], patient: dict[str, str] | None = None, **attrs: object) -> xr.Dataset:
    """Volumes with the numbers of their slices."""
    keys = [f"{v}/{z}" for v, own in levels.items() for z in own]
    volume = np.array([k.rsplit("/", 1)[0] for k in keys])
    ds = xr.Dataset(coords={"slice": keys, "subject": ("slice", volume)}, attrs=attrs)
    return ds if patient is None else ds.assign_coords(patient=("slice", [patient[v] for v in volume.tolist()]))


def distances(ds: xr.Dataset, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of all pairs of slices of one patient, in whatever volume, how far apart they are."""
    z = np.array([int(k.rsplit("/", 1)[1]) for k in ds["slice"].values])
    who = ds["patient" if "patient" in ds.coords else "subject"].values
    return np.abs(z[one][:, None] - z[other])[who[one][:, None] == who[other]]


def test_subjects_are_never_in_two_parts():
    ds = slices({f"s{i}": list(range(4)) for i in range(10)})
    found, rule = parts_of(ds, SHARES)
    assert sorted(np.concatenate(list(found.values()))) == list(range(40))
    names = [set(ds["subject"].values[i]) for i in found.values()]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert rule == "by subject, of 10"
    with pytest.raises(UserError, match="leaves nothing for validation"):
        parts_of(ds, (0.98, 0.01, 0.01))


def test_contrasts_of_a_patient_stay_together():
    volumes = {f"p{i}-{c}": list(range(3)) for c in ("T1", "T2", "FLAIR") for i in range(6)}
    ds = slices(volumes, {v: v[:2] for v in volumes})
    found, rule = parts_of(ds, (1, 1, 1))
    for name, index in found.items():
        elsewhere = np.concatenate([i for n, i in found.items() if n != name])
        assert not set(ds["patient"].values[index]) & set(ds["patient"].values[elsewhere])
        assert len(index) == 2 * 3 * 3
    assert rule == "by subject, of 6"
    unknown, _ = parts_of(ds.drop_vars("patient"), (1, 1, 1))  # by volume alone, anatomies leak
    assert set(ds["patient"].values[unknown["train"]]) & set(ds["patient"].values[unknown["test"]])


@pytest.mark.parametrize("gap", [0, 1, 5])
def test_of_one_anatomy_no_slice_of_another_part_is_within_the_gap(gap, caplog):
    holes = [z for z in range(3, 90) if z % 7]  # some slices were left out
    volumes = {"a-T1": holes, "a-T2": list(range(90)), "a-FLAIR": list(range(20, 70))}
    ds = slices(volumes, dict.fromkeys(volumes, "a"))
    found, rule = parts_of(ds, SHARES, gap)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert distances(ds, found[one], found[other]).min() > gap
    z = np.array([int(k.rsplit("/", 1)[1]) for k in ds["slice"].values])
    assert (
        z[found["train"]].max() < z[found["validation"]].min() <= z[found["validation"]].max() < z[found["test"]].min()
    )
    for index in found.values():  # nothing else is lost, of any contrast
        assert len(index) == ((z >= z[index].min()) & (z <= z[index].max())).sum()
    assert f"{gap} slices left out" in rule and rule in caplog.text
    lost = len(z) - sum(map(len, found.values()))
    assert lost == 0 if gap == 0 else lost > 0


def test_two_anatomies_are_cut_each():
    ds = slices({"a": list(range(60)), "b": list(range(100, 140))})
    found, rule = parts_of(ds, SHARES, 2)
    for index in found.values():
        assert set(ds["subject"].values[index]) == {"a", "b"}
    assert distances(ds, found["train"], found["test"]).min() > 2
    assert distances(ds, found["train"], found["validation"]).min() > 2
    assert rule.startswith("2 subjects are too few")


@pytest.mark.parametrize(
    ("attrs", "gap"),
    [({}, 2), ({"voxel_size": [1.0, 2, 2]}, 8), ({"voxel_size": [3, 1, 1]}, 3), ({"voxel_size": {"a": [4, 1, 1]}}, 2)],
)
def test_the_gap_is_a_distance_where_voxels_have_a_size(attrs, gap):
    ds = slices({"a": list(range(100))}, **attrs)
    found, _ = parts_of(ds, SHARES)
    assert distances(ds, found["train"], found["validation"]).min() == gap + 1
    assert distances(ds, found["validation"], found["test"]).min() == gap + 1


def test_names_without_numbers_count_by_place():
    ds = slices({"a": list(range(30))}).assign_coords(slice=[f"a/{chr(97 + i % 26)}{i // 26}" for i in range(30)])
    found, _ = parts_of(ds, SHARES, 1)
    assert found["train"].tolist() == list(range(20))
    assert found["validation"].tolist() == [21, 22, 23]
    assert found["test"].tolist() == list(range(25, 30))


def test_gaps_that_leave_nothing_are_refused():
    ds = slices({"a": list(range(20))})
    with pytest.raises(UserError, match=r"leaves nothing for test of 20 slices with gaps of 9 \(data.gap\)"):
        parts_of(ds, SHARES, 9)
    with pytest.raises(UserError, match=r"data\.gap=-1"):
        parts_of(ds, SHARES, -1)
    with pytest.raises(UserError, match="leaves nothing for validation"):
        parts_of(ds, (0.99, 0.005, 0.005), 0)
