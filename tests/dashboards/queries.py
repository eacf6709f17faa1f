"""Write PromQL from the definitions of the metrics, so that no name or unit is typed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import metric_definitions as defs
from tests.dashboards.naming import label, series

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["stat", "timeseries", "heatmap", "statetimeline", "table"]
# that of `histogram_quantile`, and its legend
QUANTILES: Final = (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))

# Which series a panel shows; the variables are those of the dashboard.
OF_JOB: Final = 'job=~"$job"'
OF_RUN: Final = f'{OF_JOB},{label(defs.PIPELINE_NAME)}=~"$pipeline"'
OF_STAGE: Final = f'{OF_RUN},{label(defs.STAGE_NAME)}=~"$stage"'

_UNITS: Final[Mapping[str, str]] = {"s": "s", "By": "bytes", "1": "percentunit"}
_UNITS_OF_RATES: Final[Mapping[str, str]] = {"s": "short", "By": "Bps"}


class Query(NamedTuple):
    """A query of a panel."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """A panel; the SDK makes Grafana's JSON of it."""

    title: str
    description: str
    # Grafana's name of it
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    # of 24
    width: int = 8
    is_stacked: bool = False
    # whether its series have a stage, whose traces a link opens
    has_stage: bool = False


def legend(by: tuple[str, ...]) -> str:
    """Return a legend of these attributes."""
    return " ".join(f"{{{{{label(each)}}}}}" for each in by)


def grouped(by: tuple[str, ...]) -> str:
    """Return the clause that keeps the job and these attributes."""
    return f"by ({', '.join(('job', *map(label, by)))})"


def unit(metric: defs.Metric) -> str:
    """Return Grafana's name of the metric's unit."""
    return _UNITS.get(metric.unit, "short")


def unit_of_rate(metric: defs.Metric) -> str:
    """Return Grafana's name of the metric's unit a second."""
    return _UNITS_OF_RATES.get(metric.unit, "cps")


def level(metric: defs.Metric, of: str, *by: str, how: str = "sum") -> Query:
    """Ask for the present value."""
    return Query(f"{how} {grouped(by)} ({series(metric)}{{{of}}})", legend(by))


def total(metric: defs.Metric, of: str, *by: str) -> Query:
    """Ask for how many values a histogram has, since the processes began."""
    return Query(f"sum {grouped(by)} ({series(metric)}_count{{{of}}})", legend(by))


def _rate(name: str, of: str, by: tuple[str, ...]) -> str:
    return f"sum {grouped(by)} (rate({name}{{{of}}}[$__rate_interval]))"


def rate(metric: defs.Metric, of: str, *by: str) -> Query:
    """Ask for the growth of a counter a second."""
    return Query(_rate(series(metric), of, by), legend(by))


def calls(metric: defs.Metric, of: str, *by: str) -> Query:
    """Ask for how many values a histogram gets a second."""
    return Query(_rate(f"{series(metric)}_count", of, by), legend(by))


def failed(of: str) -> str:
    """Choose the series of what failed."""
    return f'{of},{label(defs.ERROR_TYPE)}!=""'


def failing_share(metric: defs.Metric, of: str, *by: str) -> Query:
    """Ask for the share of a histogram's values that have an `error.type`."""
    name = f"{series(metric)}_count"
    return Query(f"{_rate(name, failed(of), by)} / {_rate(name, of, by)}", legend(by))


def share(part: defs.Metric, whole: defs.Metric, of: str, *by: str) -> Query:
    """Ask for the share of a counter in the values of a histogram."""
    return Query(
        f"{_rate(series(part), of, by)} / {_rate(f'{series(whole)}_count', of, by)}", legend(by)
    )


def used(usage: defs.Metric, most: defs.Metric, of: str, *by: str) -> Query:
    """Ask for one level as a share of another, of the process where it is highest."""
    of_process = ("instance", *by)
    parts = [f"sum {grouped(of_process)} ({series(each)}{{{of}}})" for each in (usage, most)]
    return Query(f"max {grouped(by)} ({parts[0]} / ({parts[1]} > 0))", legend(by))


def average(metric: defs.Metric, of: str, *by: str) -> Query:
    """Ask for the mean of a histogram's values."""
    name = series(metric)
    return Query(f"{_rate(f'{name}_sum', of, by)} / {_rate(f'{name}_count', of, by)}", legend(by))


def quantiles(metric: defs.Metric, of: str, *by: str) -> tuple[Query, ...]:
    """Ask for the quantiles of a histogram."""
    inner = f"{_rate(f'{series(metric)}_bucket', of, (*by, 'le'))}"
    return tuple(
        Query(f"histogram_quantile({of_all}, {inner})", f"{legend(by)} {name}".strip())
        for of_all, name in QUANTILES
    )


def buckets(metric: defs.Metric, of: str) -> Query:
    """Ask for how many values came into each bucket, and those below it."""
    name = f"{series(metric)}_bucket"
    return Query(f"sum by (le) (increase({name}{{{of}}}[$__rate_interval]))", "{{le}}")
