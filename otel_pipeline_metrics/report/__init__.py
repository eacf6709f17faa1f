"""The report of a run: plain data, one renderer a file."""

from otel_pipeline_metrics.report._report import SCHEMA, RunReport

__all__ = ["SCHEMA", "RunReport"]
