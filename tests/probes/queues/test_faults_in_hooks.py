"""Errors in what runs under the queue's lock: ours, a signal handler's, an interrupt."""

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
    errors.logger.addHandler(handler)
    monkeypatch.setattr(probe.Probe, "count_put", broken)
    try:
        thread = threading.Thread(target=q.put, args=("item",), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    finally:
        errors.logger.removeHandler(handler)
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
def test_cancelled_or_interrupted_in_a_put(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no `Exception` is nobody's to keep, and what follows is right again."""
    q: Any = opm.wrap_queue(kind(), name="q")

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(probe.Probe, "count_put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            q.put_nowait(1)
    q.put_nowait(2)
    assert {q.get_nowait(), q.get_nowait()} == {1, 2}
    assert (counted().put, counted().got) == (1, 2)


def test_a_producer_is_handed_over_to_its_own_put_alone(otel: Otel) -> None:
    """An item whose comparison puts another one on the way."""
    other: Any = thread_queue.Queue()
    opm.wrap_queue(other, name="other")

    class Chatty:
        def __lt__(self, _: Any) -> bool:
            other.put(self)
            return True

    q: Any = opm.wrap_queue(thread_queue.PriorityQueue(), name="q")
    with opm.stage("make"):
        q.put(Chatty())
        q.put(Chatty())
    with opm.stage("use"):
        q.get()
        q.get()
    assert len(otel.span("use").links) == 2
    assert counted("other").put == 1
    assert probe.putting.get() is probe.getting.get() is None
