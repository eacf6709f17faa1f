"""Test that log records pass a real Collector, with the ids of their spans."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ROOT
from tests.support.servers import DEVELOPMENT, PRODUCTION, Collector, poll, validate_config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),
    pytest.mark.usefixtures("built_backends"),
]

PROGRAM = """
import logging
import otel_pipeline_metrics as opm
from opentelemetry import trace

opm.configure(logs=True, console=False, service_name="logs")

@opm.process
def work():
    logging.getLogger("program").warning("row %d is odd", 7)
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)

print(work())
"""


def logged(collector: Collector) -> str:
    """Run the program; return the id of its trace."""
    pytest.importorskip("opentelemetry.instrumentation.logging")
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.otlp_grpc_endpoint
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def printed(collector: Collector) -> list[tuple[str, str]]:
    """Return (message, trace id) of the log records that a debug exporter has printed."""
    return re.findall(r"Body: Str\((.*)\)(?:\n.*?)*?\nTrace ID: (\w+)", collector.debug_output())


def test_development_prints_records_with_their_trace() -> None:
    with Collector(DEVELOPMENT, env={"DEBUG_VERBOSITY": "detailed"}) as collector:
        trace_id = logged(collector)
        found = poll(lambda: printed(collector), timeout=20, what="log records")
    assert ("row 7 is odd", trace_id) in found


def test_production_passes_records_on() -> None:
    """To another Collector, in place of Loki."""
    with Collector(DEVELOPMENT, env={"DEBUG_VERBOSITY": "detailed"}) as backend:
        env = {"LOGS_OTLP_ENDPOINT": backend.otlp_http_endpoint, "BATCH_TIMEOUT": "200ms"}
        with Collector(PRODUCTION, env=env) as collector:
            trace_id = logged(collector)
            found = poll(lambda: printed(backend), timeout=20, what="log records")
    assert ("row 7 is odd", trace_id) in found


@pytest.mark.parametrize("config", [DEVELOPMENT, PRODUCTION], ids=lambda path: path.name)
def test_the_collector_accepts_the_files(config: Path) -> None:
    assert validate_config(config) == ""
