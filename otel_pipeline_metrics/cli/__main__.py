"""`python -m otel_pipeline_metrics.cli`."""

from __future__ import annotations

from otel_pipeline_metrics.cli import main

if __name__ == "__main__":
    main()
