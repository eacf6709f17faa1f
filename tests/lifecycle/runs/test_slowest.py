"""The slowest calls of each stage in a report: which ones, with what, and how many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured


def slowest(run: opm.Run) -> list[dict[str, Any]]:
    (stage,) = run.report.to_dict()["stages"]
    found: list[dict[str, Any]] = stage["slowest"]
    return found


def took(run: opm.Run) -> list[float]:
    return [round(call["duration_s"], 9) for call in slowest(run)]


def run_calls(clock: Clock, durations: Sequence[float], flush_every: int = 0) -> opm.Run:
    """Make a call of each duration, each with an attribute if its number is odd."""
    with opm.run("r", resources=False) as run:
        for number, seconds in enumerate(durations):
            with opm.stage("s") as stage:
                clock.advance(seconds)
                if number % 2:
                    stage.set_attribute("number", number)
            if flush_every and number % flush_every == 0:
                drain.drain()
    return run


def test_the_slowest_five_stand_with_their_spans(clock: Clock, captured: Captured) -> None:
    captured.configure()

    @opm.stage("s")
    def call(seconds: float) -> None:
        clock.advance(seconds)

    with opm.run("r", resources=False) as run:
        for seconds in (3, 1, 9, 4, 7, 2, 8):
            call(seconds)
    assert took(run) == [9, 8, 7, 4, 3]
    spans = {
        f"{span.context.span_id:016x}": f"{span.context.trace_id:032x}"
        for span in captured.spans()
        if span.name == "s"
    }
    ids = [(call["trace_id"], call["span_id"]) for call in slowest(run)]
    assert len(set(ids)) == 5
    assert all(spans[span_id] == trace_id for trace_id, span_id in ids)
    assert {call["outcome"] for call in slowest(run)} == {"ok"}


def test_attributes_and_errors_stand_with_the_call(clock: Clock, captured: Captured) -> None:
    captured.configure()
    with opm.run("r", resources=False) as run:
        for key in ("a", "b"):
            with opm.stage("s", attributes={"table": "t"}) as stage:
                stage.set_attribute("file.format", key)
                clock.advance(1 if key == "a" else 3)

        @opm.stage("s", attributes={"table": "t"})
        def fail() -> None:
            clock.advance(2)
            raise LookupError

        with pytest.raises(LookupError):
            fail()
    found = [(call["attributes"], call["outcome"], call["error_type"]) for call in slowest(run)]
    assert found == [
        ({"table": "t", "file.format": "b"}, "ok", None),
        ({"table": "t"}, "error", "LookupError"),
        ({"table": "t", "file.format": "a"}, "ok", None),
    ]
    assert all(call["span_id"] for call in slowest(run))


@pytest.mark.parametrize("sampled", [True, False])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    durations=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0]), max_size=60),
    flush_every=st.integers(0, 7),
)
def test_no_slower_call_is_missed(
    clock: Clock, captured: Captured, durations: list[float], flush_every: int, *, sampled: bool
) -> None:
    if sampled:
        captured.configure()
    run = run_calls(clock, durations, flush_every)
    found = run.report.to_dict()["stages"]
    calls = found[0]["slowest"] if found else []
    assert [round(c["duration_s"], 9) for c in calls] == sorted(durations, reverse=True)[:5]
    assert all((call["trace_id"] is not None) == sampled for call in calls)
    # no call stands twice
    ids = [call["span_id"] for call in calls if call["span_id"]]
    assert len(set(ids)) == len(ids)
    numbers = [call["attributes"]["number"] for call in calls if call["attributes"]]
    assert len(set(numbers)) == len(numbers)


class FlushesFirst(SpanProcessor):
    """Flush when a span ends, as another thread may."""

    def __init__(self) -> None:
        self.count = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.count += 1
        drain.drain()


def test_a_flush_before_the_end_of_the_span_keeps_the_call_once(
    clock: Clock, captured: Captured
) -> None:
    flushing = FlushesFirst()
    captured.tracer_provider.add_span_processor(flushing)
    captured.configure()

    @opm.stage("s")
    def call(seconds: float) -> None:
        clock.advance(seconds)

    with opm.run("r", resources=False) as run:
        for seconds in (1, 2, 3):
            call(seconds)
    assert flushing.count == 4  # that of the run too
    assert took(run) == [3, 2, 1]
    assert all(call["span_id"] for call in slowest(run))


def test_without_a_sampled_span_the_ids_are_unknown(clock: Clock) -> None:
    opm.configure(
        tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
        meter_provider=MeterProvider(shutdown_on_exit=False),
    )
    run = run_calls(clock, [1, 2])
    assert took(run) == [2, 1]
    assert {(call["trace_id"], call["span_id"]) for call in slowest(run)} == {(None, None)}


def test_what_is_kept_is_bounded(clock: Clock, captured: Captured) -> None:
    captured.configure()
    with opm.run("r", resources=False) as run:
        for number in range(2000):
            with opm.stage("s") as stage:
                clock.advance(1 + number % 7)
                for key in range(40):
                    stage.set_attribute(f"key.{key}", "x" * 1000)
                stage.set_attribute("key.0", ["y" * 1000] * 100)
    calls = slowest(run)
    assert len(calls) == 5
    for call in calls:
        assert len(call["attributes"]) == 16
        assert call["attributes"]["key.0"] == ["y" * 256] * 16
        assert call["attributes"]["key.1"] == "x" * 256


def test_calls_that_overlap_are_kept_with_their_own_spans(clock: Clock, captured: Captured) -> None:
    captured.configure()

    @opm.stage("s")
    async def call(steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
            clock.advance(1)

    async def main() -> None:
        await asyncio.gather(*map(call, (1, 5, 3)))

    with opm.run("r", resources=False) as run:
        asyncio.run(main())
    by_span = {f"{s.context.span_id:016x}": s.name for s in captured.spans() if s.name == "s"}
    assert sorted(by_span) == sorted(call["span_id"] for call in slowest(run))
    assert took(run) == sorted(took(run), reverse=True)


def test_a_report_keeps_the_address_of_a_trace(captured: Captured) -> None:
    url = "https://tempo.example/trace/{trace_id}?tab=spans"
    captured.configure(trace_url=url)
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    assert run.report.run["trace_url"] == url
    link = url.replace("{trace_id}", run.report.run["trace_id"])
    assert f'href="{link}"' in run.report.render("html")


def test_the_address_of_a_trace_from_a_variable(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:16686/trace/{trace_id}"
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_TRACE_URL", url)
    captured.configure()
    with opm.run("r", resources=False) as run:
        pass
    assert run.report.run["trace_url"] == url


def test_without_an_address_it_is_unknown(captured: Captured) -> None:
    captured.configure()
    with opm.run("r", resources=False) as run:
        pass
    assert run.report.run["trace_url"] is None


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        (5, TypeError, "trace_url must be a string, not int"),
        ("", ValueError, "trace_url must be an http or https address"),
        ("ftp://a.example/{trace_id}", ValueError, "trace_url must be an http or https address"),
        ("javascript:alert({trace_id})", ValueError, "trace_url must be an http or https address"),
        ("https://u:p@a.example/{trace_id}", ValueError, "without a user and password"),
        ("https://a.example/ {trace_id}", ValueError, "trace_url must be an http or https address"),
        ("https://a.example/", ValueError, r"trace_url must have \{trace_id\}"),
        ("https://a.example/{trace_id}" + "a" * 2000, ValueError, "at most 2000 characters"),
    ],
)
def test_a_bad_address_is_an_error_that_names_the_argument(
    url: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        opm.configure(exporter="none", trace_url=url)
