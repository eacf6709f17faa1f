"""Check that bulk recording gives the same points as the SDK's `record()`."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.environment_variables import OTEL_PIPELINE_METRICS_FOLD
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import (
    CounterSeries,
    HistogramSeries,
    Instrument,
)

_INTERNAL: Final = "opentelemetry.sdk.metrics._internal"


# the result of the comparison; None before it was made
_works: bool | None = None


def is_supported() -> bool:
    """Tell whether bulk recording gives the same points on the installed SDK."""
    global _works
    if os.environ.get(OTEL_PIPELINE_METRICS_FOLD, "").strip().lower() == "false":
        return False
    if _works is None:
        if _INTERNAL not in sys.modules:
            return False
        works = False
        try:
            works = _same_points()
        except Exception as error:  # an unknown SDK is not an internal error
            if errors.from_signal_handler(error):
                raise  # nothing is known yet
        if not works:
            errors.logger.info("the metrics of this OpenTelemetry SDK are recorded one by one")
        _works = works
    return _works


def _same_points() -> bool:
    from opentelemetry.sdk.metrics import Counter as SdkCounter
    from opentelemetry.sdk.metrics import Histogram as SdkHistogram
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

    # more values than an explicit histogram has bounds, as those are counted differently
    values = [0.0, *(n / 4 for n in range(80))]
    attributes = {"check": "bulk", "list": ("a", "b")}
    delta: dict[type, AggregationTemporality] = {
        SdkHistogram: AggregationTemporality.DELTA,
        SdkCounter: AggregationTemporality.DELTA,
    }
    exponential: dict[type, Aggregation] = {SdkHistogram: ExponentialBucketHistogramAggregation()}

    def collected(*, bulk: bool) -> list[tuple[Any, ...]]:
        readers = [
            InMemoryMetricReader(),
            InMemoryMetricReader(preferred_temporality=delta),
            InMemoryMetricReader(preferred_aggregation=exponential),
        ]
        provider = MeterProvider(readers, shutdown_on_exit=False)
        meter = provider.get_meter("check")
        histogram = Instrument(meter.create_histogram("check"), bulk=True)
        counter = Instrument(meter.create_counter("check.sum"), bulk=True)
        points = []
        for series in (HistogramSeries(histogram, attributes), CounterSeries(counter, attributes)):
            for part in (values, values[2:5]):
                series.record_each(part[:1] if bulk else part[:])
                if bulk and not series.bulk_record(part[1:]):
                    raise RuntimeError("private parts are unfamiliar")
                points += [point for reader in readers for point in _points(reader)]
        provider.shutdown()
        return points

    return collected(bulk=True) == collected(bulk=False)


def _points(reader: Any) -> list[tuple[Any, ...]]:
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    return [_point(point) for metric in metrics for point in metric.data.data_points]


def _point(point: Any) -> tuple[Any, ...]:
    if hasattr(point, "value"):
        return (point.value,)
    if hasattr(point, "bucket_counts"):
        return (point.count, point.sum, point.min, point.max, *point.bucket_counts)
    counts = list(point.positive.bucket_counts)
    while counts and not counts[-1]:
        # how many empty buckets follow the last one depends on the order of the values
        counts.pop()
    numbers = (point.count, point.sum, point.min, point.max)
    return (*numbers, point.scale, point.zero_count, point.positive.offset, *counts)
