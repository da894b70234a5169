"""The report page: one file, whole, with every text escaped."""

import os
from html.parser import HTMLParser

import pytest

from scigen.errors import UserError
from scigen.plots import style
from scigen.plots.report import write_report
from scigen.plots.table import Column, Table


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains of tags closed in the wrong order."""

    VOID = ("meta", "img", "br", "link", "!doctype")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


EVIL = "<script>alert('x')</script> & \"quoted\""


@pytest.fixture
def picture(tmp_path):
    with style.canvas(1, 1) as figure:
        figure.subplots()
        return style.save(figure, tmp_path / "picture.png")


@pytest.fixture
def content(picture):
    table = Table(EVIL, [Column("name", EVIL, numeric=False), Column(EVIL)], [[(EVIL, EVIL), ("1.0", "")]], [EVIL])
    return dict(
        title=EVIL, verdict=EVIL, main=table, facts={EVIL: EVIL}, tables=[table], chapters=[(EVIL, [(EVIL, picture)])],
        sections=[(EVIL, EVIL), ("two", ["a", EVIL])], command=EVIL, provenance={EVIL: EVIL, "seed": 3},
    )  # fmt: skip


def test_texts_of_users_are_shown_never_run(tmp_path, content):
    page = Page(write_report(tmp_path / "report.html", **content).read_text("utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    # title and heading; verdict; main table without a title; facts; table with one; sections; link, heading and caption
    # of a chapter; command; provenance
    assert page.words.count(EVIL) == 2 + 1 + 4 + 2 + 5 + 3 + 3 + 1 + 2
    hints = [a["title"] for t, a in page.tags if t == "th" and "title" in a]
    assert hints == [EVIL, EVIL] and [a["alt"] for t, a in page.tags if t == "img"] == [EVIL]


def test_the_reader_meets_the_verdict_the_table_and_the_facts_first(tmp_path, content, picture):
    own = content | {"verdict": "A first sentence.\nA second.", "facts": {"data": "what"}, "command": "scigen fit"}
    page = Page(write_report(tmp_path / "report.html", **own).read_text("utf-8"))
    order = ["A first sentence.", "A second.", "1.0", "What was fitted on what", "All numbers", "scigen fit"]
    places = [page.words.index(w) for w in order]
    assert places == sorted(places)
    links = [a["href"] for t, a in page.tags if t == "a"]
    assert links == ["#part-1", "#again"] and {"part-1", "again"} <= {a.get("id") for _, a in page.tags}


def test_the_page_needs_nothing_beside_it(tmp_path, content, picture):
    html = write_report(tmp_path / "report.html", **content).read_text("utf-8")
    picture.unlink()
    page = Page(html)
    links = [a[k] for _, a in page.tags for k in ("src", "href") if k in a]
    inside = [link for link in links if link.startswith("#")]
    assert len(links) > len(inside) and all(
        link.startswith("data:image/png;base64,") for link in set(links) - {*inside}
    )
    assert "url(" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html and 'name="viewport"' in html


def test_long_reports_fold_their_later_tables(tmp_path):
    tables = [Table(f"v{i}", [Column("a")], []) for i in range(5)]
    page = Page(write_report(tmp_path / "r.html", title="t", tables=tables).read_text("utf-8"))
    assert ["open" in a for t, a in page.tags if t == "details"] == [True, True, True, False, False]
    page = Page(write_report(tmp_path / "r.html", title="t", main=tables[0], tables=tables).read_text("utf-8"))
    assert ["open" in a for t, a in page.tags if t == "details"] == [False] * 5


def test_wide_tables_scroll_on_their_own(tmp_path, content):
    """Every table lies in a box that scrolls, by keyboard as well; pictures are as wide as the page at most."""
    html = write_report(tmp_path / "report.html", **content).read_text("utf-8")
    page = Page(html)
    boxes = [a for t, a in page.tags if t == "div" and a.get("class") == "scroll"]
    assert len(boxes) == sum(t == "table" for t, _ in page.tags) == 2 and all(a["tabindex"] == "0" for a in boxes)
    assert ".scroll { overflow-x: auto; }" in html and "figure img { display: block; max-width: 100%" in html


def test_an_empty_report_is_a_page(tmp_path):
    page = Page(write_report(tmp_path / "new/folder/r.html", title="nothing").read_text("utf-8"))
    assert page.words.count("nothing") == 2


def test_a_failed_write_leaves_the_old_page_and_no_rest(tmp_path, monkeypatch):
    path = write_report(tmp_path / "r.html", title="old")

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(UserError, match="No space left"):
        write_report(path, title="new")
    assert "old" in path.read_text("utf-8") and os.listdir(tmp_path) == ["r.html"]


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(UserError, match=r"picture .*gone\.png"):
        write_report(tmp_path / "r.html", title="t", chapters=[("c", [("c", tmp_path / "gone.png")])])


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="t")
