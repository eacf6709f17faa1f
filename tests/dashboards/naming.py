"""The names that Prometheus gives our metrics when it takes them by OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import metric_definitions as defs

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final[Mapping[str, str]] = {"s": "_seconds", "By": "_bytes"}


def series(metric: defs.Metric) -> str:
    """Return the name of its series; of a histogram without `_bucket`, `_count` or `_sum`."""
    name = label(metric.name) + _UNITS.get(metric.unit, "")
    if metric.kind == "counter":
        return f"{name}_total"
    if metric.kind == "gauge" and metric.unit == "1" and not name.endswith("_ratio"):
        return f"{name}_ratio"
    return name


def label(attribute: str) -> str:
    """Return the label of an attribute."""
    return attribute.replace(".", "_")


def all_series() -> set[str]:
    """Return the names of all our series, and of each as if it were a histogram."""
    found: set[str] = set()
    for metric in vars(defs).values():
        if isinstance(metric, defs.Metric):
            name = series(metric)
            found |= {name, f"{name}_count", f"{name}_sum", f"{name}_bucket"}
    return found
