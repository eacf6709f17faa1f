"""Run the command: `python -m otel_pipeline_metrics`."""

from otel_pipeline_metrics.cli import main

main()
