"""No text of the data steers a terminal, and none becomes markup, a mention or a link."""

from __future__ import annotations

import html
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import cmarkgfm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._export.console import (
    LINES_PER_NAME,
    ConsoleSpanExporter,
    ConsoleSpanProcessor,
)
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.compare import compare
from otel_pipeline_metrics.report.markdown import escaped
from tests.report import samples

# an escape sequence, its 8-bit form, a bell, an overwritten line, text that runs backwards, a DEL
CONTROLS = "\x1b]0;owned\x07\x1b[31m\x9b2J\r\b\x7f\u202eevil\u2028\x85\x00"


def poisoned(poison: str) -> RunReport:
    """Return a report with `poison` in every text, its keys included."""

    def change(found: Any) -> Any:
        if isinstance(found, dict):
            return {
                (f"{key}{poison}" if key in {"ValueError", "forbidden_keys"} else key): (
                    value if key == "sketch" else change(value)
                )
                for key, value in found.items()
            }
        if isinstance(found, list):
            return [change(value) for value in found]
        return f"{poison} {found} {poison}" if isinstance(found, str) else found

    data = change(samples.full().to_dict())
    # what a verdict may be is fixed, the rest is text
    data["bottleneck"]["kind"] = "stage"
    return RunReport({**data, "schema": samples.SCHEMA})


def controls_in(shown: str) -> set[str]:
    return {one for one in shown if not one.isprintable()} - {"\n", "\u00a0"}


@pytest.mark.parametrize("form", ["console", "markdown", "html", "json"])
def test_no_control_character_is_in_any_format(form: Any) -> None:
    assert controls_in(poisoned(CONTROLS).render(form)) == set()


def test_the_json_is_the_same_data() -> None:
    found = poisoned(CONTROLS + "\U000e0001\ud800")
    assert RunReport(json.loads(found.to_json())) == found
    assert json.loads(found.to_json(indent=None)) == found.to_dict()


@given(st.text())
def test_escaped_json_reads_as_the_same_text(given_text: str) -> None:
    written = text.printable_json(json.dumps(given_text, ensure_ascii=False))
    assert json.loads(written) == given_text
    assert written.isprintable()


def test_no_control_character_is_in_a_comparison() -> None:
    one, other = poisoned(CONTROLS), poisoned(CONTROLS).to_dict()
    other["stages"][0]["name"] = f"new {CONTROLS}"
    other["run"]["result"] = f"failure {CONTROLS}"
    other["stages"][1]["errors"]["total"] = 500
    found = compare(one, RunReport(other)).render()
    assert "new " in found
    assert controls_in(found) == set()


def test_no_control_character_is_in_the_summary_or_the_log(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "otel_pipeline_metrics")
    stream = io.StringIO()
    opm.configure(exporter="none", console=stream)
    name = "x" + CONTROLS.replace("\x00", "")
    bad = type(f"Bad{name}", (Exception,), {})
    with pytest.raises(bad), opm.run(name, report=tmp_path / name, resources=False):  # noqa: PT012
        opm.process(name=name)(lambda: None)()
        raise bad
    opm.shutdown()
    # a table's cells are aligned by blanks, and its lines are its own
    assert "report: " in stream.getvalue()
    assert controls_in(stream.getvalue()) == set()
    assert controls_in(caplog.text) == set()


def test_no_control_character_is_in_the_development_console(
    capsys: pytest.CaptureFixture[str],
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = ConsoleSpanExporter()
    provider.add_span_processor(ConsoleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for _ in range(LINES_PER_NAME + 1):
        tracer.start_span(f"name {CONTROLS}", attributes={f"key {CONTROLS}": CONTROLS}).end()
    provider.force_flush()
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == LINES_PER_NAME + 1
    assert controls_in(shown) == set()


def test_the_repr_of_a_report_is_one_line() -> None:
    assert controls_in(repr(poisoned(CONTROLS))) == set()


# --- Markdown -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page, and its text outside of code, where GitHub looks for mentions."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.plain = ""
        self._code = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert [name for name, _ in attrs if name != "align"] == []
        self.tags.append(tag)
        self._code += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        self.plain += "\0" if self._code else data


TABLES = {"table", "thead", "tbody", "tr", "th", "td"}
FRAME = {"h3", "p", "blockquote", "strong", "ul", "li", "code"}
# what GitHub, GitLab and chats make links or pictures of in plain text
AUTOMATIC = re.compile(
    r"@\w|://|www\.|(?:^|\W)[#!$%&^~]\d|\bGH-\d|:[a-z]\w*:|\b(?=[a-f]*\d)[0-9a-f]{7,40}\b",
    re.IGNORECASE,
)
HOSTILE = [
    "@octocat", "a@b.example", "@org/team", "(@octocat)", "x|@octocat", "`@octocat`", "``@a`@b`",
    "\\@octocat", "&#64;octocat", "@octocat\\", "#123", "owner/repo#1", "owner/repo@deadbee1",
    "GH-12", "!7", "$7", "~7", "%7", "&7", "^7", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "http://evil.example", "HTTPS://evil.example/a|b", "www.evil.example", "ftp://x.example",
    "mailto:a@b.example", "xmpp:a@b.example/x", "<http://evil.example>", "<a@b.example>",
    "![i](http://evil.example/i.png)", "![i](i.png)", "[t](t.html)", "[t][r]", "[^1]", "[x]",
    "<img src=x>", "<b>bold</b>", "<!-- -->", "&copy;", "&lt;", ":octocat:", ":+1:",
    "# heading", "#", "- item", "+ item", "1. one", "2) two", "===", "---", "***", "___", "> quote",
    "```", "~~~", "    code", "|", "||", "a|b", "\\", "\\|", "`", "*", "**a**", "_a_", "~~a~~",
    "$x$", "$$", "a\n\n# b", "a\n- b", "| a | b |\n|---|---|",
]  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_text_stays_text(word: str) -> None:
    """In the whole report, by GitHub's own parser: the frame is ours, the text is all there."""
    found = Page(cmarkgfm.github_flavored_markdown_to_html(poisoned(word).render("markdown")))
    honest = Page(cmarkgfm.github_flavored_markdown_to_html(poisoned("x").render("markdown")))
    assert [tag for tag in found.tags if tag != "code"] == [
        tag for tag in honest.tags if tag != "code"
    ]
    assert set(found.tags) <= TABLES | FRAME
    assert AUTOMATIC.search(found.plain) is None


def rendered(word: str) -> str:
    """Return the text that a reader sees."""
    page = cmarkgfm.github_flavored_markdown_to_html(f"x {escaped(word)} x")
    return html.unescape(re.sub(r"</?(p|code)>", "", page)).strip()


@pytest.mark.parametrize("word", HOSTILE)
def test_a_reader_sees_the_text_itself(word: str) -> None:
    assert rendered(word) == f"x {' '.join(word.split())} x"


ALPHABET = st.sampled_from("aW1@#:/.w`|\\*_[]()<>!~$&^-+= \n\u00e4\x1b")


@given(st.text(ALPHABET))
def test_any_text_stays_text(word: str) -> None:
    assert rendered(word) == f"x {text.printable(' '.join(word.split()))} x"
    page = Page(cmarkgfm.github_flavored_markdown_to_html(f"x {escaped(word)} x"))
    assert set(page.tags) <= {"p", "code"}
    assert AUTOMATIC.search(page.plain) is None
