"""Report depth and capacity of the instrumented queues that exist, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._probes.levels import Levels, Sized

if TYPE_CHECKING:
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


queues: Final[Levels[Sized]] = Levels()

register = queues.register
sizes = queues.sizes
capacities = queues.capacities
known_sizes = queues.known_sizes
known_capacities = queues.known_capacities


def install_queues(instruments: InstrumentSet) -> None:
    """Report the depth and capacity of every instrumented queue, including later ones."""
    queues.install(instruments, defs.QUEUE_SIZE, defs.QUEUE_CAPACITY, defs.QUEUE_NAME)
