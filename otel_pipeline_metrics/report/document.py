"""Show a comparison or a trend: a few tables and sentences, in each format of a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.report import markdown
from otel_pipeline_metrics.report.page import page
from otel_pipeline_metrics.report.run_report import FORMATS
from otel_pipeline_metrics.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import Format


__all__ = ["Chart", "Document", "Table", "render"]


class Chart(NamedTuple):
    """A line over runs, within 100 by 100; only the page draws it."""

    title: str
    # the same in words
    text: str
    # points as SVG writes them; a run without a value makes a gap
    lines: Sequence[str]
    # places and labels of the axis
    y: Sequence[tuple[str, str]]
    # where something changed
    marks: Sequence[str]


class Document(NamedTuple):
    """What a reader is told; `data` is the same for programs."""

    title: str
    facts: str
    tables: Sequence[Table]
    notes: Sequence[str]
    # a sentence each: reasons to fail
    bad: Sequence[str]
    # the sentence without any
    good: str
    data: dict[str, Any]
    charts: Sequence[Chart] = ()


def render(document: Document, form: Format) -> str:
    """Return the document in one of the formats.

    Raises:
        ValueError: the format is unknown.
        ImportError: "html" needs jinja2, which the extra `cli` installs.
    """
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {form!r}")
    if form == "json":
        return json.dumps(document.data, indent=2, ensure_ascii=False, allow_nan=False)
    return {"console": _console, "markdown": _markdown, "html": _html}[form](document)


def _console(document: Document) -> str:
    parts = [
        text.printable(f"{document.title}: {document.facts}"),
        *(str(table) for table in document.tables),
        "\n".join(text.printable(f"note: {note}") for note in document.notes),
        "\n".join(map(text.printable, document.bad)) or document.good,
    ]
    return "\n\n".join(part for part in parts if part)


def _markdown(document: Document) -> str:
    bad = [f"> **{markdown.escaped(line)}**" for line in document.bad]
    parts = [
        f"### {markdown.escaped(document.title)}",
        markdown.escaped(document.facts),
        "\n>\n".join(bad) or f"> {markdown.escaped(document.good)}",
        *(markdown.table(table) for table in document.tables),
        "\n".join(f"- {markdown.escaped(note)}" for note in document.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(document: Document) -> str:
    view = document._asdict()
    return page("document.html.jinja", view.pop("data"), **view)
