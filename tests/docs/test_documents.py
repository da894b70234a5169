"""The documents: links lead somewhere, commands compose, Python compiles, the site's contents are whole."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scigen.cli import VERBS, named
from scigen.config import compose

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def identifier(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


def blocks(page: Path, kinds: tuple[str, ...]) -> list[str]:
    """Code blocks of some languages."""
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind in kinds]


def commands(page: Path) -> list[str]:
    """Lines `scigen …` of code blocks, continued lines joined, without comments; those with … are no commands."""
    found = []
    for body in blocks(page, ("", "bash", "sh")):
        for line in re.sub(r"\\\n\s*", " ", body).splitlines():
            words = shlex.split(line, comments=True) if line.strip().startswith("scigen ") else []
            if len(words) > 1 and words[1] in VERBS and not any(w in ("…", "--help") for w in words):
                found.append(shlex.join(words))
    return found


COMMANDS = [(identifier(p), c) for p in PAGES for c in commands(p)]
PYTHON = [(identifier(p), b) for p in PAGES for b in blocks(p, ("python",))]


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
        if page.parent.name == "docs":
            assert there.is_relative_to(ROOT / "docs"), f"{target} is no part of the site"


def test_there_are_commands_to_test():
    assert len(COMMANDS) > 40 and len(PYTHON) > 5


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_composes(page, command):
    _, verb, *words = shlex.split(command)
    compose(verb, named(verb, words))


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_compiles(page, block):
    compile(block, page, "exec")


def test_every_page_is_in_the_contents():
    contents = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def files(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [f for v in values for f in files(v)]

    assert sorted(files(contents)) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="needs scigen[docs]")
    pytest.importorskip("mkdocstrings", reason="needs scigen[docs]")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    out = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0 and not out.stderr.strip(), out.stderr
    assert "scigen.core.bundle.Bundle" in (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
