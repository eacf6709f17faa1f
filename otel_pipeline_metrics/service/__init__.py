"""Run a pipeline as a service: operations, events and health beside its stages."""

from __future__ import annotations

from otel_pipeline_metrics.service.events import EventMetrics, get_event_metrics
from otel_pipeline_metrics.service.health import ComponentHealth, Health, health
from otel_pipeline_metrics.service.health_asgi import health_asgi
from otel_pipeline_metrics.service.manager import MetricsManager, MetricsStats, track_operation
from otel_pipeline_metrics.service.schema import comprehensive_schema
from otel_pipeline_metrics.service.scraping import metrics_asgi, metrics_wsgi, prometheus_text
from otel_pipeline_metrics.service.tracker import Tracker

__all__ = [
    "ComponentHealth",
    "EventMetrics",
    "Health",
    "MetricsManager",
    "MetricsStats",
    "Tracker",
    "comprehensive_schema",
    "get_event_metrics",
    "health",
    "health_asgi",
    "metrics_asgi",
    "metrics_wsgi",
    "prometheus_text",
    "track_operation",
]
