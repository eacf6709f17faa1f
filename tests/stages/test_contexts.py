"""Test calls that end in another context than they began in, as trampolines cause."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import drain
from tests.stages.support import in_flight, nothing_current, sample_no_more

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


class Step:
    """Awaits one step of the code that drives the coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def two_steps() -> list[int]:
    """Return after one more step."""
    await Step()
    return [1, 2]


def drive(coroutine: Any) -> Any:
    """Run each step in a context of its own."""
    contextvars.copy_context().run(coroutine.send, None)
    with pytest.raises(StopIteration) as stopped:
        contextvars.copy_context().run(coroutine.send, None)
    return stopped.value.value


def test_such_a_call_is_measured(results: Results, clock: Clock) -> None:
    """Its duration and items count, and nothing of it stays current."""
    for items in (None, len):
        coroutine = stage("moved", items=items)(two_steps)()
        contextvars.copy_context().run(coroutine.send, None)
        clock.advance(3.0)
        with pytest.raises(StopIteration):
            contextvars.copy_context().run(coroutine.send, None)
        assert nothing_current()
    assert results.durations("moved") == [3.0, 3.0]
    assert results.sizes("moved") == [2]


def test_such_a_call_is_measured_where_it_is_no_sample(results: Results, clock: Clock) -> None:
    moved = stage("moved")(two_steps)
    asyncio.run(moved())
    drain.drain()
    results.batches.clear()
    sample_no_more()
    coroutine = moved()
    contextvars.copy_context().run(coroutine.send, None)
    clock.advance(3.0)
    with pytest.raises(StopIteration):
        contextvars.copy_context().run(coroutine.send, None)
    assert (results.durations("moved"), in_flight("moved")) == ([3.0], 0)


def test_such_a_call_ends_its_span(otel: Otel, caplog: pytest.LogCaptureFixture) -> None:
    """No warning about a context that cannot be detached is logged."""
    assert drive(stage("moved")(two_steps)()) == [1, 2]
    assert drive(stage("moved", items=len)(two_steps)()) == [1, 2]
    assert [span.name for span in otel.spans()] == ["moved", "moved"]
    assert all(span.end_time is not None for span in otel.spans())
    assert nothing_current()
    assert not caplog.records
