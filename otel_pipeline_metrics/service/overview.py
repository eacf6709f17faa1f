"""Gather everything that is known of this process as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._probes.caches import registry as caches
from otel_pipeline_metrics._probes.resources import cgroup, probe
from otel_pipeline_metrics._probes.resources.levels import sampled
from otel_pipeline_metrics.service import process_stages
from otel_pipeline_metrics.service.activity import activity
from otel_pipeline_metrics.service.health import health
from otel_pipeline_metrics.service.operation import iso_time

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.caches.reading import CacheReading


def comprehensive(events: dict[str, Any]) -> dict[str, Any]:
    """Return resources, stages, caches, the given events, operations and health."""
    reading = asdict(probe.shared().read())
    del reading["at"]
    return {
        "timestamp": iso_time(round(clock.unix() * 1_000_000)),
        "resources": {
            **reading,
            "limits": asdict(cgroup.limits()),
            "sampled": sampled.read().to_dict(),
        },
        "stages": process_stages.to_list(),
        "caches": [_cache(cache) for cache in caches.read_all()],
        "events": events,
        "operations": activity.to_dict(),
        "health": health().to_dict(),
    }


def _cache(reading: CacheReading) -> dict[str, Any]:
    found = {name: value for name, value in vars(reading).items() if name != "reuse"}
    return {**found, "hit_ratio": reading.hit_ratio, "what_if": reading.what_if}
