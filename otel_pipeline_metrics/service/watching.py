"""Begin what a service is watched by, at the first use of any part of this room."""

from __future__ import annotations

from otel_pipeline_metrics.service import own_health, process_stages, readings, stalled


def watch() -> None:
    """Sum up stages, look for stalled ones, and report the health of the telemetry."""
    process_stages.watch()
    stalled.watch()
    own_health.watch()
    readings.watch()
