"""The commands `doctor` and `replay`: findings and exit codes."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_pipeline_metrics._core import settings
from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export import config_file
from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics.cli import doctor
from otel_pipeline_metrics.cli.telemetry_commands import doctor as command
from otel_pipeline_metrics.cli.telemetry_commands import replay as replay_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.export.conftest import Received

SECRET = "s3cret"  # noqa: S105


@pytest.fixture(autouse=True)
def configuration() -> Iterator[None]:
    """Restore the configuration that a test replaces."""
    before = settings.settings()
    yield
    settings.replace(before)


@pytest.fixture(params=["grpc", "http/protobuf"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Received:
    fixture = "grpc_collector" if request.param == "grpc" else "http_collector"
    received: Received = request.getfixturevalue(fixture)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return received


def texts(topic: str, **arguments: Any) -> list[str]:
    return [f.text for f in doctor.diagnose(**arguments) if f.topic == topic]


def problems(**arguments: Any) -> list[str]:
    return [f.text for f in doctor.diagnose(**arguments) if f.level == "problem"]


def test_a_collector_that_works_has_no_problem(collector: Received) -> None:
    result = CliRunner().invoke(command)

    assert result.exit_code == 0
    assert collector.spans == {"opm doctor": 1}
    assert collector.points == {"opm.doctor": 1}
    assert "one span arrived in" in result.output
    assert "one metric arrived in" in result.output
    assert result.output.endswith("no problem found\n")


def test_the_global_providers_are_unchanged(collector: Received) -> None:
    doctor.diagnose()

    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_a_sampler_that_drops_everything_is_not_a_problem(
    collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    assert problems() == []


def test_no_send_sends_nothing(collector: Received) -> None:
    result = CliRunner().invoke(command, ["--no-send"])

    assert result.exit_code == 0
    assert collector.requests == 0
    assert "takes connections" in result.output


def test_a_refusal_is_shown_with_its_status(collector: Received) -> None:
    collector.refuse = True

    reason = {True: "HTTP 400", False: "UNAUTHENTICATED"}["http" in os.environ[PROTOCOL]]
    assert problems() == [
        f"one span did not arrive: {reason}",
        f"one metric did not arrive: {reason}",
    ]


def test_a_partial_success_is_a_problem(collector: Received) -> None:
    collector.rejects = 1

    assert problems()[0] == (
        "one span did not arrive: answered with success, but rejected it (partial success)"
    )


def test_a_closed_port_is_a_problem(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{sock.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        result = CliRunner().invoke(command, ["--timeout", "2"])

    assert result.exit_code == 1
    assert f"FAIL  {endpoint} cannot be reached: Connection refused" in result.output
    # the oldest SDK's exporter does not tell the reason
    assert re.search(r"FAIL  one span did not arrive: \S", result.output)
    assert result.output.endswith("4 problems found\n")
    assert caplog.records == []


def test_a_trial_ends_at_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sock.getsockname()[1]}"}
        found = problems(env=env, timeout_s=0.2)

    assert found == [
        "one span did not arrive: no answer in 0.2 s",
        "one metric did not arrive: no answer in 0.2 s",
    ]


def test_the_defaults_are_shown() -> None:
    findings = doctor.diagnose()

    assert doctor.exit_code(findings) == 0
    assert texts("traces") == [
        ("not exported (default, since no OTEL_* variable names an exporter or an endpoint)")
    ]
    assert texts("service")[0].startswith("unknown_service (default)")
    assert texts("spool")[0].startswith("off")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"OTEL_SERVICE_NAME": "a"}, "a (OTEL_SERVICE_NAME)"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "x=1,service.name=b"}, "b (OTEL_RESOURCE_ATTRIBUTES)"),
    ],
)
def test_the_source_of_the_service_name_is_shown(env: dict[str, str], expected: str) -> None:
    assert texts("service", env=env) == [expected]


def test_arguments_are_distinguished_from_variables() -> None:
    settings.replace(
        Config(
            service_name="mine",
            exporters=("none",),
            tracer_provider=TracerProvider(shutdown_on_exit=False),
        )
    )

    assert texts("service") == ["mine (argument service_name)"]
    assert texts("traces") == [
        "opentelemetry.sdk.trace.TracerProvider (argument): its exporters are not checked"
    ]
    assert texts("metrics") == ["not exported (argument exporter)"]


def test_the_source_of_each_setting_is_shown() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://u:{SECRET}@127.0.0.1:1/v1/metrics",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET},x={SECRET}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "3",
        "OTEL_TRACES_EXPORTER": "none",
    }
    found = doctor.diagnose(env, send=False)
    text = doctor.render(found)

    assert SECRET not in text
    assert "otlp/http to http://127.0.0.1:1/v1/metrics (by the OTEL_EXPORTER_OTLP_*" in text
    assert (
        "endpoint from OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, protocol from the endpoint, 3 s a "
        "request (OTEL_EXPORTER_OTLP_METRICS_TIMEOUT), 2 headers from OTEL_EXPORTER_OTLP_HEADERS "
        "(not shown), compression gzip (OTEL_EXPORTER_OTLP_COMPRESSION)"
    ) in text
    assert "not exported (OTEL_TRACES_EXPORTER)" in text


def test_broken_variables_are_problems() -> None:
    env = {"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_TRACES_SAMPLER": "always_on"}

    (problem,) = problems(env=env)
    assert problem.startswith("OTEL_BSP_MAX_QUEUE_SIZE must be a whole number")
    limits = texts("limits and guards", env=env)
    assert "spans in the queue: at most 2048 (default)" in limits
    assert "sampler: always_on (OTEL_TRACES_SAMPLER)" in limits


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_PIPELINE_METRICS_SPOOL", "~nobody-of-this-name/x", "could not determine home"),
        ("OTEL_PIPELINE_METRICS_SPOOL", "/tmp/" + "n" * 300, "File name too long"),  # noqa: S108
        ("OTEL_BSP_SCHEDULE_DELAY", "9" * 30, "is more than 1000000000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 5000, "must be a whole number above 0"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{'a' * 300}.example/", "cannot be reached"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://..:4318", "cannot be reached: Unicode"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", "cannot be reached"),
    ],
)
def test_whatever_a_variable_holds_is_a_problem_and_no_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(command, ["--no-send"])
    assert result.exit_code == 1
    assert expected in result.output


def test_what_is_shown_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_SAMPLER",
        "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS",
    ):
        monkeypatch.setenv(name, "evil\x1b[31m\x07")
    output = CliRunner().invoke(command, ["--no-send"]).output
    assert "evil\ufffd[31m\ufffd" in output
    assert output.replace("\n", "").isprintable()


def test_the_guards_are_shown() -> None:
    limits = texts("limits and guards", env={})
    always = "forbidden attribute keys: the built-in ones"
    assert limits[-4:] == [
        always,
        # no exporter is set
        "forbidden keys are errors, not only dropped (strict): true (default)",
        "values of an attribute on metrics, before further ones become _OTHER: 200 (default)",
        "messages of exceptions on spans: false (default)",
    ]
    variables = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS": "iban, tenant",
        "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES": "50",
        "OTEL_PIPELINE_METRICS_ERROR_MESSAGES": "true",
    }
    assert texts("limits and guards", env=variables)[-4:] == [
        f"{always}, iban, tenant",
        "forbidden keys are errors, not only dropped (strict): false (default)",
        (
            "values of an attribute on metrics, before further ones become _OTHER: 50 "
            "(OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES)"
        ),
        "messages of exceptions on spans: true (OTEL_PIPELINE_METRICS_ERROR_MESSAGES)",
    ]


def test_a_disabled_sdk_is_shown() -> None:
    assert texts("traces", env={"OTEL_SDK_DISABLED": "true"}) == ["off (OTEL_SDK_DISABLED)"]


class TestSpool:
    def test_its_batches_are_counted(self, tmp_path: Path) -> None:
        Spool(tmp_path, 1_000, 1_000).put("traces", b"12345", 1)
        env = {
            "OTEL_PIPELINE_METRICS_SPOOL": str(tmp_path),
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES": "5000",
        }

        assert texts("spool", env=env) == [
            f"{tmp_path} (OTEL_PIPELINE_METRICS_SPOOL), at most 5,000 bytes and 168 h",
            "holds 1 batch, 5 bytes",
        ]

    def test_an_unusable_one_is_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file"

        assert problems(env={"OTEL_PIPELINE_METRICS_SPOOL": str(path)}) == [
            f"{path} cannot be used: File exists"
        ]


class TestReplayCommand:
    @pytest.fixture
    def kept(self, tmp_path: Path) -> Path:
        line = (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"late","traceId":"'
            + b"1" * 32
            + b'","spanId":"'
            + b"2" * 16
            + b'"}]}]}]}\n'
        )
        Spool(tmp_path, 10_000, 1_000).put("traces", line, 1)
        return tmp_path

    def test_a_batch_is_sent(self, kept: Path, collector: Received) -> None:
        result = CliRunner().invoke(replay_command, [str(kept)])

        assert result.exit_code == 0
        assert result.output.startswith("1 span sent to http://127.0.0.1:")
        assert collector.spans == {"late": 1}

    def test_a_batch_that_is_not_taken_stays(self, kept: Path, collector: Received) -> None:
        collector.later = True
        result = CliRunner().invoke(replay_command, [str(kept)])

        assert result.exit_code == 1
        assert "0 spans sent to" in result.output
        assert "1 batch left (" in result.output

    def test_a_refused_batch_is_deleted(self, kept: Path, collector: Received) -> None:
        collector.refuse = True
        result = CliRunner().invoke(replay_command, [str(kept)])

        assert result.exit_code == 0
        assert "1 refused permanently" in result.output

    def test_an_empty_spool_is_shown(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(replay_command, [str(tmp_path)])
        assert (result.exit_code, result.output) == (0, "the spool is empty\n")

    def test_a_missing_directory_is_an_error(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(replay_command, [str(tmp_path / "missing")])
        assert result.exit_code == 2
        directory = tmp_path / "missing"
        assert result.output == f"otel-pipeline-metrics: {directory} is not a directory\n"


PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def test_allowed_keys_are_shown() -> None:
    env = {"OTEL_PIPELINE_METRICS_ALLOWED_KEYS": "user.id, customer.name"}
    assert "allowed attribute keys: user.id, customer.name" in texts("limits and guards", env=env)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file_format: '1.0'", "decides where telemetry goes"),
        ("file_format: '7.0'", "is ignored, and the other variables decide: "),
        (None, "is ignored, and the other variables decide: "),
    ],
)
def test_a_configuration_file_is_read_and_not_applied(
    content: str | None, says: str, tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.configuration")
    path = tmp_path / "otel.yaml"
    if content is not None:
        path.write_text(content)
    env = {"OTEL_CONFIG_FILE": str(path)}
    (line,) = texts("configuration file", env=env)
    assert says in line
    assert (line in problems(env=env)) is ("ignored" in line)


def test_a_configuration_file_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_file, "find_spec", lambda _: None)
    (line,) = problems(env={"OTEL_CONFIG_FILE": "otel.yaml"})
    assert "otel-pipeline-metrics[file-config]" in line


def test_a_value_cannot_make_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "x\n  ok    all is well\r\x1b[2J\x9b2J"
    for name in ("OTEL_SERVICE_NAME", "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS", "OTEL_CONFIG_FILE"):
        monkeypatch.setenv(name, hostile)
    result = CliRunner().invoke(command, ["--no-send"])
    assert "x\ufffd  ok    all is well" in result.output
    assert not any(line.strip().startswith("ok    all") for line in result.output.splitlines())
    assert result.output.replace("\n", "").isprintable()


def test_a_broken_option_is_a_problem_and_the_default_holds() -> None:
    env = {
        "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT": "soon",
        "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES": "all",
    }
    findings = doctor.diagnose(env, send=False)
    first, second = [one.text for one in findings if one.level == "problem"]
    assert first.startswith("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT must be a positive number")
    assert first.endswith("not 'soon'; the default (5.0) is used")
    assert second.startswith("OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES must be a whole number")
    told = [one.text for one in findings if one.topic == "limits and guards"]
    assert "flush at the end, all signals together: at most 5 s (default)" in told
    assert any(line.endswith("_OTHER: 200 (default)") for line in told)
