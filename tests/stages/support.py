"""Share helpers of these tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from opentelemetry import trace

from otel_pipeline_metrics import current_stage
from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._stages import execution

ROOT = Path(__file__).resolve().parents[2]


def nothing_current() -> bool:
    """Tell whether neither a span nor an execution is current."""
    return (
        trace.get_current_span() is trace.INVALID_SPAN
        and current_stage() is execution.NOOP_EXECUTION
    )


def in_flight(stage: str) -> int:
    """Return how many executions of `stage` are open."""
    return sum(s.active for s in series.all_series() if s.key.stage == stage)


def outcomes(results: Any, stage: str) -> list[str]:
    """Return the outcomes of the calls of `stage` that report more than a duration."""
    return [r.outcome for r in results.of(stage)]


def run_script(text: str, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script from a file of its own, with the package importable."""
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
