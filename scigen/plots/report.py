"""The report page: one HTML file that needs nothing beside it, for screens, phones and paper."""

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2

from scigen.errors import UserError
from scigen.plots.style import data_uri
from scigen.plots.table import Table

Figures = Sequence[tuple[str, str | Path]]
"""(caption, PNG file), in order."""


def write_report(
    path: str | Path,
    *,
    title: str,
    verdict: str = "",
    main: Table | None = None,
    facts: Mapping[str, object] | None = None,
    about: str = "What was fitted on what",
    tables: Sequence[Table] = (),
    chapters: Sequence[tuple[str, Figures]] = (),
    sections: Sequence[tuple[str, str | Sequence[str]]] = (),
    command: str | None = None,
    provenance: Mapping[str, object] | None = None,
) -> Path:
    """Write the page; pictures are embedded, all texts are escaped, and a reader never sees half a file.

    The order is that of a reader: the verdict, the one table, what was fitted on what, all tables, pictures, how to do
    it again.

    Args:
        path: of the page.
        title: of the page.
        verdict: what came out, in a sentence or two, the first one weighted.
        main: the one table that answers.
        facts: what was fitted on what: names and values.
        about: their heading.
        tables: the others, in order; without a main one the first three stand open, with one all are folded.
        chapters: (heading, pictures), in order.
        sections: (heading, paragraph or paragraphs) of plain text, before the pictures.
        command: what makes it again.
        provenance: what else it takes: versions, seeds, fingerprints.

    Returns:
        The path.

    Raises:
        UserError: if a picture is missing, or the page cannot be written.
    """
    path = Path(path)
    for _, figures in chapters:
        for _, picture in figures:
            if not Path(picture).is_file():
                raise UserError(f"The picture {picture} of the report is missing: draw the figures again.")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("scigen.plots").joinpath("report.html.j2").read_text("utf-8")
    html = environment.from_string(source).render(
        title=title,
        verdict=[line[0].upper() + line[1:] for line in map(str.strip, verdict.splitlines()) if line],
        main=main,
        facts=_texts(facts),
        about=about,
        tables=tables,
        open=0 if main else 3,
        chapters=[(name, [(caption, data_uri(p)) for caption, p in figures]) for name, figures in chapters],
        sections=[(heading, [text] if isinstance(text, str) else list(text)) for heading, text in sections],
        command=command or "",
        provenance=_texts(provenance),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, html)
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error.strerror}): choose another folder.") from error
    return path


def _texts(values: Mapping[str, object] | None) -> dict[str, str]:
    """Names and values as text."""
    return {str(k): str(v) for k, v in (values or {}).items()}


def _write_atomically(path: Path, text: str) -> None:
    """Write to a neighbour file and rename it, so that the path holds the old text or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
