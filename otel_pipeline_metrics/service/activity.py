"""Sum up the operations of the process, and report them as metrics.

Managers, trackers and `monitor_operation` report here, once for each operation.
"""

from __future__ import annotations

from typing import Any, Final

from otel_pipeline_metrics._core import cardinality, clock
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import qualified_name
from otel_pipeline_metrics._telemetry.values import measure
from otel_pipeline_metrics.service.history import History

_DURATION: Final = measure(defs.OPERATION_DURATION)
_RETRIES: Final = measure(defs.OPERATION_RETRIES)


class _Totals:
    """What became of the operations of one type and name."""

    def __init__(self) -> None:
        self.errors = 0
        self.durations = History()

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": self.durations.count,
            "errors": self.errors,
            "error_rate": self.durations.share(self.errors),
            "duration_s": self.durations.to_dict(),
        }


class Activity:
    """The operations of this process, by type and name; `activity` is the only one."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at zero: the parent reports what it did."""
        # its own guard, as a pipeline's error types must not use up those of operations
        self._distinct = cardinality.Distinct()
        self._totals: dict[tuple[str, str], _Totals] = {}
        self._retries: dict[str, int] = {}

    def record(
        self, operation_type: str, operation_name: str, seconds: float, error_type: str | None
    ) -> None:
        """Add one operation; `error_type` is None if it succeeded."""
        names = cardinality.instrument_names
        kind = names.name("types of operations", operation_type)
        name = names.name("names of operations", operation_name)
        attributes = [(defs.OPERATION_NAME, name), (defs.OPERATION_TYPE, kind)]
        if error_type is not None:
            error_type = self._distinct.name(defs.ERROR_TYPE, error_type)
            attributes.append((defs.ERROR_TYPE, error_type))
        _DURATION.record(seconds, tuple(attributes))
        totals = self._totals.get((kind, name))
        if totals is None:
            if len(self._totals) >= cardinality.MAX_NAMES:
                kind = name = cardinality.OTHER
            totals = self._totals.setdefault((kind, name), _Totals())
        totals.durations.add(seconds, clock.now())
        totals.errors += error_type is not None

    def retry(self, operation_name: str, error_type: str | None) -> None:
        """Add an attempt after the first."""
        name = cardinality.instrument_names.name("names of operations", operation_name)
        attributes = [(defs.OPERATION_NAME, name)]
        if error_type is not None:
            attributes.append((defs.ERROR_TYPE, self._distinct.name(defs.ERROR_TYPE, error_type)))
        _RETRIES.record(1, tuple(attributes))
        self._retries[name] = self._retries.get(name, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the operations so far as plain data."""
        return {
            "by_name": [
                {"type": kind, "name": name, **totals.to_dict()}
                for (kind, name), totals in sorted(self._totals.items())
            ],
            "retries": dict(sorted(self._retries.items())),
        }


def error_type_of(error: BaseException | type[BaseException] | str) -> str:
    """Return the `error.type` of an exception, its class or its name."""
    if isinstance(error, str):
        return error
    return qualified_name(error if isinstance(error, type) else type(error))


activity: Final = Activity()
