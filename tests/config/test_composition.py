"""Words become a config as Hydra's grammar says, and each mistake becomes one line with its remedy."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scigen.config import compose
from scigen.errors import UserError

pytestmark = pytest.mark.usefixtures("tree")


def test_options_and_values_are_set() -> None:
    config = compose("fit", ["domain=weather", "method=denoising", "data.factor=4", "members=3"])
    assert OmegaConf.to_container(config) == {
        "run": None,
        "members": 3,
        "samples": None,
        "trainer": {"precision": "32-true", "limits": {"steps": None, "members": 5}},
        "domain": {"_target_": "collections.Counter"},
        "data": {"path": None, "factor": 4},
        "teaching": {"steps": 10},
        "method": {"steps": 10},
    }


def test_the_second_use_of_a_group_is_chosen_by_its_package() -> None:
    config = compose("fit", ["domain=weather", "method@teaching=regression", "teaching.steps=7"])
    assert (config.teaching.steps, config.method.steps, config.teaching.sigma) == (7, 20, 19)


def test_an_experiment_may_make_the_choice_that_must_be_made() -> None:
    config = compose("fit", ["experiment=quick"])
    assert (config.members, config.data.factor) == (5, 8)


def test_keys_can_be_added_and_deleted_on_purpose() -> None:
    config = compose("fit", ["domain=weather", "+extra.key=1", "++members=2", "~trainer"])
    assert config.extra.key == 1 and config.members == 2 and "trainer" not in config


@pytest.mark.parametrize(
    "text",
    ["Zürich.nc", "a=b.nc", "run(1).nc", "it's (1).nc", "back\\slash (1)\\", "x{1}.nc", "a b.nc", "era5_*.nc", "a:b#c"],
)
def test_any_plain_path_is_taken_as_it_is(text: str) -> None:
    assert compose("fit", ["domain=weather", f"data.path={text}"]).data.path == text


def test_home_is_expanded_where_the_shell_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert compose("fit", ["domain=weather", "data.path=~/x.nc"]).data.path == "/home/someone/x.nc"


def test_own_options_come_first(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "method" / "regression.yaml").write_text("steps: 99\n")
    assert compose("fit", ["domain=weather"]).method.steps == 20
    assert compose("fit", ["domain=weather"], [own]).method.steps == 99


MISTAKES = {
    # what is typed: what the line must say
    "": ["which domain?", "scigen fit domain=mri", "mri, weather"],
    "dmain=weather": ["'dmain'", "did you mean domain?"],
    "domain=wether": ["domain=wether", "did you mean domain=weather?", "mri, weather"],
    "domain=weather data.pth=x.nc": ["'data.pth'", "did you mean data.path?", "--help"],
    "data.pth=x.nc": ["'data.pth'", "did you mean data.path?"],
    "domain=weather path=x.nc": ["'path'", "did you mean data.path?"],
    "domain=mri data.path=x.nc": ["'data.path'"],
    "domain=weather method.step=3": ["'method.step'", "did you mean method.steps?"],
    "domain=weather trainer.limits.stps=3": ["did you mean trainer.limits.steps?"],
    "domain=weather zzz.qqq=3": ["'zzz.qqq'", "none has a similar name", "--help"],
    "domain=weather data=x.nc": ["data is a section", "data.path, data.factor"],
    "domain=weather network=unet": ["no choice 'network'", "domain, method@teaching, method"],
    "domain=weather method=null": ["no method=null", "denoising, regression"],
    "domain=weather experiment=quik": ["did you mean experiment=quick?"],
    "domain=weather samples.a=x.zarr": ["'samples={a: x.zarr}'"],
    "domain=weather samples={a:": ["'samples={a:'", "quotes"],
    "domain=weather data.path=[a,b": ["quotes"],
    "domain=weather data.path=a,b": ["several values", "'data.path=[…]'"],
    "domain=weather members=1 members=2": ["members is given twice", "members=1 and members=2", "quotes"],
    "domain=weather members": ["'members' is not of the form key=value"],
    "domain=weather =3": ["'=3'", "key=value"],
    "domain=weather run=${nothing}": ["run", "'nothing' not found"],
    "domain=weather ~nothing": ["'nothing'"],
    "domain=weather hydra.run.dir=x": ["Hydra", "run=…"],
    "weather": ["domain=weather"],
    "regression": ["method=regression"],
}


@pytest.mark.parametrize("words, said", MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_its_remedy(words: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose("fit", words.split())
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message
    assert "+" not in message  # Hydra's advice to add a key is none for a typing mistake


def test_values_that_must_be_given_are_named_with_what_they_are() -> None:
    with pytest.raises(UserError, match=r"needs bundle=… \(a \.safetensors file\) and output=… \(\.zarr or \.nc\)"):
        compose("sample")
    with pytest.raises(UserError, match=r"write bundle=in\.nc or output=in\.nc"):
        compose("sample", ["in.nc"])


def test_broken_yaml_of_an_option_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "method" / "mine.yaml").write_text("steps: [1\nlr: 2\n")
    with pytest.raises(UserError, match=r"mine\.yaml, line \d is not readable YAML"):
        compose("fit", ["domain=weather", "method=mine"], [own])


def test_composing_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    compose("fit", ["domain=weather"])
    with pytest.raises(UserError):
        compose("fit", ["domain=nowhere"])
    assert not GlobalHydra.instance().is_initialized()
