"""Test what does not count as an item: sentinels, and items that a shutdown drops."""

from __future__ import annotations

import asyncio
import queue as thread_queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import series
from tests.probes.queues.support import play, queue_of, stage_of, states
from tests.probes.queues.test_queue_numbers import waits
from tests.probes.queues.test_stamps import FIRST_OUT, LAST_OUT, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    series.process_scope.queues.clear()


class ThreadQueue(thread_queue.Queue[Any]):
    """A queue with the shutdown of Python 3.13."""

    def shutdown(self, immediate: bool = False) -> None:
        with self.mutex:
            if immediate:
                while self._qsize():
                    self._get()
                    self.unfinished_tasks -= 1


class TaskQueue(asyncio.Queue[Any]):
    """A queue with the shutdown of Python 3.13."""

    def shutdown(self, immediate: bool = False) -> None:
        if immediate:
            while not self.empty():
                self._get()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [ThreadQueue, TaskQueue])
@pytest.mark.parametrize("through", ["raw", "wrapped"])
def test_items_that_a_shutdown_drops_are_not_got(through: str, kind: Any, results: Results) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    for n in range(5):
        q.put_nowait(n)
    q.get_nowait()
    q.shutdown()
    q.get_nowait()
    (raw if through == "raw" else q).shutdown(immediate=True)
    assert q.empty()
    assert (counted().put, counted().got) == (5, 2)
    q.put_nowait(1)
    q.get_nowait()
    assert counted().got == 3
    assert len(waits(results)) == 3


@pytest.mark.parametrize("kind", [*FIRST_OUT, *LAST_OUT, thread_queue.SimpleQueue])
def test_a_sentinel_is_not_counted(kind: Any, clock: Clock, results: Results) -> None:
    q = opm.wrap_queue(kind(), name="q", sentinel=None)
    for item in (1, None):
        q.put_nowait(item)
        clock.advance(1)
    got = [q.get_nowait(), q.get_nowait()]
    assert set(got) == {1, None}
    assert (counted().put, counted().got, waits(results)) == (1, 1, [2.0])


def test_a_sentinel_has_no_producer_and_no_consumer(
    otel: Otel, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q", sentinel=None)
    with make_run() as run:
        with opm.stage("make"):
            q.put(None)
        with opm.stage("use"):
            assert q.get() is None
            clock.advance(1)
        assert q.empty()
        with opm.stage("feed"):
            q.put(1)
        q.get()
    assert otel.span("use").links == ()
    found = queue_of(run, "q")
    assert (found["put"], found["producers"], found["consumers"]) == (1, ["feed"], [])
    # its worker has met a queue
    assert stage_of(run, "use")["share"]["busy"] == 1.0


def test_the_wait_for_a_sentinel_counts(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    q = opm.wrap_queue(asyncio.Queue(), name="q", sentinel=None)

    async def main() -> None:
        asyncio.get_running_loop().call_later(3, q.put_nowait, None)
        with opm.stage("use"):
            assert await q.get() is None

    with make_run() as run:
        play(clock, main())
    assert states(run, "use") == (0.0, 3.0, 0.0)
    assert queue_of(run, "q")["get_waited_s"] == 3.0


def test_a_sentinel_is_known_by_identity_and_there_is_none_by_default() -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q", sentinel=[])
    for item in ([], None, [].copy()):
        q.put(item)
    assert counted().put == 3
    q = opm.wrap_queue(thread_queue.Queue(), name="r")
    q.put(None)
    assert counted("r").put == 1
