"""The HTML page: complete, self-contained, and safe against markup in its strings."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest

from otel_pipeline_metrics.report import RunReport, page
from otel_pipeline_metrics.report.page import embeddable
from tests.report import samples

VOID = {"meta", "wbr", "line", "path", "polygon", "polyline", "br", "i"}


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
    "report",
    [samples.full(), samples.hostile(), samples.bare(), samples.in_turn()],
    ids=["full", "hostile", "bare", "in_turn"],
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
        "With 1 more worker of write, 90 to 100 % more throughput",
        "What this assumes A further worker of write is as fast as those there are.",
        "write ◆ bottleneck write 1 worker 98\u00a0% busy 2\u00a0% idle 0\u00a0% blocked",
        "queue pages holds 3.7 on average, 4 at most, room for 4 · 75.0 ms median wait",
        "Busiest stage 1 process 2 write 1 from 0 s: process 2 from 6.00 s: write",
        "process up to 50 items/s",
        "pages up to 4, room for 4",
        "CPU up to 42 %",
        "Memory (RSS) up to 74.4 MiB 0 s 5 s 10 s 15 s 20 s",
        "write 50.0 ms 2.5\u00d7 file.name a.csv 4bf92f3577b34da6a3ce929d0e0e4736",
        "write 40.0 ms 2\u00d7 TimeoutError",
        "fetch 1,000 2.01 ms 3.31 ms 4.05 ms 5.06 ms 2.10 ms",
        "pages 1,000 3.7 4 4 75.0 ms",
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
    strips = [a["aria-label"] for a in pictures if a["class"] == "strips"]
    assert strips == [
        "fetch over time: up to 50 items/s",
        "process over time: up to 50 items/s",
        "write over time: up to 50 items/s",
        "Depth of pages over time: up to 4, room for 4",
        "Depth of parsed over time: up to 4, room for 4",
        "CPU over time: up to 42\u00a0%",
        "Memory (RSS) over time: up to 74.4\u00a0MiB",
    ]
    svgs = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs.get("aria-hidden") == "true" for attrs in svgs)


def test_tables_have_heads_for_rows_and_columns() -> None:
    page = Page(samples.full().render("html"))
    heads = [attrs.get("scope") for tag, attrs in page.tags if tag == "th"]
    assert {"row", "col", "colgroup"} == set(heads)


def strips_of(report: RunReport, name: str) -> list[str]:
    """Return the paths of the strip over time with this name."""
    page = Page(report.render("html"))
    labels = [a["aria-label"] for _, a in page.tags if a.get("class") == "strips"]
    paths = [a["d"] for _, a in page.tags if a.get("class") == "steps"]
    pairs = zip(labels, paths, strict=True)
    return [path or "" for label, path in pairs if (label or "").startswith(name)]


def test_an_unknown_reading_is_a_gap_in_the_strip() -> None:
    made = samples.data()
    made["windows"] = [
        samples.window(float(t), [], cpu_utilization=None if t == 1 else 0.25 * (t + 2))
        for t in range(3)
    ]
    # a full strip is 96 high, and the y-axis points down
    assert strips_of(RunReport(made), "CPU") == [
        "M0.00 100V52.0H33.33V100ZM66.67 100V4.0H100.00V100Z"
    ]


def test_a_queue_is_drawn_within_its_capacity() -> None:
    made = samples.data(queues=[samples.queue("pages", ["a"], ["b"], capacity=8)])
    made["windows"] = [samples.window(float(t), [], {"pages": 4}) for t in range(2)]
    assert strips_of(RunReport(made), "Depth of pages") == [
        "M0.00 100V52.0H50.00V100ZM50.00 100V52.0H100.00V100Z"
    ]


def test_the_bands_are_the_states_of_the_workers() -> None:
    page = Page(samples.full().render("html"))
    bands = [a for tag, a in page.tags if tag == "i" and (a.get("style") or "").startswith("clip")]
    assert [a["class"] for a in bands] == [
        *("busy", "blocked"), *("busy", "idle", "blocked"), *("busy", "idle"),
    ]  # fmt: skip
    (first, *_) = [a["style"] or "" for a in bands]
    assert first.startswith("clip-path:polygon(0.00% 90.0%,5.00% 90.0%,")


def test_stages_that_took_turns_share_one_bar() -> None:
    page = Page(samples.in_turn().render("html"))
    (bar,) = [a["aria-label"] for _, a in page.tags if a.get("class") == "bar tall"]
    assert bar == (
        "collect_customer_transactions_from_the_warehouse 30\u00a0%, "
        "ParseDocumentContentVersion2 45\u00a0%, app.jobs.nightly.save 15\u00a0%, "
        "outside of stages 10\u00a0%"
    )
    assert "Share of the run" not in Page(samples.full().render("html")).words


def test_no_section_is_empty() -> None:
    page = Page(samples.bare().render("html"))
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "section"] == [
        "verdict unknown"
    ]
    for words in ("Items", "Errors", "Slowest", "Over time", "Durations", "Telemetry", "Trace"):
        assert words not in page.words


def test_items_are_shown_only_where_a_stage_told_them() -> None:
    quiet = samples.report(samples.stage("load", [0.1] * 500))
    told = samples.report(samples.stage("load", [0.1] * 500, items=(1500, None)))
    assert "Items" not in Page(quiet.render("html")).words
    assert "Items 1,500" in Page(told.render("html")).words


TRACE_URL = "https://tempo.example/trace/{trace_id}"


def links(report: RunReport) -> list[str | None]:
    page = Page(report.render("html"))
    return [attrs.get("href") for tag, attrs in page.tags if tag == "a"]


def test_traces_are_links_where_the_report_has_an_address() -> None:
    made = samples.full_data()
    made["run"]["trace_url"] = TRACE_URL
    assert links(RunReport(made)) == [
        "https://tempo.example/trace/0af7651916cd43dd8448eb211c80319c",
        "https://tempo.example/trace/4bf92f3577b34da6a3ce929d0e0e4736",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)//{trace_id}",
        "data:text/html,{trace_id}",
        "https://user:secret@tempo.example/{trace_id}",
        "//tempo.example/{trace_id}",
        "https://tempo.example/trace",
        "https://{trace_id}.example/",
        "https://tempo.example/\n{trace_id}",
        "https:/{trace_id}",
        17,
        None,
    ],
)
def test_an_address_from_a_file_is_no_link_unless_it_is_a_proper_one(url: object) -> None:
    made = samples.full_data()
    made["run"]["trace_url"] = url
    assert links(RunReport(made)) == []


@pytest.mark.parametrize("trace_id", ["../../admin", "0AF7651916CD43DD8448EB211C80319C", 5, None])
def test_a_trace_id_from_a_file_is_no_link_unless_it_is_a_proper_one(trace_id: object) -> None:
    made = samples.full_data()
    made["run"] |= {"trace_url": TRACE_URL, "trace_id": trace_id}
    for stage in made["stages"]:
        stage["slowest"] = [samples.slow_call(0.05) | {"trace_id": trace_id}]
    assert links(RunReport(made)) == []


def test_numbers_keep_their_units_on_the_line() -> None:
    assert page._shown("in 5 s, 3 % of 2 min 03 s and 12 stages") == (
        "in 5\u00a0s, 3\u00a0% of 2\u00a0min 03\u00a0s and 12 stages"
    )


def test_the_page_says_that_states_are_unknown() -> None:
    words = Page(samples.report(samples.stage("load", [0.1])).render("html")).words
    assert "Its queues are not instrumented, so its waiting is unknown." in words
    assert "idle, waits for input" not in words


def test_without_jinja2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page._environment.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "otel-pipeline-metrics\[cli\]"'):
        samples.full().render("html")


def test_two_reports_in_a_notebook_share_no_id() -> None:
    ids = []
    for _ in range(2):
        html = samples.full()._repr_html_()
        page = Page(html or "")
        assert page.open == []
        assert page.scripts == []
        ids += [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        named = [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
        assert set(named) <= set(ids)
    assert len(ids) == len(set(ids)) > 10


def test_without_jinja2_a_notebook_shows_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page._environment.cache_clear()
    assert samples.full()._repr_html_() is None
