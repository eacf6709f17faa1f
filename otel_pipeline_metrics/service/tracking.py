"""Put operations into a manager's queue, and time those that are tracked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, privacy
from otel_pipeline_metrics._core.records import outcome_of
from otel_pipeline_metrics.service.activity import activity, error_type_of
from otel_pipeline_metrics.service.operation import (
    Operation,
    checked_metadata,
    checked_operation,
)
from otel_pipeline_metrics.service.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.service.manager import MetricsManager
    from otel_pipeline_metrics.service.operation_queue import OperationQueue


async def put(queue: OperationQueue, operation: Operation, error_type: str | None) -> None:
    """Put an operation into the queue, and measure it; wait for room if the queue says so.

    Raises:
        RuntimeError: the queue is closed.
        asyncio.QueueFull: it is full, and raises then.
    """
    while queue.offer(operation) is False:
        if queue.overflow == "raise":
            raise asyncio.QueueFull
        room = queue.wait_for_room(asyncio.get_running_loop())
        try:
            await room
        except BaseException:
            queue.forget(room)
            raise
    measure(operation, error_type)


def measure(operation: Operation, error_type: str | None) -> None:
    """Report an operation as a value of `pipeline.operation.duration`."""
    with errors.suppress_errors("measuring an operation"):
        activity.record(
            operation.operation_type,
            operation.operation_name,
            operation.duration_ms / 1000,
            error_type,
        )


def tracker(
    manager: MetricsManager,
    queue: OperationQueue,
    operation_type: str,
    operation_name: str,
    metadata: Mapping[str, Any] | None,
) -> Tracker:
    """Return what `MetricsManager.track_operation` does.

    Raises:
        ValueError: a value is wrong, or a key of the metadata is forbidden.
    """
    checked_operation(operation_type, operation_name, 0)
    kept = checked_metadata(metadata)

    def ended(seconds: float, error: BaseException | None) -> tuple[Operation, str | None]:
        failed = error is not None and outcome_of(error) != "abandoned"
        error_type = error_type_of(error) if error is not None and failed else None
        operation = Operation(
            operation_type,
            operation_name,
            1000 * max(0.0, seconds),
            clock.unix(),
            not failed,
            privacy.sanitized_message(error) or error_type if failed else None,
            kept,
        )
        return operation, error_type

    def drop() -> None:
        queue.drop()
        if not manager.is_running:
            errors.warn_once(
                f"manager stopped {manager.storage_path}",
                "track_operation() is used while the MetricsManager of %s is not running: the "
                "operations are in the metrics, and in no file",
                manager.storage_path,
            )

    def report(seconds: float, error: BaseException | None) -> None:
        operation, error_type = ended(seconds, error)
        if not queue.is_open or queue.offer(operation) is False:
            drop()
        measure(operation, error_type)

    async def report_async(seconds: float, error: BaseException | None) -> None:
        if queue.overflow != "block" or not queue.is_open:
            report(seconds, error)
            return
        operation, error_type = ended(seconds, error)
        try:
            await put(queue, operation, error_type)
        except BaseException as refused:
            drop()
            measure(operation, error_type)
            if not isinstance(refused, RuntimeError):  # which means: stopped meanwhile
                raise

    return Tracker(report, report_async)
