"""Report usage and maximum of the limits that exist, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.levels import Levels
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.limits.probe import LimitProbe
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


limits: Final[Levels[LimitProbe]] = Levels()

# Names of which there was more than one limit at a time.
shared: set[str] = set()

# By name: what kind of limits they are. There are as many as limits may have names.
kinds: dict[str, str] = {}

# The kind of limits of one name that are not of one kind.
MIXED: Final = "mixed"


def watch(probe: LimitProbe) -> None:
    """Account for workers from now on, and report the limit for as long as it exists."""
    with errors.suppress_errors("wrapping a limit"):
        accounting.watch()
        sink.add_probe("limits", install_limits)
    limits.register(probe, probe.name)
    # After it is registered, so that of two threads that do this the later one sees both. The set
    # spares a look at all of them for each new one.
    if probe.name in shared:
        probe.share()
    elif limits.number(probe.name) > 1:
        for each in limits.alive(probe.name):
            each.share()
        shared.add(probe.name)
    if kinds.setdefault(probe.name, probe.kind) != probe.kind:
        kinds[probe.name] = MIXED
    forking.watch(probe)


def install_limits(instruments: InstrumentSet) -> None:
    """Report the usage and maximum of every limit, including later ones."""
    limits.install(instruments, defs.LIMIT_USAGE, defs.LIMIT_MAX, defs.LIMIT_NAME)
