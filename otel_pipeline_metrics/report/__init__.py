"""The report of a run: plain data, and one renderer per file."""

from __future__ import annotations

from otel_pipeline_metrics.report.run_report import RunReport
from otel_pipeline_metrics.report.schema import SCHEMA

__all__ = ["SCHEMA", "RunReport"]
