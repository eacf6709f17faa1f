"""Write the rules for Prometheus, with thresholds of one's own."""

from __future__ import annotations

import re
import string
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "otel-pipeline-metrics.rules.yml"

_DURATION: Final = re.compile(r"(\d+(ms|[smhdwy]))+")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")


class Setting(NamedTuple):
    """A threshold or a time of the rules."""

    default: str
    # in Markdown: docs/alerts.md is made from it
    meaning: str

    @property
    def is_time(self) -> bool:
        """Whether it is a time such as 10m, and no number."""
        return _NUMBER.fullmatch(self.default) is None


SETTINGS: Final[Mapping[str, Setting]] = {
    "interval": Setting("1m", "time between two evaluations of the rules"),
    "limiting_share": Setting("0.8", "share of the last 30 minutes for which one name limits"),
    "limiting_for": Setting("10m", "`for` of PipelineLimitedByOneStage"),
    "error_budget": Setting("0.01", "share of calls that may fail"),
    "burn_fast": Setting("14.4", "times the budget, over an hour and over five minutes"),
    "burn_fast_for": Setting("2m", "`for` of PipelineErrorBudgetBurnsFast"),
    "burn_slow": Setting("6", "times the budget, over six hours and over half an hour"),
    "burn_slow_for": Setting("15m", "`for` of PipelineErrorBudgetBurnsSlowly"),
    "no_success_seconds": Setting("90000", "seconds since the last success: a day and an hour"),
    "no_success_memory": Setting("7d", "for how long a pipeline that is gone is remembered"),
    "no_success_for": Setting("5m", "`for` of PipelineWithoutSuccess"),
    "watermark_lag_seconds": Setting("300", "seconds by which the newest event is late"),
    "watermark_lag_for": Setting("10m", "`for` of PipelineWatermarkLags"),
    "queue_full_share": Setting("0.95", "share of the capacity"),
    "queue_full_for": Setting("5m", "`for` of PipelineQueueFull"),
    "stalled_value": Setting("1", "`pipeline.stalled` is 1 after `stalled_after` seconds"),
    "stalled_for": Setting("1m", "`for` of PipelineStalled"),
    "cache_fallen_share": Setting("0.7", "share of the hit ratio of the day before"),
    "cache_fallen_for": Setting("30m", "`for` of PipelineCacheHitRatioFallen"),
    "memory_share": Setting("0.9", "share of the container's limit"),
    "memory_for": Setting("5m", "`for` of PipelineMemoryNearLimit"),
    "spool_bytes": Setting("80000000", "bytes on disk; the spool's own bound is 100 MiB"),
    "spool_for": Setting("10m", "`for` of PipelineSpoolFills"),
    "lost_most": Setting("0", "spans, points and operations that may be lost in ten minutes"),
    "lost_for": Setting("1m", "`for` of PipelineTelemetryLost"),
    "unusual_quartiles": Setting("3", "times the distance of the quartiles of the last day"),
    "unusual_share": Setting("0.2", "share of the median of the last day"),
    "unusual_samples": Setting(
        "720", "samples, one an `interval`, below which nothing is said: 12 h"
    ),
    "unusual_for": Setting("10m", "`for` of PipelineThroughputUnusual, PipelineDurationUnusual"),
}


class _Template(string.Template):
    # Prometheus's own templates have the dollar
    delimiter = "@"


def render(given: Mapping[str, str] | None = None) -> str:
    """Return the rules as YAML.

    Args:
        given: values of `SETTINGS` by name: numbers, and times such as "10m".

    Raises:
        ValueError: a name is unknown, or a value is neither.
    """
    values = {name: setting.default for name, setting in SETTINGS.items()}
    for name, value in (given or {}).items():
        if name not in SETTINGS:
            raise ValueError(f"{name!r} is not one of {', '.join(SETTINGS)}")
        expected = _DURATION if SETTINGS[name].is_time else _NUMBER
        if not expected.fullmatch(value):
            kind = "a time such as 10m" if SETTINGS[name].is_time else "a number of zero or more"
            raise ValueError(f"{name} must be {kind}, not {value!r:.40}")
        values[name] = value
    text = files(__package__).joinpath("rules.yml.template").read_text(encoding="utf-8")
    return _Template(text).substitute(values)
