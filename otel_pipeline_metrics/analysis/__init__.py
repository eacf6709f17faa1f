"""The verdict: what holds a run back, told from its report's numbers alone."""

from __future__ import annotations

from otel_pipeline_metrics.analysis.verdict import analyze

__all__ = ["analyze"]
