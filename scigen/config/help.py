"""Help: what the YAML tree offers, laid out for someone who has never seen Hydra."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scigen.config.tree import MISSING, Key, Page, config_tree, options, read_option, read_page

PURPOSE = (
    "scigen distils diffusion models for science into students of 1-4 network calls, and keeps the ensemble honest."
)
FLAGS = (
    ("VERB --help", "what a verb does, its choices and its keys; add domain=weather to see that option's own keys"),
    ("--config-dir DIR", "options of your own, in DIR/GROUP/NAME.yaml; they come before the shipped ones"),
    ("--copy-configs DIR", "copy the shipped options to DIR, to start your own from"),
    ("--debug", "show the traceback of an error"),
    ("--version", "print the version"),
)


def show_overview(verbs: Sequence[str], config_dirs: Sequence[Path] = ()) -> None:
    """Print what `scigen --help` tells: the verbs, an example of each, the flags."""
    with config_tree(config_dirs) as tree:
        pages = {verb: read_page(tree, verb) for verb in verbs}
    _title(PURPOSE)
    _rows("Write", [("scigen VERB key=value …", "")])
    _rows("Verbs", [(verb, page.description.partition(". ")[0].rstrip(".")) for verb, page in pages.items()])
    _rows("For example", [(page.examples[0], "") for page in pages.values() if page.examples])
    _rows("Flags", FLAGS)


def show_verb(verb: str, words: Sequence[str] = (), config_dirs: Sequence[Path] = ()) -> None:
    """Print what `scigen VERB --help` tells: examples, choices, keys, and the keys of options named in `words`."""
    with config_tree(config_dirs) as tree:
        page = read_page(tree, verb)
        named = [word.partition("=")[::2] for word in words]
        keys = {f"{g}={o}": read_option(tree, g, o) for g, o in named if o in options(tree, g)}
    _title(page.description or f"scigen {verb}")
    _rows("Write", [(example, "") for example in page.examples or (f"scigen {verb} key=value …",)])
    _rows("Choices, written GROUP=OPTION", _choice_rows(page))
    _rows("Keys, written KEY=VALUE", _key_rows(page.keys))
    for option, own in keys.items():
        _rows(f"Keys of {option}", _key_rows(own) or [("none", "")])
    _title("")
    for choice in [choice for choice in page.choices if choice.options][:1]:
        option = f"{choice.group}={next(iter(choice.options))}"
        _title(f"An option has keys of its own: scigen {verb} --help {option} lists them.")
    _title("Quote what the shell would split or expand: 'data.variables=[t2m, u10]', 'samples={student: out.zarr}'.")


def _choice_rows(page: Page) -> list[tuple[str, str]]:
    words = {MISSING: "must be given", "null": "none by default"}
    rows = []
    for choice in page.choices:
        if choice.options:
            first_use, _, second_use = choice.group.partition("@")
            remark = f"; one of the options of {first_use}" if second_use else ""
            rows.append((choice.group, words.get(choice.default, f"{choice.default} by default") + remark))
            if not second_use:
                rows.extend((f"  {choice.group}={option}", text) for option, text in choice.options.items())
    return rows


def _key_rows(keys: Sequence[Key]) -> list[tuple[str, str]]:
    words = {MISSING: "  (must be given)", "null": ""}
    return [(f"{key.name}={words.get(key.default, key.default)}", key.comment) for key in keys]


def _title(text: str, style: str = "") -> None:
    Console(highlight=False).print(Text(text, style=style))


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    if not rows:
        return
    _title(f"\n{title}", style="bold")
    if not any(text for _, text in rows):  # commands: never wrapped, so that they can be copied
        for command, _ in rows:
            print(f"  {command}")
        return
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="cyan", overflow="fold", max_width=46)
    table.add_column(overflow="fold")
    for left, right in rows:
        table.add_row(Text(f"  {left}"), Text(right))
    Console(highlight=False).print(table)
