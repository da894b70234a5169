"""The YAML tree tells what it offers, and own folders come before the shipped one."""

from pathlib import Path

import pytest

from scigen.config.tree import MISSING, config_dir, config_tree, copy_configs, options, read_option, read_page
from scigen.errors import UserError


def test_the_header_is_description_and_examples(tree: Path) -> None:
    page = read_page(tree, "fit")
    assert page.description == "Train a teacher and distil it. Repeating the command goes on."
    assert page.examples == ["scigen fit domain=weather", "scigen fit domain=weather 'data.variables=[t2m]'"]


def test_choices_come_with_default_and_described_options(tree: Path) -> None:
    choices = {choice.group: choice for choice in read_page(tree, "fit").choices}
    assert list(choices) == ["domain", "method@teaching", "method", "experiment"]
    assert choices["domain"].default == MISSING
    assert choices["experiment"].default == "null"
    assert choices["domain"].options == {"mri": "Undersampled k-space.", "weather": "Downscaling of weather."}
    assert choices["method@teaching"].options == choices["method"].options == options(tree, "method")


def test_keys_come_with_default_and_comment_and_sections_are_spread(tree: Path) -> None:
    keys = [(key.name, key.default, key.comment) for key in read_page(tree, "fit").keys]
    assert keys == [
        ("run", "null", "run folder"),
        ("members", "19", "members per sample"),
        ("samples", "null", "archives by name"),
        ("trainer.precision", "32-true", "bits"),
        ("trainer.limits.steps", "null", "for a quick look"),
        ("trainer.limits.members", "5", ""),
    ]


def test_keys_of_an_option_stand_below_its_group_its_package_or_nothing(tree: Path) -> None:
    assert [key.name for key in read_option(tree, "method", "denoising")] == ["method.steps"]
    assert [key.name for key in read_option(tree, "method@teaching", "denoising")] == ["teaching.steps"]
    assert [key.name for key in read_option(tree, "domain", "weather")] == ["data.path", "data.factor"]


def test_the_packaged_copy_comes_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "site" / "scigen" / "config" / "tree.py"
    (module.parents[1] / "configs").mkdir(parents=True)
    monkeypatch.setattr("scigen.config.tree.__file__", str(module))
    assert config_dir() == module.parents[1] / "configs"
    (module.parents[1] / "configs").rmdir()
    assert config_dir() == module.parents[2] / "configs"


def test_own_files_replace_shipped_ones_and_add_to_them(tree: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "method" / "mine.yaml").write_text("# Mine.\n")
    (own / "method" / "denoising.yaml").write_text("# Replaced.\n")
    with config_tree([own]) as merged:
        assert options(merged, "method") == {"denoising": "Replaced.", "mine": "Mine.", "regression": "One step."}
    assert not merged.exists()
    assert options(tree, "method")["denoising"] == "The teacher."


@pytest.mark.parametrize("name, word", [("absent", "no such folder"), ("empty", "holds no YAML")])
def test_a_folder_without_options_is_refused(tree: Path, tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=word), config_tree([tmp_path / name]):
        pass


def test_a_copy_of_the_tree_is_whole_and_overwrites_nothing(tree: Path, tmp_path: Path) -> None:
    copy = copy_configs(tmp_path / "copy")
    files = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*.yaml")}
    assert {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files
    with pytest.raises(UserError, match="there already"):
        copy_configs(copy)


def test_broken_yaml_is_named_with_its_line(tree: Path) -> None:
    (tree / "fit.yaml").write_text("# Broken.\na: 1\nb: [1\nc: 2\n")
    with pytest.raises(UserError, match=r"fit\.yaml, line \d+ is not readable YAML"):
        read_page(tree, "fit")
