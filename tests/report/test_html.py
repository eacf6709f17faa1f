"""The HTML page: complete, self-contained, and safe against markup in its strings."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.html import embeddable
from tests.report import samples

VOID = {"meta", "line", "path", "polygon", "polyline", "br", "i"}


class Page(HTMLParser):
    """The elements, texts and scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID - {"i"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if "script" in self.open else self.text).append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


ALL = pytest.mark.parametrize(
    "report", [samples.full(), samples.hostile(), samples.bare()], ids=["full", "hostile", "bare"]
)


@ALL
def test_every_element_is_closed(report: RunReport) -> None:
    assert Page(report.render("html")).open == []


@ALL
def test_the_page_is_self_contained(report: RunReport) -> None:
    html = report.render("html")
    page = Page(html)
    names = {name for _, attrs in page.tags for name in attrs}
    assert set() == names & {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
    assert set() == {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "a"}
    style = html[html.index("<style>") : html.index("</style>")]
    assert not any(word in style for word in ("url(", "@import", "http"))
    assert not any("url(" in (value or "") for _, attrs in page.tags for value in attrs.values())
    assert "http://" not in html
    assert "https://" not in html


@ALL
def test_the_page_has_no_script_that_runs(report: RunReport) -> None:
    page = Page(report.render("html"))
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "report"}]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    policies = [a["content"] for tag, a in page.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


@ALL
def test_the_page_embeds_the_whole_report(report: RunReport) -> None:
    (script,) = Page(report.render("html")).scripts
    assert report == RunReport(json.loads(script))


def test_embedded_data_cannot_end_its_element() -> None:
    found = embeddable(samples.hostile().to_dict())
    assert not any(character in found for character in "<>&\u2028\u2029")


def test_hostile_names_are_shown_as_text() -> None:
    assert samples.HOSTILE in Page(samples.hostile().render("html")).words


def test_the_page_shows_every_part_of_the_report() -> None:
    words = Page(samples.full().render("html")).words
    for piece in (
        "nightly ✓ success",
        "Duration 20.0 s",
        "Started 2026-05-04 03:02:01 UTC",
        "Trace 0af7651916cd43dd8448eb211c80319c",
        "Verdict write holds the run back (98\u00a0% busy) high confidence",
        "With 1 more worker of write, about 96 % more throughput",
        "What this assumes A further worker of write is as fast as those there are.",
        "write ◆ bottleneck write 1 worker 98\u00a0% busy 2\u00a0% idle 0\u00a0% blocked",
        "queue pages holds 3.7 on average, 4 at most, room for 4 · 75.0 ms median wait",
        "fetch 1,000 2.01 ms 3.31 ms 4.05 ms 2.10 s 2.10 ms",
        "pages 1,000 3.7 4 4 75.0 ms",
        "CPU 0 % 20 % 40 % 60 % 0 s 5 s 10 s 15 s 20 s",
        "Memory (RSS) 0 MiB 20 MiB 40 MiB 60 MiB 80 MiB",
        "20 samples. This process may use 2 CPUs and 256 MiB of memory, as cgroup2 says.",
        "geo 900 100 90 % 80 % 95 % - 7 - 93 64.0 KiB",
        "process 1 0.1 % json.decoder.JSONDecodeError",
        "Spans created 3,001",
    ):
        assert " ".join(piece.split()) in words


def test_stages_are_in_the_order_of_the_queues() -> None:
    page = Page(samples.full().render("html"))
    bars = [a["aria-label"] for t, a in page.tags if (a.get("class") or "") == "bar"]
    assert bars == [
        "fetch: busy 10\u00a0%, idle 0\u00a0%, blocked 90\u00a0%",
        "process: busy 25\u00a0%, idle 1\u00a0%, blocked 74\u00a0%",
        "write: busy 98\u00a0%, idle 2\u00a0%, blocked 0\u00a0%",
    ]


def test_every_picture_has_a_text() -> None:
    page = Page(samples.full().render("html"))
    pictures = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert all(attrs["aria-label"] for attrs in pictures)
    charts = [a["aria-label"] for a in pictures if a["class"] == "chart"]
    assert charts == [
        "CPU over 20.0 s: from 18 % to 47 %; the axis ends at 60\u00a0%",
        "Memory (RSS) over 20.0 s: from 38.1 MiB to 77.2 MiB; the axis ends at 80\u00a0MiB",
    ]
    svgs = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs.get("aria-hidden") == "true" for attrs in svgs)


def test_tables_have_heads_for_rows_and_columns() -> None:
    page = Page(samples.full().render("html"))
    heads = [attrs.get("scope") for tag, attrs in page.tags if tag == "th"]
    assert {"row", "col", "colgroup"} == set(heads)


def test_an_unknown_reading_is_a_gap_in_the_line() -> None:
    made = samples.full_data()
    made["resources"]["series"] = [[t, 0.5 if t != 2 else None, None] for t in range(5)]
    page = Page(RunReport(made).render("html"))
    lines = [a["points"] for t, a in page.tags if t == "polyline"]
    assert lines == ["0.00,16.67 25.00,16.67", "75.00,16.67 100.00,16.67"]


def test_the_page_says_that_states_are_unknown() -> None:
    words = Page(samples.report(samples.stage("load", [0.1])).render("html")).words
    assert "Its queues are not instrumented, so its waiting is unknown." in words
    assert "idle, waits for input" not in words


def test_without_jinja2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "otel-pipeline-metrics\[cli\]"'):
        samples.full().render("html")
