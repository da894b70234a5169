"""The report page: one HTML file that needs nothing beside it, for screens, phones and paper."""

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2

from scigen.errors import UserError
from scigen.plots.style import data_uri
from scigen.plots.table import Table


def write_report(
    path: str | Path,
    *,
    title: str,
    verdict: str = "",
    tables: Sequence[Table] = (),
    figures: Sequence[tuple[str, str | Path]] = (),
    sections: Sequence[tuple[str, str | Sequence[str]]] = (),
    provenance: Mapping[str, object] | None = None,
) -> Path:
    """Write the page; pictures are embedded, all texts are escaped, and a reader never sees half a file.

    Args:
        path: of the page.
        title: of the page.
        verdict: what came out, in a sentence or two.
        tables: shown in order; from the fourth on folded.
        figures: (caption, PNG file), in order.
        sections: (heading, paragraph or paragraphs) of plain text, between tables and figures.
        provenance: what made it: names and values, folded at the end.

    Returns:
        The path.

    Raises:
        UserError: if a picture is missing, or the page cannot be written.
    """
    path = Path(path)
    for _, picture in figures:
        if not Path(picture).is_file():
            raise UserError(f"The picture {picture} of the report is missing: draw the figures again.")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("scigen.plots").joinpath("report.html.j2").read_text("utf-8")
    html = environment.from_string(source).render(
        title=title,
        verdict=verdict,
        tables=tables,
        figures=[(caption, data_uri(picture)) for caption, picture in figures],
        sections=[(heading, [text] if isinstance(text, str) else list(text)) for heading, text in sections],
        provenance={str(k): str(v) for k, v in (provenance or {}).items()},
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, html)
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error.strerror}): choose another folder.") from error
    return path


def _write_atomically(path: Path, text: str) -> None:
    """Write to a neighbour file and rename it, so that the path holds the old text or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
