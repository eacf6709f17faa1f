"""The report of a run: plain data, one renderer a file."""

from __future__ import annotations

from otel_pipeline_metrics.report.run_report import SCHEMA, RunReport

__all__ = ["SCHEMA", "RunReport"]
