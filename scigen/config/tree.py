"""The YAML tree: where it lies and what it offers, read from its own comments without Hydra."""

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scigen.errors import UserError

MISSING = "???"
"""What stands in the YAML for a choice or a value that must be given."""

DEPTHS = ("*.yaml", "*/*.yaml", "*/*/*.yaml")
KEY = re.compile(
    r"^(?P<indent> *)(?P<name>[A-Za-z_]\w*):(?: +(?P<value>[^#\s][^#]*?))? *(?:(?<=\s)#+ *(?P<comment>.*))?$"
)


def config_dir() -> Path:
    """Folder of the shipped YAML: inside the wheel, or the checkout's top-level configs/."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def copy_configs(destination: str | Path) -> Path:
    """Copy the shipped YAML to a new folder, to be edited there and given back as `--config-dir`.

    Raises:
        UserError: the folder exists and is not empty, or cannot be written.
    """
    folder = Path(destination)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already; name a new folder for the copy of the configs")
    try:
        _overlay(config_dir(), folder)
    except OSError as error:
        raise UserError(f"cannot write the configs to {folder}: {error.strerror}; name another folder") from error
    return folder


@contextmanager
def config_tree(config_dirs: Sequence[str | Path] = ()) -> Iterator[Path]:
    """The shipped YAML with own folders laid over it: a file of the same name replaces the shipped one.

    Raises:
        UserError: a folder is not there, or holds no YAML.
    """
    if not config_dirs:
        yield config_dir()
        return
    with tempfile.TemporaryDirectory(prefix="scigen-configs-") as folder:
        _overlay(config_dir(), Path(folder))
        for source in map(Path, config_dirs):
            if not source.is_dir():
                raise UserError(f"--config-dir {source}: no such folder")
            if not _overlay(source, Path(folder)):
                raise UserError(f"--config-dir {source} holds no YAML; an option lies in it as GROUP/NAME.yaml")
        yield Path(folder)


def _overlay(source: Path, destination: Path) -> int:
    files = [path for depth in DEPTHS for path in source.glob(depth)]
    for path in files:
        target = destination / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return len(files)


@dataclass(frozen=True)
class Key:
    """One plain key of a YAML file: its dotted name, its default as written, its comment."""

    name: str
    default: str
    comment: str


@dataclass(frozen=True)
class Choice:
    """One group: its default option (`MISSING` where one must be given) and a line of description for each option.

    `group` is what stands before the equals sign: a folder of options, or `folder@package` for a second use of it.
    """

    group: str
    default: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """What the root YAML of a verb tells: description, examples, choices, keys."""

    description: str = ""
    examples: Sequence[str] = ()
    choices: Sequence[Choice] = ()
    keys: Sequence[Key] = field(default_factory=tuple)


def options(tree: Path, group: str) -> dict[str, str]:
    """Options of a group, with the first comment line of each; empty where there is no such group."""
    files = sorted((tree / group.partition("@")[0]).glob("*.yaml"))
    return {file.stem: next(iter(_header(file)), "").strip() for file in files}


def read_page(tree: Path, verb: str) -> Page:
    """What `<verb>.yaml` tells of itself; an empty page where there is no such file.

    Raises:
        UserError: the file is not readable as YAML.
    """
    path = tree / f"{verb}.yaml"
    if not path.is_file():
        return Page()
    header = _header(path)
    examples = [line.strip() for line in header if line.startswith("  scigen ")]
    prose = [line.strip() for line in header if line.strip() and not line.startswith("  scigen ")]
    choices = []
    for entry in _defaults(path):
        name, default = next(iter(entry.items()))
        group = re.sub(r"^(optional |override )+", "", str(name)).strip("/ ")
        if "${" in str(default):  # follows from other choices
            continue
        choices.append(Choice(group, "null" if default is None else str(default), options(tree, group)))
    return Page(" ".join(prose), examples, choices, read_keys(path))


def read_option(tree: Path, group: str, option: str) -> list[Key]:
    """The keys that one option brings, under the name of its group (of its package for `folder@package`)."""
    folder, _, package = group.partition("@")
    return read_keys(tree / folder / f"{option}.yaml", package or folder.replace("/", "."))


def read_keys(path: Path, package: str = "") -> list[Key]:
    """The plain keys of a YAML file with the comment behind each; nested keys are dotted, sections are left out.

    Args:
        path: the file.
        package: dotted name below which its keys stand, unless the file itself says `@package _global_`.
    """
    text = path.read_text(encoding="utf-8")
    parents = [] if not package or "@package _global_" in text else [(-1, package)]
    keys: list[Key] = []
    in_defaults = False
    for line in text.splitlines():
        match = KEY.match(line)
        if match is None:
            continue
        indent, name = len(match["indent"]), match["name"]
        in_defaults = name == "defaults" if indent == 0 else in_defaults
        if in_defaults:
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        dotted = ".".join([*(parent for _, parent in parents), name])
        parents.append((indent, name))
        if keys and dotted.startswith(f"{keys[-1].name}."):
            keys.pop()  # what looked like a key without a value is a section
        if not name.startswith("_"):
            keys.extend(_spread(Key(dotted, (match["value"] or "").strip(), (match["comment"] or "").strip())))
    return keys


def _spread(key: Key) -> list[Key]:
    """A key whose default is a mapping in one line, as the keys of that mapping; any other key as it is."""
    try:
        inner = yaml.safe_load(key.default) if key.default.startswith("{") else None
    except yaml.YAMLError:
        inner = None
    if not isinstance(inner, dict) or not inner:
        return [key]
    spread = [Key(f"{key.name}.{name}", json.dumps(value, default=str).strip('"'), "") for name, value in inner.items()]
    return [dataclasses.replace(spread[0], comment=key.comment), *spread[1:]]


def yaml_message(error: yaml.YAMLError, path: Path | None = None) -> str:
    """One line for YAML that cannot be read: the file, the line, what is wrong."""
    mark = getattr(error, "problem_mark", None)
    place = path or (mark.name if mark else "a config")
    line = f", line {mark.line + 1}" if mark else ""
    return f"{place}{line} is not readable YAML: {getattr(error, 'problem', None) or error}"


def _header(path: Path) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line[1:].removeprefix(" "))
    return lines


def _defaults(path: Path) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(yaml_message(error, path)) from error
    entries = (content.get("defaults") or []) if isinstance(content, dict) else []
    return [entry for entry in entries if isinstance(entry, dict)]
