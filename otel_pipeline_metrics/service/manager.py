"""`MetricsManager`: keep every operation of a service on disk, and report it as a metric."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from otel_pipeline_metrics._core import cardinality, errors, settings
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import check_count, check_number, check_positive
from otel_pipeline_metrics.service import ending, tracking, watching
from otel_pipeline_metrics.service.known_managers import managers
from otel_pipeline_metrics.service.loop_delays import LoopDelays
from otel_pipeline_metrics.service.operation import (
    checked_operation,
)
from otel_pipeline_metrics.service.operation_files import (
    DAY_S,
    DEFAULT_MAX_AGE_DAYS,
    DEFAULT_MAX_BYTES,
    OperationFiles,
)
from otel_pipeline_metrics.service.operation_queue import OperationQueue, Overflow
from otel_pipeline_metrics.service.operation_writer import OperationWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from otel_pipeline_metrics.service.tracker import Tracker


@dataclass(frozen=True)
class MetricsStats:
    """What became of the operations of one manager.

    `total_recorded = total_persisted + queue_size + dropped`, at any moment, until `max_bytes`
    removes files: their operations count as persisted and as dropped.
    """

    # every operation that was recorded, dropped ones included
    total_recorded: int
    # written to a file
    total_persisted: int
    # waiting for their file, or being written
    queue_size: int
    # files written
    batches_written: int
    # the time of the last file in ISO 8601 (UTC); None before the first
    last_flush_timestamp: str | None
    # operations in a file; None before the first file
    avg_batch_size: float | None
    is_running: bool
    # found the queue full, could not be written by the end, or were in a file that `max_bytes`
    # removed
    dropped: int


class MetricsManager:
    """Keeps the operations of a service in a folder, in files of JSON.

    ```python
    async with MetricsManager("operations") as manager:
        await manager.record_operation("database", "insert", 12.5)
    ```

    A thread writes them, so neither a slow disk nor the encoding holds up the event loop. Each
    operation is also a value of the metric `pipeline.operation.duration`. A forked child starts
    stopped and empty.

    Args:
        storage_path: the folder; it is made if it is missing. Several managers and processes may
            share one.
        flush_interval_seconds: the longest time that an operation waits for its file.
        max_batch_size: operations at which a file is written at once.
        max_queue_size: operations that may wait.
        overflow: what happens to an operation that finds so many waiting. "drop": it is dropped
            and counted; "block": `record_operation` waits; "raise": it raises asyncio.QueueFull.
        max_age_days: files that are older, by the time in their name, are removed.
        max_bytes: the size of all files above which the oldest are removed; their operations are
            counted as dropped.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument has a wrong value.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        storage_path: str | os.PathLike[str],
        flush_interval_seconds: float = 5.0,
        max_batch_size: int = 1000,
        max_queue_size: int = 10000,
        *,
        overflow: Overflow = "drop",
        max_age_days: float = DEFAULT_MAX_AGE_DAYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        if not isinstance(storage_path, (str, os.PathLike)):
            raise TypeError(f"storage_path must be a path, not {type(storage_path).__name__}")
        if not os.fspath(storage_path):
            raise ValueError("storage_path must not be empty")
        if overflow not in get_args(Overflow):
            raise ValueError(
                f"overflow must be one of {', '.join(get_args(Overflow))}, not {overflow!r:.80}"
            )
        self._interval_s = check_positive(flush_interval_seconds, "flush_interval_seconds")
        batch_size = _positive_count(max_batch_size, "max_batch_size")
        queue_size = _positive_count(max_queue_size, "max_queue_size")
        self._max_age_days = check_positive(max_age_days, "max_age_days")
        self._max_bytes = _positive_count(max_bytes, "max_bytes")
        # absolute, as a later chdir must not split the files
        self.storage_path = Path(os.path.abspath(Path(storage_path).expanduser()))  # noqa: PTH100
        try:
            self.storage_path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(
                error.errno, f"storage_path cannot be made: {error.strerror}", str(storage_path)
            ) from None
        self._queue = OperationQueue(
            queue_size, overflow, batch_size, str(self.storage_path), self._wake
        )
        self._writer: OperationWriter | None = None
        # of writers before the present one
        self._batches_before = 0
        self._last_flush: str | None = None
        self.loop_delays = LoopDelays()
        managers.add(self)
        forking.watch(self)

    def after_fork(self) -> None:
        """Be stopped and empty: the parent writes what it recorded."""
        self._queue.after_fork()
        self._writer = None
        self._batches_before, self._last_flush = 0, None
        self.loop_delays = LoopDelays()

    @property
    def is_running(self) -> bool:
        """Whether operations are taken."""
        return self._queue.is_open

    @property
    def failure(self) -> str | None:
        """Why the last file could not be written; None if it was."""
        return None if self._writer is None else self._writer.failure

    @property
    def fullness(self) -> float:
        """How much of the queue is in use, 0 to 1."""
        return self._queue.share

    def counts(self) -> tuple[int, int]:
        """Return how many operations wait, and how many were dropped."""
        counts = self._queue.counts()
        return counts.waiting, counts.dropped

    # --- start and stop ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take operations.

        Raises:
            RuntimeError: the manager is running, or still writes after a `stop()` that timed out.
        """
        if self.is_running:
            raise RuntimeError("the MetricsManager is running already")
        if self._writer is not None and not self._writer.wait(0):
            raise RuntimeError("the MetricsManager is still writing after its last stop()")
        self._note_writer()
        files = OperationFiles(self.storage_path, self._max_age_days, self._max_bytes)
        writer = OperationWriter(self._queue, files, self._interval_s)
        writer.start()
        self._writer = writer
        self._queue.open()
        with errors.suppress_errors("starting a manager"):
            watching.watch()
            ending.watch(self)
            self.loop_delays.start()

    async def stop(self, timeout: float | None = 10.0) -> None:
        """Write what waits, and take no more operations; without effect if it is not running.

        Args:
            timeout: seconds that this may take; None: as long as the disk does.

        Raises:
            asyncio.TimeoutError: it took longer. What is left is counted as dropped; a file that
                is being written may still appear, and then counts as persisted.
            ValueError: the timeout is negative.
        """
        limit = None if timeout is None else check_number(timeout, "timeout")
        writer = self._writer
        if writer is None or not self.is_running:
            return
        self._queue.close()
        with errors.suppress_errors("stopping a manager"):
            ending.forget(self)
            self.loop_delays.stop()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finished() -> None:
            if not done.done():
                done.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits
                loop.call_soon_threadsafe(finished)

        writer.finish(tell)
        try:
            await asyncio.wait_for(done, limit)
        except asyncio.TimeoutError:
            left = self._queue.give_up()
            errors.logger.warning(
                "stop() of the MetricsManager took more than %g s: %d operations are counted as "
                "dropped",
                timeout,
                left,
            )
            raise

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Stop; an exception of the block passes, also if stopping takes too long."""
        try:
            await self.stop()
        except asyncio.TimeoutError:
            if error is None:
                raise

    def on_sigterm(self) -> None:
        """Write what waits: the process ends."""
        self.end()

    def end(self) -> None:
        """Write what waits, within the flush timeout: the process ends."""
        writer = self._writer
        if writer is not None and self.is_running:
            self._queue.close()
            writer.finish()
            writer.wait(settings.settings().flush_timeout_s)

    def _wake(self) -> None:
        if self._writer is not None:
            self._writer.wake()

    def _note_writer(self) -> None:
        if self._writer is not None:
            self._batches_before += self._writer.batches
            self._last_flush = self._writer.last_flush or self._last_flush
            self._writer = None

    # --- recording --------------------------------------------------------------------------------

    async def record_operation(
        self,
        operation_type: str,
        operation_name: str,
        duration_ms: float,
        success: bool = True,
        error_message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one operation.

        Args:
            operation_type: its kind, such as "database".
            operation_name: its name, such as "insert".
            duration_ms: how long it took, in milliseconds.
            success: whether it succeeded.
            error_message: why it did not; cut at 1,000 characters, and without the credentials
                of URLs.
            metadata: what else is known of it: a mapping of what JSON has.

        Raises:
            ValueError: a value is wrong, or a key of the metadata is forbidden.
            RuntimeError: the manager is not running.
            asyncio.QueueFull: the queue is full and `overflow` is "raise".
        """
        operation = checked_operation(
            operation_type, operation_name, duration_ms, success, error_message, metadata
        )
        await tracking.put(self._queue, operation, None if success else cardinality.OTHER)

    def record_operation_nowait(
        self,
        operation_type: str,
        operation_name: str,
        duration_ms: float,
        success: bool = True,
        error_message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one operation from any thread, without waiting.

        Arguments and errors are those of `record_operation`; with `overflow="block"` a full queue
        raises asyncio.QueueFull too.
        """
        operation = checked_operation(
            operation_type, operation_name, duration_ms, success, error_message, metadata
        )
        if self._queue.offer(operation) is False:
            raise asyncio.QueueFull
        tracking.measure(operation, None if success else cardinality.OTHER)

    def track_operation(
        self,
        operation_type: str,
        operation_name: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Tracker:
        """Return a context manager and decorator that records what it times as one operation.

        An exception makes the operation fail and passes through; a generator that is closed early
        has not failed. It never raises by itself: an operation that finds the queue full, or the
        manager stopped, is dropped and counted; only `async with` and coroutines wait for room if
        `overflow` is "block".

        Raises:
            ValueError: a value is wrong, or a key of the metadata is forbidden.
        """
        return tracking.tracker(self, self._queue, operation_type, operation_name, metadata)

    async def get_stats(self) -> MetricsStats:
        """Return what became of the operations since the manager was made."""
        counts, writer = self._queue.counts(), self._writer
        batches = self._batches_before + (0 if writer is None else writer.batches)
        return MetricsStats(
            total_recorded=counts.recorded,
            total_persisted=counts.persisted,
            queue_size=counts.waiting,
            batches_written=batches,
            last_flush_timestamp=(writer.last_flush if writer else None) or self._last_flush,
            avg_batch_size=ratio(counts.persisted, batches),
            is_running=self.is_running,
            dropped=counts.dropped,
        )

    async def cleanup(self, days: float = DEFAULT_MAX_AGE_DAYS) -> int:
        """Remove the files that are older than `days`, by the time in their name.

        Only regular files are removed whose name is one of ours and whose `batch_id` is that name.

        Returns:
            How many were removed.

        Raises:
            ValueError: `days` is negative or not a number.
            OSError: the folder cannot be read.
        """
        try:
            age_s = check_number(days, "days") * DAY_S
        except TypeError as error:
            raise ValueError(str(error)) from None
        files = OperationFiles(self.storage_path, self._max_age_days, self._max_bytes)
        return await asyncio.to_thread(files.expire, age_s)


def track_operation(
    manager: MetricsManager,
    operation_type: str,
    operation_name: str,
    metadata: Mapping[str, Any] | None = None,
) -> Tracker:
    """Return what `manager.track_operation` does.

    Raises:
        TypeError: `manager` is not a MetricsManager.
        ValueError: a value is wrong, or a key of the metadata is forbidden.
    """
    if not isinstance(manager, MetricsManager):
        raise TypeError(f"manager must be a MetricsManager, not {type(manager).__name__}")
    return manager.track_operation(operation_type, operation_name, metadata)


def _positive_count(value: int, argument: str) -> int:
    count = check_count(value, argument)
    if not count:
        raise ValueError(f"{argument} must be above 0")
    return count
