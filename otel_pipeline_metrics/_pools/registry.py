"""The pools of workers that exist, for the metric of their sizes and for a run's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors, series
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._probes.levels import Levels
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.attributes import stage_attributes

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import AttributeValue, Point
    from otel_pipeline_metrics._pools.pool import Pool
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet

# Pools that a run's report describes.
MAX_POOLS: Final = 100


class Size:
    """How many workers a pool has, and may have."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def depth(self) -> int:
        return self._pool.count

    def capacity(self) -> None:
        """Return None: the most of them is in the report."""


sizes: Final[Levels[Size]] = Levels()

# The attributes of each name in `sizes`.
_attributes: dict[str, dict[str, AttributeValue]] = {}


def enter(pool: Pool) -> None:
    """Report a pool that is starting."""
    with errors.suppress_errors("reporting a pool of workers"):
        scope = series.current_scope()
        key = pool._stage_key(scope.pipeline)
        _attributes[repr(key)] = stage_attributes(key)
        sizes.register(pool._size, repr(key))
        if scope.run_id is not None and len(scope.pools) < MAX_POOLS:
            scope.pools.append(pool)
        sink.add_probe("workers", _install)


def _install(instruments: InstrumentSet) -> None:
    def points() -> list[Point]:
        return [(count, _attributes[name]) for name, count in sizes.known_sizes().items()]

    instruments.observable_up_down_counter(defs.STAGE_WORKERS, points)


def pool_list(scope: Any) -> list[dict[str, Any]]:
    """Return the report's part about the pools of a run."""
    return [pool.to_dict() for pool in scope.pools]
