"""The command `otel-pipeline-metrics`, in short `opm`; it needs the extra `cli`."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    try:
        from otel_pipeline_metrics.cli.app import run
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "click":
            raise
        sys.stderr.write(
            'otel-pipeline-metrics needs click: pip install "otel-pipeline-metrics[cli]"\n'
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a letter that the terminal's encoding lacks becomes "?" instead of an error
            stream.reconfigure(errors="replace")
    sys.exit(run())
