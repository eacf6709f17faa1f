"""Put and get at queues of other libraries and processes, and count a wait if there is one."""

from __future__ import annotations

import queue as thread_queue
from typing import Any

from otel_pipeline_metrics._probes.queues.probe import Probe, QueueWait


def put_or_wait(queue: Any, probe: Probe, item: Any, block: bool, timeout: float | None) -> None:
    """Put an item into a process queue; count a wait if the queue is full."""
    if not block or not may_block(timeout):
        queue.put(item, block, timeout)
        return
    try:
        queue.put(item, False)
    except thread_queue.Full:
        pass
    else:
        return
    with QueueWait(probe, "blocked", None):
        queue.put(item, True, timeout)


def get_or_wait(queue: Any, probe: Probe, block: bool, timeout: float | None) -> Any:
    """Return an item of a thread or process queue; count a wait if the queue is empty."""
    if not block or not may_block(timeout):
        return queue.get(block, timeout)
    try:
        return queue.get(False)
    except thread_queue.Empty:
        # the wait is outside of this block, so that its own error has no context
        pass
    with QueueWait(probe, "idle", None):
        return queue.get(True, timeout)


def may_block(timeout: Any) -> bool:
    """Tell whether a get or put with this timeout may wait and raises no error for it."""
    try:
        return timeout is None or bool(timeout >= 0)
    except TypeError:
        return False
