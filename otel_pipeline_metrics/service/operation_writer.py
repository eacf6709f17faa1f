"""Write operations to files in a thread, at each interval or as soon as a file is full."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import clock, errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.service.operation_files import OperationFiles
    from otel_pipeline_metrics.service.operation_queue import OperationQueue


class OperationWriter:
    """A daemon thread that writes what a queue holds, until `finish()`.

    An event loop that is held up does not hold up the files, and a disk that hangs does not hold
    up the loop.

    Args:
        queue: holds the operations.
        files: the folder.
        interval_s: the longest time between two files while there are operations.
    """

    def __init__(self, queue: OperationQueue, files: OperationFiles, interval_s: float) -> None:
        self._queue = queue
        self._files = files
        self._interval_s = interval_s
        # `SimpleQueue.put` may be called by a signal handler in the middle of another `put`
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        self._on_done: list[Callable[[], None]] = []
        self._done = threading.Event()
        self.batches = 0
        # in ISO 8601: the time of the last file
        self.last_flush: str | None = None
        # why the last attempt failed; None if it did not
        self.failure: str | None = None
        self._thread = threading.Thread(
            target=self._run, name="otel-pipeline-metrics-operations", daemon=True
        )

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system refuses a thread.
        """
        self._thread.start()

    def wake(self) -> None:
        """Make the thread look at the queue."""
        self._wakes.put(None)

    def finish(self, on_done: Callable[[], None] | None = None) -> None:
        """Write everything, then end.

        Args:
            on_done: called by the thread at its end, or at once if it has ended.
        """
        if on_done is not None:
            self._on_done.append(on_done)
        self._stopping = True
        self.wake()
        if self._done.is_set() and on_done is not None:
            on_done()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; tell whether it came."""
        return self._done.wait(timeout_s)

    def _run(self) -> None:
        try:
            self._files.sweep()
            due = clock.monotonic() + self._interval_s
            while not self._stopping:
                with errors.suppress_errors("writing operations"):
                    due = self._wait_and_write(due)
            with errors.suppress_errors("writing the last operations"):
                self._write_all()
        finally:
            self._queue.close()
            left = self._queue.give_up()
            if left:
                errors.logger.warning(
                    "%d operations could not be written to %s (%s); they are counted as dropped",
                    left,
                    self._files.directory,
                    self.failure or "an internal error",
                )
            self._done.set()
            for call in self._on_done:
                call()

    def _wait_and_write(self, due: float) -> float:
        """Sleep until there is something to write, and write it; return the next interval."""
        self._sleep(due - clock.monotonic())
        if self._stopping:
            return due
        if clock.monotonic() >= due:
            due = clock.monotonic() + self._interval_s
            self._write_all()
        elif self.failure is None:
            # a folder that cannot be written to is tried again at the next interval
            while self._queue.has_batch() or self._queue.is_awaited:
                if not self._write_batch():
                    break
        return due

    def _sleep(self, seconds: float) -> None:
        try:
            self._wakes.get(timeout=max(0.0, seconds))
            while True:
                self._wakes.get_nowait()
        except Empty:
            return

    def _write_all(self) -> None:
        left = self._queue.counts().waiting
        while left > 0:
            before, left = left, left - self._write_batch()
            if left == before:
                return

    def _write_batch(self) -> int:
        """Write one file; return how many operations it has, 0 if there are none or it failed."""
        batch = self._queue.take()
        if not batch:
            return 0
        try:
            # once the queue has the next file's worth, being in time matters more
            at = self._files.write(batch, sync=not self._queue.has_batch())
        except OSError as error:
            self._queue.put_back(batch)
            self._failed(error)
            return 0
        except BaseException:
            self._queue.discard(len(batch))
            raise
        self._queue.written(len(batch))
        self.batches += 1
        self.last_flush = at
        if self.failure is not None:
            self.failure = None
            errors.logger.info("operations are written to %s again", self._files.directory)
        with errors.suppress_errors("removing old operations"):
            self._limit()
        return len(batch)

    def _limit(self) -> None:
        try:
            self._queue.lost(self._files.limit())
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.failure = error.strerror or type(error).__name__
        errors.warn_once(
            f"operations {self._files.directory} {self.failure}",
            "operations cannot be written to %s (%s); it is tried again at each interval, and "
            "those for which there is no room meanwhile are counted as dropped",
            self._files.directory,
            self.failure,
        )
