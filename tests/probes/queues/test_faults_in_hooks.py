"""Test errors under the queue's lock: internal ones, a signal handler's, an interrupt."""

from __future__ import annotations

import logging.handlers
import queue as thread_queue
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock, errors, series
from otel_pipeline_metrics._probes.queues import probe
from tests.probes.queues.test_faults_at_queues import broken
from tests.probes.queues.test_stamps import KINDS, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stages.conftest import Otel


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    series.process_scope.queues.clear()


def test_an_error_under_the_lock_is_logged_when_the_lock_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log may go to this very queue."""
    errors.raise_faults = False
    q: Any = opm.wrap_queue(thread_queue.Queue(), name="q")
    handler = logging.handlers.QueueHandler(q)
    errors.logger.standard.addHandler(handler)
    monkeypatch.setattr(series.RunScope, "add_queue", broken)
    try:
        thread = threading.Thread(target=q.put, args=("item",), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    finally:
        errors.logger.standard.removeHandler(handler)
    assert q.get() == "item"
    assert "counting the items of a queue" in q.get().getMessage()


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="POSIX only")
def test_an_error_of_a_signal_handler_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*args: Any) -> None:
        raise TimeoutError

    errors.raise_faults = False
    q: Any = opm.wrap_queue(thread_queue.Queue(), name="q")
    q.put(1)
    before = signal.signal(signal.SIGALRM, give_up)
    monkeypatch.setattr(clock, "now", lambda: signal.raise_signal(signal.SIGALRM))
    try:
        with pytest.raises(TimeoutError):
            q._opm_queue.get()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_a_put_passes_through(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an `Exception` is kept for the log, and later counts are right."""
    q: Any = opm.wrap_queue(kind(), name="q")

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(series.RunScope, "add_queue", interrupted)
        with pytest.raises(KeyboardInterrupt):
            q.put_nowait(1)
    q.put_nowait(2)
    assert {q.get_nowait(), q.get_nowait()} == {1, 2}
    assert (counted().put, counted().got) == (1, 2)


class Chatty:
    """An item that uses another queue whenever it is compared."""

    def __init__(self, use: Callable[[Any], Any]) -> None:
        self.use = use

    def __lt__(self, _: Any) -> bool:
        self.use(self)
        return True


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_put_within_a_put_keeps_both_producers(wrapped: bool, otel: Otel) -> None:
    """Each put has its own producer, and a put by a raw reference has none."""
    raw: Any = thread_queue.Queue()
    other = opm.wrap_queue(raw, name="other")
    q: Any = opm.wrap_queue(thread_queue.PriorityQueue(), name="q")
    with opm.stage("make"):
        other.put("first")
        other.get()
        for _ in range(2):
            q.put(Chatty((other if wrapped else raw).put))
    with opm.stage("use"):
        q.get()
        q.get()
    with opm.stage("use other"):
        other.get()
    assert len(otel.span("use").links) == 2
    assert len(otel.span("use other").links) == wrapped
    assert probe.putting.get() is probe.getting.get() is None


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_get_within_a_get_keeps_both_links(wrapped: bool, otel: Otel) -> None:
    raw: Any = thread_queue.Queue()
    other: Any = opm.wrap_queue(raw, name="other")
    q: Any = opm.wrap_queue(thread_queue.PriorityQueue(), name="q")
    items = [Chatty(lambda _: None) for _ in range(6)]
    with opm.stage("make"):
        for n in range(9):
            other.put(n)
        for item in items[1:]:
            q.put(item)
    q._opm_queue.put(items[0])
    get = (other if wrapped else raw).get_nowait
    for item in items:
        item.use = lambda _: None if raw.empty() else get()
    names = []
    for n in range(6):
        with opm.stage(f"use {n}"):
            q.get()
        links = [dict(link.attributes or {}) for link in otel.span(f"use {n}").links]
        names.append([link["pipeline.queue.name"] for link in links])
    # the item that was put by a raw reference has no link, whatever other gets ran meanwhile
    gone = 9 - raw.qsize()
    assert gone > 1
    expected = ["other"] * (gone if wrapped else 0) + ["q"] * 5
    assert expected == sorted(name for found in names for name in found)


class Escorted(thread_queue.Queue[Any]):
    """A subclass that puts an item of its own before each."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put("before", block, timeout)
        super().put(item, block, timeout)


def test_an_item_that_a_subclass_puts_itself_has_no_producer(otel: Otel) -> None:
    q = opm.wrap_queue(Escorted(), name="q")
    with opm.stage("make"):
        q.put("item")
    for name in ("first", "second"):
        with opm.stage(name):
            q.get()
    assert (len(otel.span("first").links), len(otel.span("second").links)) == (0, 1)
    assert (counted().put, counted().got) == (2, 2)
