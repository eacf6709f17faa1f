"""The metrics that the SDK's batch processor reports of itself, of ours."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from otel_pipeline_metrics._export.environment_checks import is_true

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import CallbackOptions


# the SDK reports its own metrics only with this variable
_ENABLED: Final = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
_TYPE: Final = "batching_span_processor"
_NAME: Final = "otel.sdk.processor.span"
_numbers = itertools.count()


class ProcessorMetrics:
    """`otel.sdk.processor.span.*` of the semantic conventions, for one processor."""

    def __init__(self, capacity: int, length: Callable[[], int]) -> None:
        self._attributes: dict[str, Any] = {
            "otel.component.type": _TYPE,
            "otel.component.name": f"{_TYPE}/{next(_numbers)}",
        }

        def read_length(_: CallbackOptions) -> list[Observation]:
            return [Observation(length(), self._attributes)]

        meter = metrics.get_meter("opentelemetry-sdk")
        self._processed = meter.create_counter(f"{_NAME}.processed", "{span}")
        meter.create_observable_up_down_counter(f"{_NAME}.queue.size", [read_length], "{span}")
        meter.create_up_down_counter(f"{_NAME}.queue.capacity", "{span}").add(
            capacity, self._attributes
        )

    def exported(self, count: int) -> None:
        self._processed.add(count, self._attributes)

    def dropped(self, count: int) -> None:
        """Count spans that a full queue dropped."""
        if count > 0:
            self._processed.add(count, {**self._attributes, "error.type": "queue_full"})


def of_processor(capacity: int, length: Callable[[], int]) -> ProcessorMetrics | None:
    """Return the metrics of a processor if they are wanted."""
    return ProcessorMetrics(capacity, length) if is_true(os.environ, _ENABLED) else None
