"""Composition: the words of a command line and the YAML tree become one config, or one clear line of what is wrong.

Hydra composes, and is imported on use, so that help answers at once. Its own messages are for those who know it; here
the words are checked first, against the tree and against the config without them.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scigen.config.tree import MISSING, Page, config_tree, options, read_page, yaml_message
from scigen.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def compose(verb: str, overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> "DictConfig":
    """The config of one verb: its root YAML, the options chosen and the values set by `overrides`.

    Args:
        verb: name of the root YAML, such as "fit".
        overrides: words `group=option` and `key=value` in Hydra's grammar; a plain value that the grammar cannot read
            (a path with é, = or parentheses) is taken as text.
        config_dirs: folders with own options (`GROUP/NAME.yaml`), which come before the shipped ones.

    Raises:
        UserError: unreadable word, unknown key, unknown option, a choice or value that must be given and is not.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with config_tree(config_dirs) as tree:
        page = read_page(tree, verb)
        words = [_parse(word, verb, page) for word in _with_suite(overrides, page)]
        try:
            _offer(tree, verb)
            _check(words, tree, verb, page)
            config = _hydra(tree, verb, words)
            _check_complete(config, verb, page)
            OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UserError(f"scigen {verb}: {_first_line(error, verb, page)}") from error
        except yaml.YAMLError as error:
            raise UserError(yaml_message(error)) from error
    return config


def _hydra(tree: Path, verb: str, words: Iterable["Override"], extra: Iterable[str] = ()) -> "DictConfig":
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    lines = [*(word.input_line or "" for word in words), *extra]
    with initialize_config_dir(config_dir=str(tree.resolve()), version_base="1.3"):
        return hydra_compose(verb, lines)


def _offer(tree: Path, verb: str) -> None:
    """Resolve `${options:GROUP}` in a root YAML: every option of the group as it is written, by name."""
    from omegaconf import OmegaConf

    root = tree / f"{verb}.yaml"
    groups = re.findall(r"\$\{options:(\w+)\}", root.read_text(encoding="utf-8")) if root.is_file() else []
    files = {group: sorted((tree / group).glob("*.yaml")) for group in groups}
    found = {g: {p.stem: OmegaConf.to_container(OmegaConf.load(p)) for p in paths} for g, paths in files.items()}
    OmegaConf.register_new_resolver("options", lambda group: found[group], replace=True)


def _with_suite(words: Sequence[str], page: Page) -> list[str]:
    """The words, the first one named where it stands alone and the verb has suites: benchmark exact."""
    alone = bool(words) and re.fullmatch(r"\w+", words[0]) and any(key.name == "suite" for key in page.keys)
    return [f"suite={words[0]}", *words[1:]] if alone else list(words)


def _parse(word: str, verb: str, page: Page) -> "Override":
    """One word read by Hydra's grammar; a plain value outside it becomes quoted text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals and not word.startswith("~"):
        raise UserError(_positional(word, verb, page))
    if not re.fullmatch(r"[~+]*[\w@/.:-]+", key):
        raise UserError(f"cannot read {word!r}: write key=value, without spaces around the equals sign")
    parser = OverridesParser.create()
    try:
        override = parser.parse_override(word)
    except HydraException as error:
        if not equals or value[:1] in tuple("[{\"'") or "${" in value:
            raise UserError(
                f"cannot read {word!r}: a bracket or quote does not close, or the shell has split the word; put the "
                f"whole of it in quotes, as in '{key}=[1, 2]' or '{key}={{a: 1, b: 2}}'"
            ) from error
        text = str(Path(value).expanduser()) if value.startswith("~") else value
        escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
        override = parser.parse_override(f"{key}='{escaped}'")
    if override.is_sweep_override():
        raise UserError(
            f"{word!r} gives several values, and scigen runs one config at a time: repeat the command for each value, "
            f"write a list as '{key}=[…]', or text with a comma as \"{key}='…'\""
        )
    return override


def _positional(word: str, verb: str, page: Page) -> str:
    """What to say to a word without an equals sign."""
    for choice in sorted(page.choices, key=lambda choice: "@" in choice.group):
        if word in choice.options:
            return f"{word!r} needs the name of its group: write {choice.group}={word}"
    names = [key.name for key in page.keys if key.default == MISSING] or [key.name for key in page.keys]
    forms = " or ".join(f"{name}={word}" for name in names[:3]) or f"key={word}"
    return f"{word!r} is not of the form key=value: write {forms} (scigen {verb} --help lists the keys)"


def _check(words: Sequence["Override"], tree: Path, verb: str, page: Page) -> None:
    """Raise a UserError for the first word that names no option or no key, or that says again what one before said."""
    from omegaconf import OmegaConf

    groups = [choice.group for choice in page.choices]
    chosen = [word for word in words if _name(word) in groups or options(tree, word.key_or_group)]
    for earlier, word in itertools.combinations(words, 2):
        if _name(earlier) == _name(word):
            raise UserError(
                f"{_name(word)} is given twice ({earlier.input_line} and {word.input_line}): give it once, and put a "
                f"value with braces in quotes, or the shell takes it apart: '{_name(word)}={{a: 1, b: 2}}'"
            )
    for word in chosen:
        _check_option(word, options(tree, word.key_or_group), groups, verb)
    named = {_name(word) for word in chosen}
    still_open = [c for c in page.choices if c.default == MISSING and c.group not in named]
    known: dict[str, Any] = {}
    for filling in itertools.product(*([f"{c.group}={option}" for option in c.options] for c in still_open)):
        base = _hydra(tree, verb, [word for word in chosen if not word.is_delete()], filling)
        known |= dict(_flat(OmegaConf.to_container(base, resolve=False)))
    for word in words:
        if word not in chosen and not word.is_add() and not word.is_force_add():
            _check_key(word, known, groups, verb)


def _name(word: "Override") -> str:
    return f"{word.key_or_group}@{word.package}" if word.package else str(word.key_or_group)


def _check_option(word: "Override", offered: Iterable[str], groups: Sequence[str], verb: str) -> None:
    name, value = _name(word), word.value()
    if name not in groups and not word.is_add():
        raise UserError(f"scigen {verb} has no choice {name!r}; its choices are {', '.join(groups) or 'none'}")
    if word.is_delete():
        return
    offered = list(offered)
    for option in map(str, value if isinstance(value, list) else ["null" if value is None else value]):
        if option not in offered:
            guess = "".join(f"did you mean {name}={near}? " for near in difflib.get_close_matches(option, offered, n=1))
            raise UserError(
                f"there is no {name}={option}; {guess}{name} is one of {', '.join(offered) or 'nothing yet'}"
            )


def _check_key(word: "Override", known: dict[str, Any], groups: Sequence[str], verb: str) -> None:
    name, value = word.key_or_group, word.value()
    if name in known:
        below = [key for key in known if key.startswith(f"{name}.") and not _is_internal(key)]
        if below and value is not None and not isinstance(value, dict) and not word.is_delete():
            raise UserError(f"{name} is a section, not a value: set one of {', '.join(below[:8])}")
        return
    for parent in _parents(name):
        if known.get(parent, 0) in (None, MISSING, {}):
            rest = name.removeprefix(f"{parent}.")
            raise UserError(f"{parent} takes its names in one word: '{parent}={{{rest}: {value}}}'")
    if name.split(".")[0] == "hydra" or name.startswith("hydra/"):
        raise UserError(f"{name!r} is Hydra's own, and scigen takes none of it; run=… names the run folder")
    guess = _closest(name, [*groups, *(key for key in known if not _is_internal(key))])
    remedy = f": did you mean {guess}?" if guess else ", and none has a similar name;"
    raise UserError(f"unknown key {name!r}{remedy} scigen {verb} --help lists the keys")


def _check_complete(config: "DictConfig", verb: str, page: Page) -> None:
    from omegaconf import OmegaConf

    comments = {key.name: f" ({key.comment})" for key in page.keys if key.comment}
    absent = [f"{name}=…{comments.get(name, '')}" for name in sorted(OmegaConf.missing_keys(config))]
    if absent:
        raise UserError(f"scigen {verb} needs {' and '.join(absent)}; scigen {verb} --help has examples")


def _first_line(error: Exception, verb: str, page: Page) -> str:
    """Hydra's own words in one line, or better ones for a choice that was not made."""
    text = str(error).strip()
    match = re.match(r"You must specify '([^']+)'", text)
    for choice in page.choices:
        if match and choice.group == match[1]:
            offered = list(choice.options) or ["…"]
            form = f"scigen {verb} {choice.group}={offered[0]}"
            return f"which {choice.group}? Write {form}; it is one of {', '.join(offered)}"
    key = re.search(r"full_key: (\S+)", text)
    place = f"{key[1]}: " if key else ""
    return f"{place}{text.splitlines()[0] if text else type(error).__name__} (scigen {verb} --help lists what there is)"


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}", value
        yield from _flat(value, f"{prefix}{name}.")


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def _is_internal(name: str) -> bool:
    return name.rpartition(".")[2].startswith("_")


def _closest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate most like `name`, by the whole of it or by its last part alone."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return max(whole, 0.9 * last)

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.65 else None
