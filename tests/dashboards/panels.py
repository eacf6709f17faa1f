"""What the three dashboards show. `python -m tests.dashboards.build` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_pipeline_metrics._core import metric_definitions as defs
from tests.dashboards.naming import label, series
from tests.dashboards.pipeline_panels import CACHES, FRESHNESS, QUEUES, RUNS, STAGES
from tests.dashboards.queries import (
    OF_JOB,
    OF_RUN,
    Panel,
)
from tests.dashboards.service_panels import EVENTS, EXPORTS, OPERATIONS, PROCESS, WAITING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Variable(NamedTuple):
    """A list at the top of a dashboard, to choose from."""

    name: str
    text: str
    query: str


class Dashboard(NamedTuple):
    """A dashboard: its file is `NAME.json`."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    # which alerts it shows
    alerts: tuple[str, ...]
    rows: Mapping[str, Sequence[Panel]]

    @property
    def alerts_expr(self) -> str:
        """The query for the alerts that fire."""
        names = "|".join(self.alerts)
        return f'ALERTS{{alertstate="firing",alertname=~"{names}",{OF_JOB}}}'


def _values_of(attribute: str, metric: defs.Metric, of: str, suffix: str = "") -> str:
    return f"label_values({series(metric)}{suffix}{{{of}}}, {attribute})"


_OF_PIPELINE: Final = (
    "PipelineLimitedByOneStage",
    "PipelineErrorBudgetBurnsFast",
    "PipelineErrorBudgetBurnsSlowly",
    "PipelineWithoutSuccess",
    "PipelineWatermarkLags",
    "PipelineQueueFull",
    "PipelineStalled",
    "PipelineCacheHitRatioFallen",
    "PipelineThroughputUnusual",
    "PipelineDurationUnusual",
)
_JOB: Final = Variable("job", "Service", _values_of("job", defs.PROCESS_MEMORY_USAGE, ""))
DASHBOARDS: Final = (
    Dashboard(
        "pipeline",
        "Pipeline",
        "What a pipeline does, and what holds it back.",
        (
            _JOB,
            Variable(
                "pipeline",
                "Pipeline",
                _values_of(label(defs.PIPELINE_NAME), defs.RUN_ACTIVE, OF_JOB),
            ),
            Variable(
                "stage",
                "Stage",
                _values_of(label(defs.STAGE_NAME), defs.STAGE_DURATION, OF_RUN, suffix="_count"),
            ),
        ),
        _OF_PIPELINE,
        {
            "Runs": RUNS,
            "Stages": STAGES,
            "Queues and limits": QUEUES,
            "Freshness": FRESHNESS,
            "Caches": CACHES,
        },
    ),
    Dashboard(
        "service",
        "Service",
        "What a service does beside its stages, and how its processes are.",
        (_JOB,),
        ("PipelineQueueFull", "PipelineStalled", "PipelineMemoryNearLimit"),
        {
            "Operations": OPERATIONS,
            "Events": EVENTS,
            "Connections and processes": PROCESS,
        },
    ),
    Dashboard(
        "telemetry",
        "Telemetry",
        "Whether the telemetry itself arrives.",
        (_JOB,),
        ("PipelineSpoolFills", "PipelineTelemetryLost"),
        {"Exports": EXPORTS, "What waits": WAITING},
    ),
)
