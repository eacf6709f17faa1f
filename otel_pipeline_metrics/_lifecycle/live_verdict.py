"""Tell what limits a run while it goes on: as a metric, and in the log when that changes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, text
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.analysis.recent import since
from otel_pipeline_metrics.report.flow import verdict_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # takes kind and name of what limits a run, or None if that is not known
    Tell = Callable[[tuple[str, str | None] | None], None]


# Seconds between two verdicts.
INTERVAL_S: Final = 3.0
# They are about the latest part of the run, of this length.
LOOK_BACK_S: Final = 30.0
# A verdict that comes so often in a row stays.
STAYS: Final = 2


class LiveVerdict:
    """The verdicts on one run in progress.

    Args:
        pipeline: the run's name.
        data: returns what a verdict reads of the run so far.
        tell: takes kind and name of what limits the run, or None.
    """

    def __init__(
        self,
        pipeline: str,
        data: Callable[[], dict[str, Any]],
        tell: Tell,
    ) -> None:
        self._pipeline = pipeline
        self._data = data
        self._tell = tell
        self._due = clock.now() + INTERVAL_S
        self._earlier: deque[dict[str, Any]] = deque()
        # what was told last and how often in a row, and what was in the log or would have been
        self._latest: tuple[str, str | None] | None = None
        self._times = 0
        self._known: tuple[str, str | None] | None = None

    def tick(self) -> None:
        """Come to a verdict if one is due; the sampling thread calls this."""
        if clock.now() < self._due:
            return
        self._due = clock.now() + INTERVAL_S
        now = self._data()
        while len(self._earlier) > 1 and _age(now, self._earlier[1]) >= LOOK_BACK_S:
            self._earlier.popleft()
        before = self._earlier[0] if self._earlier else None
        is_long = before is not None and _age(now, before) >= LOOK_BACK_S
        self._earlier.append(now)
        found = analyze(since(now, before) if before is not None and is_long else now)
        told = None if found["kind"] == "unknown" else (found["kind"], found["name"])
        self._tell(told)
        self._log_change(told, found)

    def _log_change(self, told: tuple[str, str | None] | None, found: dict[str, Any]) -> None:
        self._times = self._times + 1 if told == self._latest else 1
        self._latest = told
        if told is None or self._times < STAYS or told == self._known:
            return
        before, self._known = self._known, told
        if before is not None:
            shown = verdict_in_words(found)
            sure = f" ({found['confidence']} confidence)" if found["confidence"] else ""
            errors.logger.info("run %s: %s%s", self._pipeline, text.printable(shown.headline), sure)


def span_attributes(found: Mapping[str, Any]) -> dict[str, str | float]:
    """Return a verdict as attributes of the run's span, without what is unknown."""
    if found.get("kind") in (None, "unknown"):
        return {}
    changes = found.get("what_if") or [{}]
    low, high = changes[0].get("gain") or (None, None)
    attributes = {
        defs.BOTTLENECK_KIND: found["kind"],
        defs.BOTTLENECK_NAME: found.get("name"),
        defs.BOTTLENECK_CONFIDENCE: found.get("confidence"),
        defs.BOTTLENECK_GAIN_LOW: low,
        defs.BOTTLENECK_GAIN_HIGH: high,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _age(now: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    return float(now["run"]["wall_s"] - before["run"]["wall_s"])
