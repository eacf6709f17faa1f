"""What merged reports know of their runs: which they were, when, and in which processes.

Each list has a bound, so the report of ten thousand runs is no larger than that of a few.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import number, whole
from otel_pipeline_metrics.report.merge_rules import Data, sums_by_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


_MAX_IDS: Final = 16
_MAX_SPANS: Final = 8
_MAX_PROCESSES: Final = 4

# parts of the telemetry that a process counts over all its runs
_OF_A_PROCESS: Final = ("spans", "metric_points", "replayed", "guards")

# keys of the telemetry that `Processes` writes
OF_PROCESSES: Final = frozenset({"process", "processes", *_OF_A_PROCESS})

# keys of a run that `Runs` and `Spans` write
WRITTEN_AT_THE_END: Final = frozenset({"started", "wall_s", "spans", "merged_from"})


def runs_in(run: Mapping[str, Any]) -> int:
    """Return how many runs a report's part `run` is of."""
    return whole(run, "merged_runs") or len(run.get("merged_from") or ()) or 1


class Runs:
    """The ids of the runs, of which each may be there once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._latest: list[str | None] = []

    def add(self, run: Data) -> None:
        """Take the ids of one report.

        Raises:
            ValueError: one of them was there before.
        """
        for one in run.get("merged_from") or [run.get("id")]:
            if one in self._seen:
                raise ValueError(f"the report of run {one!r} is there twice")
            if one:
                self._seen.add(one)
            self._latest.append(one)
        del self._latest[:-_MAX_IDS]

    def to_dict(self) -> Data:
        """Return the latest ids."""
        return {"merged_from": self._latest}


class Spans:
    """The time that runs cover: runs at the same time count once, gaps do not."""

    def __init__(self) -> None:
        self._known = True
        self._base: datetime | None = None
        # (begin, end, seconds covered between them), relative to `_base`
        self._spans: list[tuple[float, float, float]] = []

    def add(self, run: Data, observed_s: float | None) -> None:
        """Take the time of one report, whose runs lasted `observed_s` together."""
        started, wall_s = run.get("started"), number(run, "wall_s")
        if not isinstance(started, str) or wall_s is None:
            self._known = False
            return
        begin = _instant(started)
        self._base = self._base or begin
        offset = (begin - self._base).total_seconds()
        covered = wall_s if observed_s is None else min(wall_s, observed_s)
        for first, last, inside in run.get("spans") or [(0.0, wall_s, covered)]:
            self._spans.append((offset + first, offset + last, inside))

    def to_dict(self) -> Data:
        """Return the earliest start, the seconds covered, and when they were."""
        if not self._known or self._base is None:
            return {"started": None, "wall_s": None, "spans": None}
        spans = self._joined()
        begin = spans[0][0]
        started = self._base + timedelta(seconds=begin)
        return {
            "started": started.isoformat(),
            "wall_s": sum(covered for _, _, covered in spans),
            "spans": [[first - begin, last - begin, covered] for first, last, covered in spans],
        }

    def _joined(self) -> list[tuple[float, float, float]]:
        joined: list[tuple[float, float, float]] = []
        for span in sorted(self._spans):
            if joined and span[0] <= joined[-1][1]:
                joined[-1] = _join(joined[-1], span)
            else:
                joined.append(span)
        # too many to keep apart: the shortest gaps are given up, and what was covered is kept
        after = range(1, len(joined))
        gaps = sorted(after, key=lambda index: joined[index][0] - joined[index - 1][1])
        apart = {0, *gaps[-_MAX_SPANS + 1 :]}
        kept: list[tuple[float, float, float]] = []
        for index, span in enumerate(joined):
            if index in apart:
                kept.append(span)
            else:
                kept[-1] = _join(kept[-1], span)
        return kept


def _join(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    end = max(first[1], second[1])
    return first[0], end, min(end - first[0], first[2] + second[2])


def _instant(started: str) -> datetime:
    """Return the instant of an ISO 8601 text; Python 3.10 does not know `Z`."""
    found = datetime.fromisoformat(started.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class Processes:
    """The telemetry of each process once, from its latest run, which has the most."""

    def __init__(self) -> None:
        self._latest: dict[Hashable, Data] = {}

    def add(self, telemetry: Data) -> None:
        """Take the counts of one report."""
        for one in telemetry.get("processes") or [telemetry]:
            counts = {name: one.get(name) for name in ("process", *_OF_A_PROCESS)}
            # counts without a process id are taken for a process of their own
            key = one.get("process") or len(self._latest)
            if key not in self._latest or _created(self._latest[key]) < _created(counts):
                self._latest[key] = counts

    def to_dict(self) -> dict[str, Any]:
        """Return the sums, and the counts of each of a few processes or of all together."""
        found = list(self._latest.values())
        sums = {name: sums_by_key([one[name] for one in found]) for name in _OF_A_PROCESS}
        if len(found) > _MAX_PROCESSES:
            found = [{"process": None, **sums}]
        return {**sums, "processes": found}


def _created(counts: Data) -> int:
    return sum(whole(counts, kind, "created") or 0 for kind in ("spans", "metric_points"))
