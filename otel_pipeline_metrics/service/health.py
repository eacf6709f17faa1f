"""`health()`: whether the service does its work, and which part of it does not.

Our own parts (the exporter, the spool, the managers) are at worst degraded: that telemetry does
not arrive is no reason to end a process that works.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import errors, settings, text
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics._probes.queues import registry as queues
from otel_pipeline_metrics._telemetry.values import level
from otel_pipeline_metrics.service import stalled, watching
from otel_pipeline_metrics.service.known_managers import managers

if TYPE_CHECKING:
    from collections.abc import Callable


Status = Literal["ok", "degraded", "failing"]

# From the best to the worst.
STATUSES: Final[tuple[Status, ...]] = ("ok", "degraded", "failing")

# A spool so full will soon drop the oldest telemetry.
SPOOL_SHARE: Final = 0.8

# An event loop so late, in seconds.
LOOP_DEGRADED_S: Final = 1.0
LOOP_FAILING_S: Final = 30.0

_Finding = tuple[Status, str]


@dataclass(frozen=True)
class ComponentHealth:
    """The state of one part, and why it is in it; the names in reasons are the program's own."""

    status: Status
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """The state of the service: that of its worst part."""

    status: Status
    # by name: exporter, spool, queues, event_loop, manager, breakers, stalled_stages
    components: dict[str, ComponentHealth]

    def to_dict(self, *, details: bool = True) -> dict[str, Any]:
        """Return plain data.

        Args:
            details: whether the reasons are part of it.
        """
        return {
            "status": self.status,
            "components": {
                name: {"status": part.status, "reasons": list(part.reasons)}
                if details
                else part.status
                for name, part in self.components.items()
            },
        }


def health() -> Health:
    """Return the state of the service and of each of its parts.

    A part that is not in use is ok. Reasons name queues, breakers and stages; they hold no
    endpoint, no path and no message of an exception.
    """
    watching.watch()
    components = {name: _component(name, find) for name, find in _COMPONENTS.items()}
    worst = _worst([part.status for part in components.values()])
    return Health(worst, components)


def _component(name: str, find: Callable[[], list[_Finding]]) -> ComponentHealth:
    with errors.suppress_errors(f"the health of {name}"):
        found = find()
        return ComponentHealth(
            _worst([status for status, _ in found]), tuple(reason for _, reason in found)
        )
    return ComponentHealth("degraded", ("it cannot be read",))


def _worst(statuses: list[Status]) -> Status:
    return max(statuses, key=STATUSES.index, default="ok")


def _exporter() -> list[_Finding]:
    found: list[_Finding] = []
    if telemetry_stats.telemetry_stats()["collector"] == "unreachable":
        found.append(("degraded", "the collector does not accept telemetry"))
    found += [("degraded", page.problem) for page in telemetry_stats.pages if page.problem]
    return found


def _spool() -> list[_Finding]:
    limit = settings.settings().spool_max_bytes
    return [
        ("degraded", f"it is {text.percent(share)} full; then the oldest telemetry is dropped")
        for directory in {ledger.kept_in for ledger in telemetry_stats.ledgers} - {None}
        if (share := spool.size_of(Path(str(directory))) / limit) >= SPOOL_SHARE
    ]


def _queues() -> list[_Finding]:
    sizes = queues.sizes()
    return [
        ("degraded", f"the queue {name!r} is full")
        for name, capacity in queues.capacities().items()
        if capacity and sizes.get(name, 0) >= capacity
    ]


def _event_loop() -> list[_Finding]:
    delays = [manager.loop_delays.worst() for manager in list(managers)]
    worst = max((delay for delay in delays if delay is not None), default=0.0)
    if worst < LOOP_DEGRADED_S:
        return []
    status: Status = "failing" if worst >= LOOP_FAILING_S else "degraded"
    return [(status, f"it was held up for {text.duration(worst)} within the last minute")]


def _manager() -> list[_Finding]:
    found: list[_Finding] = []
    for manager in list(managers):
        if manager.failure is not None:
            found.append(("degraded", "operations cannot be written to disk"))
        if manager.is_running and manager.fullness >= 1:
            found.append(("degraded", "its queue is full"))
    return found


def _breakers() -> list[_Finding]:
    states = [dict(attributes) for attributes, now in level(defs.BREAKER).values.items() if now]
    return [
        ("degraded", f"the breaker {state[defs.BREAKER_NAME]!r} is {state[defs.BREAKER_STATE]}")
        for state in states
        if state[defs.BREAKER_STATE] != "closed"
    ]


def _stalled_stages() -> list[_Finding]:
    return [
        ("failing", f"{stalled.called(place)} has not moved for {text.duration(seconds)}")
        for place, seconds in stalled.detector.check().items()
        if seconds is not None
    ]


_COMPONENTS: Final[dict[str, Callable[[], list[_Finding]]]] = {
    "exporter": _exporter,
    "spool": _spool,
    "queues": _queues,
    "event_loop": _event_loop,
    "manager": _manager,
    "breakers": _breakers,
    "stalled_stages": _stalled_stages,
}
