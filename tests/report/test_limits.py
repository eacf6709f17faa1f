"""Test how limits are shown, merged and validated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.schema import report_schema
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTILE = "<b>|\x1b[31m`"


def limit(name: str = "db", waits: Sequence[float] = (0.0, 0.0, 0.5), **changes: Any) -> Any:
    """Return a semaphore of two permits, used by two stages and once outside of them."""
    return {
        "name": name,
        "kind": "semaphore",
        "max": 2,
        "usage_avg": 1.5,
        "usage_peak": 2,
        "acquired": len(waits),
        "wait_s": {"total": sum(waits), **samples.summary(waits)},
        "stages": [
            {"stage": "load", "waited_s": 0.5, "held_s": 21.0},
            {"stage": "store", "waited_s": 0.0, "held_s": 7.5},
            {"stage": None, "waited_s": 0.0, "held_s": 1.5},
        ],
        **changes,
    }


def unknown(name: str = "rate") -> Any:
    """Return a rate limit, whose releases are not seen."""
    stages = [{"stage": "load", "waited_s": 0.5, "held_s": None}]
    return limit(name, kind="other", max=None, usage_avg=None, usage_peak=None, stages=stages)


def report(*limits: Any, **more: Any) -> RunReport:
    return RunReport(samples.data(**more) | {"limits": list(limits)})


def test_the_console_shows_who_holds_it() -> None:
    lines = report(limit(), unknown()).render("console").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("limit "))
    p95 = text.duration(limit()["wait_s"]["p95"])
    assert [" ".join(line.split()) for line in lines[start : start + 3]] == [
        "limit kind max usage avg peak acquired wait p95 waited held by",
        f"db semaphore 2 1.5 2 3 {p95} 500 ms load 70 %, store 25 %, no stage 5 %",
        f"rate other - - - 3 {p95} 500 ms -",
    ]


def test_markdown_and_html_show_the_same_table() -> None:
    found = report(limit(), unknown())
    markdown = found.render("markdown")
    assert "| limit | kind | max | usage avg | peak | acquired |" in markdown
    assert "load 70 %, store 25 %, no stage 5 %" in markdown
    page = found.render("html")
    assert '<h2 id="limits">Limits</h2>' in page
    assert "load 70\u00a0%, store 25\u00a0%, no stage 5\u00a0%" in page


@pytest.mark.parametrize("form", ["console", "markdown"])
def test_without_limits_there_is_no_table(form: Any) -> None:
    for found in (report(), samples.report(), samples.full()):
        assert "usage avg" not in found.render(form)
        assert "Limits" not in found.render("html")


def test_a_name_is_text_in_every_format() -> None:
    stages = [{"stage": HOSTILE, "waited_s": 0.0, "held_s": 1.0}]
    found = report(limit(HOSTILE, kind=HOSTILE, stages=stages))
    assert "\x1b" not in found.render("console")
    lines = found.render("markdown").splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("| limit |"))
    assert lines[head + 2].replace(r"\|", "").count("|") == lines[head].count("|")
    assert "<b>" not in found.render("html")


def test_what_is_missing_or_of_another_kind_is_shown_as_unknown() -> None:
    found = report({"name": "bare"}, {"name": "odd", "stages": [{}, {"held_s": 0.0}]})
    for form in ("console", "markdown", "html"):
        assert "bare" in found.render(form)  # type: ignore[arg-type]


def test_a_report_of_an_earlier_release_has_none() -> None:
    data = samples.data()
    assert "limits" not in data
    found = RunReport(data)
    assert found.limits == []
    assert RunReport.merge(found, report(limit(), run_id="b")).limits[0]["name"] == "db"
    jsonschema.validate(data, report_schema())


@pytest.mark.parametrize("limits", [{}, None, [7], [{}], [{"name": "x", "max": "2"}]])
def test_what_is_no_list_of_limits_is_refused(limits: Any) -> None:
    data = samples.data() | {"limits": limits}
    with pytest.raises(ValueError, match="not a whole report"):
        RunReport(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, report_schema())


def test_merged_limits_add_up() -> None:
    merged = RunReport.merge(
        report(limit(), unknown(), run_id="a"),
        report(limit(waits=[0.5] * 3, usage_avg=0.5, max=4, kind="lock"), run_id="b", wall_s=60.0),
    )
    both, rate = merged.limits
    assert (both["kind"], both["max"], both["usage_peak"], both["acquired"]) == ("mixed", 4, 2, 6)
    # for 20 and 60 seconds
    assert both["usage_avg"] == (1.5 * 20 + 0.5 * 60) / 80
    waits = both["wait_s"]
    assert (waits["total"], waits["avg"], waits["max"]) == (2.0, 2.0 / 6, 0.5)
    assert waits["p50"] == pytest.approx(0.5, rel=0.01)
    assert both["stages"] == [
        {"stage": "load", "waited_s": 1.0, "held_s": 42.0},
        {"stage": "store", "waited_s": 0.0, "held_s": 15.0},
        {"stage": None, "waited_s": 0.0, "held_s": 3.0},
    ]
    assert rate["usage_avg"] is None
    jsonschema.validate(json.loads(merged.to_json()), report_schema())
