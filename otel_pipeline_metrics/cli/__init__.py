"""The command `otel-pipeline-metrics`, in short `opm`; it needs the extra `cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    try:
        from otel_pipeline_metrics.cli.app import app
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "click":
            raise
        sys.stderr.write(
            'otel-pipeline-metrics needs click: pip install "otel-pipeline-metrics[cli]"\n'
        )
        sys.exit(2)
    app()
