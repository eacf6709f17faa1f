"""Attributes, quantities and histograms as the console prints them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import metric_definitions, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


MAX_VALUE_LENGTH: Final = 60
_HIDDEN: Final = {
    metric_definitions.STAGE_NAME,
    metric_definitions.STAGE_KIND,
    metric_definitions.STAGE_OUTCOME,
    metric_definitions.PIPELINE_NAME,
    metric_definitions.RUN_RESULT,
}


# where a function is, and the verdict, which the summary tells
_HIDDEN_PARTS: Final = ("code.", "pipeline.bottleneck.")

_SHORT: Final = {
    metric_definitions.PIPELINE_NAME: "pipeline",
    metric_definitions.STAGE_NAME: "stage",
    metric_definitions.STAGE_KIND: "kind",
    metric_definitions.STAGE_STATE: "state",
    metric_definitions.STAGE_ITEMS_IN: "items_in",
    metric_definitions.STAGE_ITEMS_OUT: "items_out",
    metric_definitions.STAGE_IO_IN: "bytes_in",
    metric_definitions.STAGE_IO_OUT: "bytes_out",
    metric_definitions.IO_DIRECTION: "direction",
    metric_definitions.BATCH_SIZE: "batch_size",
    metric_definitions.QUEUE_NAME: "queue",
    metric_definitions.CACHE_NAME: "cache",
    metric_definitions.CACHE_REQUEST_TYPE: "type",
    metric_definitions.RUN_ID: "run",
    metric_definitions.RUN_RESULT: "result",
}


def clock(unix_s: float) -> str:
    """Return the local time of day to the millisecond."""
    milliseconds = int(unix_s * 1000) % 1000
    return f"{time.strftime('%H:%M:%S', time.localtime(unix_s))}.{milliseconds:03d}"


def quantity(value: float, unit: str, name: str = "") -> str:
    """Return `value` with its UCUM unit in words."""
    if name == metric_definitions.RUN_LAST_SUCCESS.name:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if unit == "s":
        return text.duration(value)
    if unit == "ms":
        return text.duration(value / 1000)
    if unit == "By":
        return text.size(value)
    if unit.startswith("{") and unit.endswith("}"):
        return text.counted(value, unit[1:-1].replace("_", " "))
    return text.number(value) if unit in {"", "1"} else f"{text.number(value)} {unit}"


def attributes(given: Mapping[str, Any] | None, *, hide: bool = False) -> str:
    """Return `items_out=20 error.type=ValueError`; `hide` omits what a span's line has."""
    shown = []
    for key, value in (given or {}).items():
        if hide and (key in _HIDDEN or key.startswith(_HIDDEN_PARTS)):
            continue
        printed = (
            text.size(value)
            if key in {metric_definitions.STAGE_IO_IN, metric_definitions.STAGE_IO_OUT}
            else str(value)
        ).replace("\n", "\\n")
        if len(printed) > MAX_VALUE_LENGTH:
            printed = f"{printed[: MAX_VALUE_LENGTH - 1]}…"
        shown.append(f"{_SHORT.get(key, key)}={printed}")
    return " ".join(shown)


# lower bound, upper bound, number of values
Bucket = tuple[float, float, int]


def explicit_buckets(
    bounds: Sequence[float], counts: Sequence[int], low: float, high: float
) -> Iterator[Bucket]:
    """Yield the buckets of an explicit histogram; its extremes bound the outer ones."""
    edges = [min(low, bounds[0] if bounds else low), *bounds, max(high, *bounds[-1:], low)]
    yield from zip(edges, edges[1:], counts, strict=False)


def exponential_buckets(point: Any) -> Iterator[Bucket]:
    """Yield the buckets of an exponential histogram in ascending order."""
    base = 2.0 ** (2.0**-point.scale)
    negative, positive = point.negative, point.positive
    for index in reversed(range(len(negative.bucket_counts))):
        place = negative.offset + index
        yield -(base ** (place + 1)), -(base**place), negative.bucket_counts[index]
    yield 0.0, 0.0, point.zero_count
    for index, count in enumerate(positive.bucket_counts):
        place = positive.offset + index
        yield base**place, base ** (place + 1), count


def quantile(buckets: Sequence[Bucket], share: float, low: float, high: float) -> float:
    """Return the approximate quantile, interpolated linearly within its bucket."""
    total = sum(count for _, _, count in buckets)
    rank = share * total
    seen = 0
    for start, end, count in buckets:
        if count and seen + count >= rank:
            start, end = max(start, low), min(end, high)  # noqa: PLW2901 - tighter if outermost
            return start + (end - start) * (rank - seen) / count
        seen += count
    return high


def histogram(point: Any, unit: str) -> str:
    """Return `count 200  avg 3.2 ms  p50 ~2.9 ms  p95 ~8.1 ms` for a histogram point."""
    if not point.count:
        return "count 0"
    average = point.sum / point.count
    low = point.min if math.isfinite(point.min) else average
    high = point.max if math.isfinite(point.max) else average
    buckets = list(
        explicit_buckets(point.explicit_bounds, point.bucket_counts, low, high)
        if hasattr(point, "explicit_bounds")
        else exponential_buckets(point)
    )
    parts = [f"count {text.number(point.count)}", f"avg {quantity(average, unit)}"]
    for label, share in (("p50", 0.5), ("p95", 0.95)):
        if buckets:
            parts.append(f"{label} ~{quantity(quantile(buckets, share, low, high), unit)}")
    return "  ".join(parts)
