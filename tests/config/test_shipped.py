"""The shipped YAML keeps its own rules: described, within reach, composable, pointing at code that is there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from scigen.cli import VERBS, named
from scigen.config import compose, config_dir
from scigen.config.tree import MISSING, options, read_option, read_page

TREE = config_dir()
ROOTS = sorted(path.stem for path in TREE.glob("*.yaml"))
OPTIONS = sorted(f"{path.parent.relative_to(TREE)}={path.stem}" for path in TREE.glob("*/**/*.yaml"))
RECIPES = [option for option in OPTIONS if option.startswith("recipe")]
EXAMPLES = [example for verb in ROOTS for example in read_page(TREE, verb).examples]


def test_every_verb_has_a_root_and_a_workflow() -> None:
    assert sorted(VERBS) == ROOTS
    for verb in VERBS:
        assert importlib.util.find_spec(f"scigen.workflows.{verb}") is not None


@pytest.mark.parametrize("verb", ROOTS)
def test_a_root_describes_itself_and_every_key(verb: str) -> None:
    page = read_page(TREE, verb)
    assert page.description and page.examples
    assert [key.name for key in page.keys if not key.comment and "." not in key.name] == []
    for choice in page.choices:
        assert choice.options, f"no options for {choice.group}"
        assert choice.default in (MISSING, "null", *choice.options)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_composes_as_a_shell_reads_it(example: str) -> None:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", example)
    assert not set("[]{}*?()<>|&;!$#~") & set(bare), "quote what the shell would take for itself"
    _, verb, *words = shlex.split(example)
    compose(verb, named(verb, words))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_short_described_and_points_at_code(option: str) -> None:
    group, _, name = option.partition("=")
    text = (TREE / group / f"{name}.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    assert options(TREE, group)[name], "the first line is a comment that describes the option"
    for target in re.findall(r"_target_: *(\S+)", text):
        assert callable(get_object(target)), target


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_follows_from_its_field_and_method(recipe: str) -> None:
    group, _, name = recipe.partition("=")
    field, _, method = name.partition("_")
    config = compose("fit", [f"domain={field}", *([f"method={method}"] if method else [])])
    plain = OmegaConf.to_container(config, resolve=True)
    own = OmegaConf.load(TREE / group / f"{name}.yaml")
    own.pop("defaults", None)
    merged = OmegaConf.merge(config, own)
    assert OmegaConf.to_container(merged, resolve=True) == plain


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in RECIPES])
def test_an_option_is_offered_by_a_verb_and_composes(option: str) -> None:
    group, _, name = option.partition("=")
    verbs = [verb for verb in ROOTS if group in [choice.group for choice in read_page(TREE, verb).choices]]
    assert verbs, f"no verb offers {group}"
    for verb in verbs:
        config = compose(verb, [option, *_fillings(verb, group, name)])
        assert not OmegaConf.missing_keys(config)


def _fillings(verb: str, group: str, name: str) -> list[str]:
    """Words for whatever else must be given."""
    page = read_page(TREE, verb)
    open_choices = [choice for choice in page.choices if choice.default == MISSING and choice.group != group]
    keys = [*page.keys, *read_option(TREE, group, name)]
    for choice in open_choices:
        keys += read_option(TREE, choice.group, next(iter(choice.options)))
    return [f"{choice.group}={next(iter(choice.options))}" for choice in open_choices] + [
        f"{key.name}=x" for key in keys if key.default == MISSING
    ]


def test_the_tree_lies_in_the_checkout_or_the_wheel() -> None:
    assert TREE.is_dir() and (TREE / "fit.yaml").is_file()
    assert isinstance(TREE, Path) and TREE.is_absolute()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("[t2m,tp]", ["t2m", "tp"]),
        (
            "{t850: temperature@850, tp: total_precipitation_6hr}",
            {"t850": "temperature@850", "tp": "total_precipitation_6hr"},
        ),
    ],
)
def test_variables_are_a_list_or_a_map_and_paths_may_name_groups(words: str, expected: object) -> None:
    data = compose("fit", ["domain=weather", f"data.variables={words}", "data.coarse=a/hrrr.nc::input"]).data
    assert OmegaConf.to_container(data.variables) == expected and data.coarse == "a/hrrr.nc::input"
