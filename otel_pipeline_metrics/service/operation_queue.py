"""Hold operations until they are written, and count what became of each."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otel_pipeline_metrics.service.operation import Operation


Overflow = Literal["drop", "block", "raise"]


class Counts(NamedTuple):
    """What became of all operations: `recorded = persisted + waiting + dropped`."""

    recorded: int
    persisted: int
    # in the queue, or being written
    waiting: int
    dropped: int


class OperationQueue:
    """A bounded queue. Any thread may offer an operation; one thread takes them.

    The lock is held for a few steps at a time, and never while something is written. It is
    re-entrant, since a signal handler may record while its thread does.

    Args:
        size: operations that it holds at most, those being written included.
        overflow: what happens to an operation that finds it full.
        batch_size: operations that make a file.
        name: what warnings call it.
        wake: called if there is something to write.
    """

    def __init__(
        self, size: int, overflow: Overflow, batch_size: int, name: str, wake: Callable[[], None]
    ) -> None:
        self._size = size
        self.overflow = overflow
        self._batch_size = batch_size
        self._name = name
        self._wake = wake
        self.after_fork()

    def after_fork(self) -> None:
        """Start empty and at zero: the parent writes what it recorded."""
        self._lock = threading.RLock()
        self._waiting: deque[Operation] = deque()
        # those who wait for room, with their event loops
        self._rooms: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self.is_open = False
        self._recorded = 0
        self._persisted = 0
        self._dropped = 0
        # of the batch that is being written
        self._in_hand = 0

    def open(self) -> None:
        """Take operations from now on."""
        self.is_open = True

    def close(self) -> None:
        """Take no more; those that wait for room learn it."""
        with self._lock:
            self.is_open = False
            self._give_room()

    def counts(self) -> Counts:
        """Return what became of all operations so far."""
        with self._lock:
            waiting = len(self._waiting) + self._in_hand
            return Counts(self._recorded, self._persisted, waiting, self._dropped)

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return (len(self._waiting) + self._in_hand) / self._size

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._rooms)

    def has_batch(self) -> bool:
        """Whether there are enough operations for a file."""
        return len(self._waiting) >= self._batch_size

    def offer(self, operation: Operation) -> bool | None:
        """Add an operation.

        Returns:
            True if it was added, None if it was dropped and counted, False if it found the
            queue full, which does not drop then: nothing is counted.

        Raises:
            RuntimeError: the queue is closed.
        """
        with self._lock:
            if not self.is_open:
                raise RuntimeError("the MetricsManager is not running: await start() first")
            held = len(self._waiting) + self._in_hand
            if held >= self._size:
                if self.overflow != "drop":
                    return False
                self._recorded += 1
                self._dropped += 1
                return None
            self._recorded += 1
            self._waiting.append(operation)
            # those who still wait for room need a file to be written
            crowded = bool(self._rooms) and held + 1 >= self._size
            full = len(self._waiting) == self._batch_size
        if full or crowded:
            self._wake()
        if 2 * (held + 1) >= self._size:
            self._warn_half_full()
        return True

    def _warn_half_full(self) -> None:
        then = {
            "drop": "further ones are dropped and counted",
            "block": "record_operation() waits",
            "raise": "record_operation() raises asyncio.QueueFull",
        }[self.overflow]
        errors.warn_once(
            f"operations half full {self._name}",
            "half of the %d operations that may wait for their file in %s do so; once all do, %s",
            self._size,
            self._name,
            then,
        )

    def drop(self) -> None:
        """Count an operation that is not offered, since it can neither wait nor raise."""
        with self._lock:
            self._recorded += 1
            self._dropped += 1

    def wait_for_room(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return a future that is done once there is room, or the queue is closed."""
        room: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self.is_open and len(self._waiting) + self._in_hand >= self._size:
                self._rooms[room] = loop
            else:
                room.set_result(None)
        self._wake()
        return room

    def forget(self, room: asyncio.Future[None]) -> None:
        """Forget one who waits no longer; room that was given to it is given to another."""
        with self._lock:
            if self._rooms.pop(room, None) is None:
                self._give_room()

    def take(self) -> list[Operation]:
        """Take a batch, which `written`, `put_back` or `discard` must follow."""
        with self._lock:
            count = min(len(self._waiting), self._batch_size)
            batch = [self._waiting.popleft() for _ in range(count)]
            self._in_hand = count
            return batch

    def written(self, count: int) -> None:
        """Count a batch that is in a file now."""
        with self._lock:
            self._persisted += count
            if self._in_hand:
                self._in_hand = 0
            else:
                # it was given up meanwhile
                self._dropped -= count
            self._give_room()

    def put_back(self, batch: list[Operation]) -> None:
        """Return a batch that could not be written to the front."""
        with self._lock:
            if self._in_hand:
                self._in_hand = 0
                self._waiting.extendleft(reversed(batch))

    def discard(self, count: int) -> None:
        """Count a batch that can never be written as dropped."""
        with self._lock:
            if self._in_hand:
                self._in_hand = 0
                self._dropped += count
            self._give_room()

    def lost(self, count: int) -> None:
        """Count operations of files that were removed for room."""
        with self._lock:
            self._dropped += count

    def give_up(self) -> int:
        """Count everything that waits as dropped; return how many there were."""
        with self._lock:
            left = len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._in_hand = 0
            self._dropped += left
            self._give_room()
            return left

    def _give_room(self) -> None:
        """Tell as many of those who wait as there is room for, the first ones first."""
        free = max(0, self._size - len(self._waiting) - self._in_hand)
        told = list(self._rooms)[: free if self.is_open else None]
        for room in told:
            loop = self._rooms.pop(room)
            # without the loop, no task waits any more
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, room)


def _finish(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
