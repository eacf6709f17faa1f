"""The verdict: what limits a run, from the numbers of its report alone."""

from __future__ import annotations

from otel_pipeline_metrics.analysis.verdict import analyze

__all__ = ["analyze"]
