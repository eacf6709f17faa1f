"""Format numbers, spans and points for people."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import metric_definitions

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


_SCALES: Final = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s"))
_MINUTE: Final = 60
_HOUR: Final = 3600
_KIB: Final = 1024.0


def clock(unix_s: float) -> str:
    """Return the local time of day to the millisecond."""
    milliseconds = int(unix_s * 1000) % 1000
    return f"{time.strftime('%H:%M:%S', time.localtime(unix_s))}.{milliseconds:03d}"


def duration(seconds: float) -> str:
    """Return `812 ns`, `812 µs`, `3.2 ms`, `1.2 s`, `2m 03s` or `1h 02m`."""
    if seconds == 0:
        return "0 s"
    for below, factor, unit in _SCALES:
        if abs(seconds) < below:
            return f"{_three(seconds * factor)} {unit}"
    if abs(seconds) < _HOUR:
        return f"{int(seconds // _MINUTE)}m {int(seconds % _MINUTE):02d}s"
    return f"{int(seconds // _HOUR)}h {int(seconds % _HOUR // _MINUTE):02d}m"


def _three(value: float) -> str:
    """Return about three digits: 3.2, 32.1, 321."""
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def number(value: float) -> str:
    """Return a count with thousands separators, or a fraction with four digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"


def size(value: float) -> str:
    """Return bytes in the largest binary unit that gives a number above 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < _KIB:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:,.1f} TiB"


def quantity(value: float, unit: str, name: str = "") -> str:
    """Return `value` with its UCUM unit in words."""
    if name == metric_definitions.RUN_LAST_SUCCESS.name:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if unit == "s":
        return duration(value)
    if unit == "ms":
        return duration(value / 1000)
    if unit == "By":
        return size(value)
    if unit.startswith("{") and unit.endswith("}"):
        return f"{number(value)} {_counted(unit[1:-1], value)}"
    return number(value) if unit in {"", "1"} else f"{number(value)} {unit}"


def _counted(noun: str, value: float) -> str:
    noun = noun.replace("_", " ")
    if value == 1 or not noun:
        return noun
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun}s"


def attributes(given: Mapping[str, Any] | None, *, hide: bool = False) -> str:
    """Return `items_out=20 error.type=ValueError`; `hide` omits what a span's line has."""
    shown = []
    for key, value in (given or {}).items():
        if hide and key in _HIDDEN:
            continue
        text = (
            size(value)
            if key in {metric_definitions.STAGE_IO_IN, metric_definitions.STAGE_IO_OUT}
            else str(value)
        )
        text = text.replace("\n", "\\n")
        if len(text) > MAX_VALUE_LENGTH:
            text = f"{text[: MAX_VALUE_LENGTH - 1]}…"
        shown.append(f"{_SHORT.get(key, key)}={text}")
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
    parts = [f"count {number(point.count)}", f"avg {quantity(average, unit)}"]
    for label, share in (("p50", 0.5), ("p95", 0.95)):
        if buckets:
            parts.append(f"{label} ~{quantity(quantile(buckets, share, low, high), unit)}")
    return "  ".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned columns with two blanks between them."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
