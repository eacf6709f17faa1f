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


__all__ = ["Chart", "Document", "Judged", "Table"]


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


class Judged:
    """What a comparison and a trend have in common: they are shown, and may be a reason to fail."""

    # a sentence each; empty is good
    regressions: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 1 with a regression, else 0."""
        return 1 if self.regressions else 0

    def render(self, format: Format = "console") -> str:  # noqa: A002 - the word users expect
        """Return this as text for people or, as JSON, for programs.

        Raises:
            ValueError: the format is unknown.
            ImportError: "html" needs jinja2, which the extra `cli` installs.
        """
        if format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        document = self._document(with_charts=format == "html")
        if format == "json":
            return json.dumps(document.data, indent=2, ensure_ascii=False, allow_nan=False)
        return {"console": _console, "markdown": _markdown, "html": _html}[format](document)

    def _document(self, *, with_charts: bool) -> Document:
        raise NotImplementedError


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
