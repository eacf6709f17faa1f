"""Test that credentials of an endpoint appear in no log, report, file or doctor output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export.environment_checks import secrets
from tests.lifecycle.configure.support import run_python
from tests.system.faults.collector.servers import collector

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.faults.collector.servers import Fault, Protocol

SECRETS = ("s3cret", "tok3n", "h3ader", "qu3ry")

PROGRAM = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import otel_pipeline_metrics as opm
from otel_pipeline_metrics.cli import doctor
from otel_pipeline_metrics._export.replay import replay

opm.configure(service_name="c", console=True, flush_timeout=1.5)
with opm.run("r", report="report.json", resources=False) as run:
    with opm.stage("s") as stage:
        stage.add_items(1)
opm.shutdown()
print(opm.stats())
print(run.report.render("html"))
print(doctor.render(doctor.diagnose(timeout_s=1)))
print(replay("spool"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "logs"),
    [("none", "true"), ("refused", "false"), ("refused", "true"), ("5xx", "true"), ("4xx", "true")],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_credentials_appear_nowhere(
    protocol: Protocol, fault: Fault, logs: str, tmp_path: Path
) -> None:
    """With the loggers of all libraries at DEBUG."""
    with collector(fault, protocol) as server:
        place = f"127.0.0.1:{server.port}"
        env: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://ann:s3cret@{place}/v1/traces?token=tok3n",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://ann:s3cret@{place}/v1/metrics?x=qu3ry",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20h3ader",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_PIPELINE_METRICS_EXPORTER_LOGS": logs,
            "OTEL_PIPELINE_METRICS_SPOOL": "spool",
        }
        done = run_python(PROGRAM, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "report.json" in {path.name for path in files}
    told = [done.stdout, done.stderr, *(path.read_text() for path in files)]
    assert place in done.stdout
    lines = [line for text in told for line in text.splitlines()]
    assert [line for line in lines for secret in SECRETS if secret in line] == []
    assert logs == "true" or "opentelemetry.exporter" not in done.stderr


def test_the_search_finds_credentials() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://ann:pass%40word@host:4318/x?token=abcd&v=1",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "bob:longer@host:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=bearer%20xyz,b=1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "12345",
        "OTEL_SERVICE_NAME": "a:b@c",
    }
    found = secrets(env)
    # those of one length come in the order of their hashes, which differs from run to run
    assert sorted(found) == sorted([
        "ann:pass%40word", "ann:pass@word", "pass%40word", "pass@word",
        "token=abcd&v=1", "abcd", "bob:longer", "longer", "bearer%20xyz", "bearer xyz",
    ])  # fmt: skip
    assert list(found) == sorted(found, key=len, reverse=True)
