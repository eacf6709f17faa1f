"""Test that an internal error is logged once and never reaches the user's call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import drain, errors, hooks, series
from otel_pipeline_metrics._stages import invocation
from tests.stages.support import in_flight, nothing_current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch
    from tests.conftest import Results
    from tests.stages.conftest import Otel


class BrokenError(Exception):
    """An internal error, made for a test."""


class Tracing:
    """Does nothing, and fails at one thing; also the one span that it opens."""

    def __init__(self, failing: str) -> None:
        self.failing = failing

    def _do(self, what: str) -> None:
        if what == self.failing:
            raise BrokenError(what)

    def open(self, cell: Any, links: Any = (), links_dropped: int = 0) -> None:
        self._do("open")
        cell += [object(), None, None]

    def close(self, cell: Any, elapsed: float) -> None:
        self._do("close")

    def span_of(self, cell: Any) -> Tracing:
        return self

    def suspend(self) -> None:
        self._do("suspend")

    def resume(self) -> None:
        self._do("resume")

    def retry(self, attempt: int, error_type: str) -> None:
        self._do("retry")

    def end(self, result: Any) -> Any:
        self._do("end")


@stage("works")
def by_function(given: Any) -> Any:
    invocation.current_execution().retry()
    return given


@stage("works")
async def by_coroutine_(given: Any) -> Any:
    invocation.current_execution().retry()
    return given


def by_coroutine(given: Any) -> Any:
    return asyncio.run(by_coroutine_(given))


@stage("works")
def by_generator_(given: Any) -> Iterator[Any]:
    invocation.current_execution().retry()
    yield given
    yield given


def by_generator(given: Any) -> Any:
    (one, two) = by_generator_(given)
    assert one is two
    return one


@stage("works")
async def by_async_generator_(given: Any) -> AsyncIterator[Any]:
    invocation.current_execution().retry()
    yield given
    yield given


def by_async_generator(given: Any) -> Any:
    async def main() -> Any:
        (one, two) = [x async for x in by_async_generator_(given)]
        assert one is two
        return one

    return asyncio.run(main())


def by_block(given: Any) -> Any:
    with stage("works") as s:
        s.retry()
        return given


FORMS = [by_function, by_coroutine, by_generator, by_async_generator, by_block]
forms = pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)


@pytest.fixture
def without_raise_faults(loud_faults: None) -> None:
    """Log internal errors, as outside of these tests."""
    errors.raise_faults = False


@forms
@pytest.mark.parametrize("failing", ["open", "suspend", "resume", "retry", "end"])
def test_an_error_in_tracing_is_logged_once(
    form: Callable[[Any], Any],
    failing: str,
    without_raise_faults: None,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The call is unaffected, it is counted, and each place logs one line."""
    hooks.set_tracing(Tracing(failing))
    given = object()
    for _ in range(3):
        assert form(given) is given
        assert nothing_current()
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == len(set(said))
    assert len(said) <= 2
    assert all(s.startswith("internal error in ") for s in said)
    assert all(r.exc_info[0] is BrokenError for r in caplog.records)
    assert len(results.durations("works")) == 3
    assert in_flight("works") == 0


def test_the_users_error_wins_over_an_internal_one(
    without_raise_faults: None,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.set_tracing(Tracing("end"))
    error = KeyError("k")

    @stage("fails")
    def fails() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        fails()
    assert caught.value is error
    assert caught.value.__context__ is None
    assert [(r.outcome, r.error_type) for r in results.of("fails")] == [("error", "KeyError")]


def test_internal_errors_are_raised_in_our_own_tests(
    monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    hooks.set_tracing(Tracing("open"))
    with pytest.raises(BrokenError):
        by_function(1)
    forget()


def forget() -> None:
    """Remove the call that was interrupted, so that the next test does not see it in flight."""
    for scope in list(series.scopes):
        scope.forget()


class BrokenSink:
    """Takes nothing."""

    def accept(self, batch: Batch) -> None:
        raise BrokenError

    def accept_queue(self, batch: QueueBatch) -> None:
        raise BrokenError

    def accept_limit(self, batch: LimitBatch) -> None:
        raise BrokenError


def test_a_sink_that_fails_does_not_affect_the_others(
    without_raise_faults: None, results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    drain.set_sinks((BrokenSink(), results, BrokenSink()))
    for _ in range(3):
        by_function(1)
        drain.drain()
    assert len(results.durations("works")) == 3
    assert [r.args[0] for r in caplog.records] == ["sink BrokenSink"]  # type: ignore[index]


def test_a_sink_that_fails_does_not_affect_the_call_that_flushes(
    without_raise_faults: None, results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    drain.set_sinks((BrokenSink(), results))
    for _ in range(drain.PENDING_BOUND * 2):
        with stage("many"):
            pass
    assert sum(len(b.durations) for b in results.batches) == drain.PENDING_BOUND * 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_not_an_exception_is_raised_further(
    error: type[BaseException], without_raise_faults: None, results: Results
) -> None:
    """Also inside our own work, where a signal handler may raise it."""

    class Interrupted(Tracing):
        def _do(self, what: str) -> None:
            if what == "open":
                raise error

    hooks.set_tracing(Interrupted("open"))
    with pytest.raises(error):
        by_function(1)
    assert nothing_current()
    forget()


def test_telemetry_that_fails_to_end_a_span(
    without_raise_faults: None, otel: Otel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise BrokenError

    monkeypatch.setattr(otel.exporter, "export", broken)
    assert by_function(1) == 1
    assert nothing_current()
    (point,) = [
        p
        for p in otel.points("pipeline.stage.duration")
        if p.attributes["pipeline.stage.name"] == "works"
    ]
    assert point.count == 1
