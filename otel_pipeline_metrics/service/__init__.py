"""Run a pipeline as a service: operations, events and health beside its stages."""

from __future__ import annotations

from otel_pipeline_metrics.service.manager import MetricsManager, MetricsStats, track_operation

__all__ = ["MetricsManager", "MetricsStats", "track_operation"]
