"""Sum up a folder of operations: how many, how long, how many failed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.distribution import Distribution
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics.service.operation_files import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Row(NamedTuple):
    """The operations of one type and name; durations are in seconds."""

    operation_type: str
    operation_name: str
    errors: int
    durations: Distribution


class Summary(NamedTuple):
    """What a folder holds."""

    # whole files, and those that look like ours and cannot be read
    files: int
    unreadable: int
    size: int
    # the time of the first and of the last operation, in ISO 8601
    first: str | None
    last: str | None
    # those that took the most time in all come first
    rows: list[Row]

    def render(self) -> str:
        """Return the summary as people read it."""
        count = sum(row.durations.count for row in self.rows)
        held = text.counted(count, "operation"), text.counted(self.files, "file")
        lines = [f"{held[0]} in {held[1]}, {text.size(self.size)}"]
        if self.first is not None:
            lines.append(f"from {self.first} to {self.last}")
        if self.unreadable:
            lines.append(f"{text.counted(self.unreadable, 'file')} could not be read")
        if self.rows:
            head = ("type", "name", "count", "errors", "total", "p50", "p95", "p99", "max")
            lines += ["", text.table(head, [_cells(row) for row in self.rows], left=2)]
        return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    whole = row.durations
    found = whole.sketch.percentiles(None, whole.max_s)
    return [
        row.operation_type,
        row.operation_name,
        text.number(whole.count),
        f"{row.errors:,} ({text.percent(ratio(row.errors, whole.count))})",
        *map(text.duration, (whole.total_s, found["p50"], found["p95"], found["p99"], whole.max_s)),
    ]


def summarise(directory: Path) -> Summary:
    """Read every file of a folder, one at a time.

    Raises:
        OSError: the folder cannot be read.
    """
    rows: dict[tuple[str, str], Row] = {}
    times: list[str] = []
    files = unreadable = size = 0
    for file, records in read_all(directory):
        if records is None:
            unreadable += 1
            continue
        files += 1
        size += file.size
        times = _add(rows, records, times)
    found = sorted(rows.values(), key=lambda row: -row.durations.total_s)
    first, last = (times[0], times[-1]) if times else (None, None)
    return Summary(files, unreadable, size, first, last, found)


def _add(
    rows: dict[tuple[str, str], Row], records: Iterable[dict[str, Any]], times: list[str]
) -> list[str]:
    """Add records; return the first and the last time of all of them."""
    by_name: dict[tuple[str, str], list[float]] = {}
    for record in records:
        key = (str(record.get("operation_type")), str(record.get("operation_name")))
        row = rows.get(key)
        if row is None:
            row = rows[key] = Row(*key, 0, Distribution())
        if record.get("success") is False:
            rows[key] = row._replace(errors=row.errors + 1)
        by_name.setdefault(key, []).append(_seconds(record.get("duration_ms")))
        if isinstance(record.get("timestamp"), str):
            times = sorted([*times, record["timestamp"]])
            times = [times[0], times[-1]]
    for key, durations in by_name.items():
        rows[key].durations.add_sorted(sorted(durations))
    return times


def _seconds(milliseconds: object) -> float:
    """Return a record's duration; one without, which another program wrote, counts as 0."""
    if not isinstance(milliseconds, (int, float)) or not 0 <= milliseconds < math.inf:
        return 0.0
    return milliseconds / 1000
