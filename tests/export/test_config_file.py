"""The SDK's declarative configuration: OTEL_CONFIG_FILE."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors, settings
from otel_pipeline_metrics._export import config_file, global_providers
from tests.lifecycle.configure.support import Captured, clean_slate
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.export.conftest import Received

pytest.importorskip("opentelemetry.configuration")

FILE = """
file_format: "1.0"
resource:
  attributes:
    - name: service.name
      value: from-the-file
tracer_provider:
  processors:
    - simple:
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/traces
meter_provider:
  readers:
    - periodic:
        interval: 60000
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/metrics
"""
OPTIONS = """
instrumentation/development:
  python:
    otel_pipeline_metrics:
      metric_attributes: [shard]
      spans_per_second: 3
      nonsense: 3
      max_attribute_values: none
"""


@pytest.fixture(autouse=True)
def slate(
    http_collector: Received,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level("INFO", "otel_pipeline_metrics")
    with clean_slate():
        monkeypatch.setattr(config_file, "_applied", None)
        errors.reset()
        yield caplog
        for provider in global_providers.all_existing():
            if provider is not None:
                provider.shutdown()


class Write:
    """Writes the file that the variable names."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._set = monkeypatch.setenv

    def __call__(self, content: str) -> None:
        self.path.write_text(content)
        self._set("OTEL_CONFIG_FILE", str(self.path))


@pytest.fixture
def by_variables(http_collector: Received, monkeypatch: pytest.MonkeyPatch) -> Received:
    """What the other variables ask for."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-a-variable")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return http_collector


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return Write(tmp_path / "otel.yaml", monkeypatch)


@opm.process
def work() -> None: ...


def services(received: Received) -> set[str]:
    return {resource["service.name"] for resource in received.resources}


def said(log: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in log.records
        if record.name == "otel_pipeline_metrics" and "OTEL_CONFIG_FILE" in record.getMessage()
    ]


def test_the_file_decides_where_telemetry_goes(
    http_collector: Received, write: Write, slate: pytest.LogCaptureFixture
) -> None:
    write(FILE.format(endpoint=http_collector.endpoint))
    opm.configure(console=False)
    work()
    assert opm.flush().ok
    assert http_collector.spans == {"work": 1}
    assert http_collector.points["pipeline.stage.duration"] == 1
    assert services(http_collector) == {"from-the-file"}
    assert said(slate) == []


def test_other_variables_and_arguments_are_left_out_and_said_once(
    http_collector: Received,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    slate: pytest.LogCaptureFixture,
) -> None:
    write(FILE.format(endpoint=http_collector.endpoint))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-a-variable")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES", "7")
    for _ in range(2):
        opm.configure(exporter="console", service_name="from-an-argument", console="summary")
    work()
    opm.flush()
    assert services(http_collector) == {"from-the-file"}
    (line,) = said(slate)
    assert "left out: exporter=, service_name=, OTEL_SERVICE_NAME, OTEL_TRACES_EXPORTER" in line
    assert settings.settings().max_attribute_values == 7
    assert not [m for m in slate.messages if "has no effect" in m]


def test_a_signal_that_the_file_leaves_out_goes_nowhere(
    http_collector: Received, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = FILE.format(endpoint=http_collector.endpoint)
    write(content[: content.index("meter_provider")])
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    opm.configure(exporter="otlp", console=False)
    work()
    opm.flush()
    assert http_collector.spans == {"work": 1}
    assert not http_collector.points


def test_a_disabled_sdk_exports_nothing(
    http_collector: Received, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(f"disabled: true\n{FILE.format(endpoint=http_collector.endpoint)}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    opm.configure(console=False)
    work()
    opm.flush()
    assert http_collector.requests == 0


def test_options_in_the_file_are_arguments(
    http_collector: Received, write: Write, slate: pytest.LogCaptureFixture
) -> None:
    write(FILE.format(endpoint=http_collector.endpoint) + OPTIONS)
    opm.configure(console=False)
    config = settings.settings()
    assert (config.metric_attributes, config.spans_per_second) == (("shard",), 3)
    assert config.max_attribute_values == 200
    unknown, wrong = said(slate)
    assert "'nonsense'" in unknown
    assert "max_attribute_values" in wrong


def test_an_argument_wins_over_the_option(http_collector: Received, write: Write) -> None:
    write(FILE.format(endpoint=http_collector.endpoint) + OPTIONS)
    opm.configure(console=False, spans_per_second=8)
    assert settings.settings().spans_per_second == 8


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "FileNotFoundError|not found|No such file"),
        ("a: [", "YAML|yaml|parsing|Parser"),
        ("file_format: '7.0'", "7.0"),
        ("tracer_provider: {}", "file_format"),
        (FILE.replace("endpoint:", "surprise: 1\n            endpoint:"), "surprise"),
        (FILE.replace("otlp_http", "no_such_exporter"), "no_such_exporter"),
        (FILE + "propagator: {composite: [no_such_propagator: {}]}", "no_such_propagator"),
        (FILE.replace("interval: 60000", "interval: hunter2"), "interval"),
    ],
    ids=["absent", "syntax", "version", "no version", "key", "exporter", "propagator", "value"],
)
def test_a_broken_file_is_one_line_and_the_variables_decide(
    content: str | None,
    why: str,
    by_variables: Received,
    write: Write,
    slate: pytest.LogCaptureFixture,
) -> None:
    write((content or "").replace("{endpoint}", by_variables.endpoint))
    if content is None:
        write.path.unlink()
    opm.configure(console=False)
    work()
    opm.shutdown()
    assert by_variables.spans == {"work": 1}
    assert services(by_variables) == {"from-a-variable"}
    (line,) = said(slate)
    assert line.startswith("OTEL_CONFIG_FILE is ignored, and the other variables decide: ")
    assert re.search(why, line), line
    assert "\n" not in line
    assert "hunter2" not in line


def test_a_missing_package_is_one_line(
    by_variables: Received,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    slate: pytest.LogCaptureFixture,
) -> None:
    write(FILE.format(endpoint=by_variables.endpoint))
    monkeypatch.setattr(config_file, "find_spec", lambda _: None)
    opm.configure(console=False)
    work()
    opm.shutdown()
    assert services(by_variables) == {"from-a-variable"}
    (line,) = said(slate)
    assert "otel-pipeline-metrics[file-config]" in line


def test_the_programs_own_providers_stay(
    http_collector: Received, write: Write, slate: pytest.LogCaptureFixture
) -> None:
    write(FILE.format(endpoint=http_collector.endpoint))
    captured = Captured()
    captured.install()
    opm.configure(console=False)
    work()
    opm.flush()
    assert captured.span_names() == ["work"]
    assert http_collector.requests == 0
    assert said(slate) == []
    assert trace.get_tracer_provider() is captured.tracer_provider
    assert metrics.get_meter_provider() is captured.meter_provider


PROGRAM = """
import otel_pipeline_metrics as opm

opm.configure(console=False)
with opm.stage("at the end"):
    pass
"""


@pytest.mark.slow
def test_the_end_of_the_program_sends_everything(
    http_collector: Received, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(FILE.format(endpoint=http_collector.endpoint))
    done: Any = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert http_collector.spans == {"at the end": 1}
    assert http_collector.points["pipeline.stage.duration"] == 1
