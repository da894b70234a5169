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
        title=EVIL, verdict=EVIL, tables=[table], figures=[(EVIL, picture)],
        sections=[(EVIL, EVIL), ("two", ["a", EVIL])], provenance={EVIL: EVIL, "seed": 3},
    )  # fmt: skip


def test_texts_of_users_are_shown_never_run(tmp_path, content):
    page = Page(write_report(tmp_path / "report.html", **content).read_text("utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    # title and heading; verdict; title, column, cell, detail and note of the table; section; caption; provenance
    assert page.words.count(EVIL) == 2 + 1 + 5 + 3 + 1 + 2
    hints = [a["title"] for t, a in page.tags if t == "th" and "title" in a]
    assert hints == [EVIL] and [a["alt"] for t, a in page.tags if t == "img"] == [EVIL]


def test_the_page_needs_nothing_beside_it(tmp_path, content, picture):
    html = write_report(tmp_path / "report.html", **content).read_text("utf-8")
    picture.unlink()
    page = Page(html)
    links = [a[k] for _, a in page.tags for k in ("src", "href") if k in a]
    assert links and all(link.startswith("data:image/png;base64,") for link in links)
    assert "url(" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html and 'name="viewport"' in html


def test_long_reports_fold_their_later_tables(tmp_path):
    tables = [Table(f"v{i}", [Column("a")], []) for i in range(5)]
    page = Page(write_report(tmp_path / "r.html", title="t", tables=tables).read_text("utf-8"))
    assert ["open" in a for t, a in page.tags if t == "details"] == [True, True, True, False, False]


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
        write_report(tmp_path / "r.html", title="t", figures=[("c", tmp_path / "gone.png")])


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="t")
