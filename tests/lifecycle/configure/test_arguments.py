"""Test that bad arguments raise errors and bad variables cause one warning."""

from __future__ import annotations

import inspect
import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import options, settings
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lifecycle.configure.support import Captured


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"service_name": 7}, TypeError, "service_name must be a string, not int"),
        ({"service_name": ""}, ValueError, "service_name must not be empty"),
        ({"service_name": "  "}, ValueError, "service_name must not be empty"),
        ({"exporter": "jaeger"}, ValueError, "exporter must be of otlp, console, prometheus, none"),
        ({"exporter": ["otlp", "zipkin"]}, ValueError, "exporter must be of .* not 'zipkin'"),
        ({"exporter": []}, ValueError, "exporter must not be empty"),
        ({"exporter": ("none", "otlp")}, ValueError, 'exporter "none" stands alone'),
        ({"exporter": 1}, TypeError, "exporter must be a string or a sequence"),
        ({"exporter": [["otlp"]]}, ValueError, "exporter must be of"),
        ({"tracer_provider": "mine"}, TypeError, "tracer_provider must be .* not str"),
        ({"meter_provider": object()}, TypeError, "meter_provider must be .* not object"),
        ({"resource_attributes": [("a", 1)]}, TypeError, "resource_attributes must be a mapping"),
        ({"resource_attributes": {"a": object()}}, TypeError, r"resource_attributes\['a'\]"),
        ({"resource_attributes": {1: "a"}}, TypeError, "resource_attributes: keys must be strings"),
        ({"metric_attributes": "tenant"}, TypeError, "metric_attributes must be a sequence"),
        ({"metric_attributes": 3}, TypeError, "metric_attributes must be a sequence"),
        ({"metric_attributes": [""]}, ValueError, "metric_attributes must not be empty"),
        ({"metric_attributes": [1]}, TypeError, "metric_attributes must be a string, not int"),
        ({"console": "stderr"}, ValueError, 'console must be "off", "summary" or "all"'),
        ({"console": 1}, TypeError, 'console must be "off", "summary", "all", a text stream'),
        ({"console": "off", "exporter": "console"}, ValueError, 'console="off" and exporter='),
        ({"console": False, "exporter": ["otlp", "console"]}, ValueError, "contradict each other"),
    ],
    # an address would make another id of it in each worker
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_an_error_names_the_bad_argument(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        opm.configure(**arguments)


def test_the_signature_and_the_table_of_options_agree() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(opm.configure).parameters.items()
    }
    assert defaults == {option.name: option.default for option in options.OPTIONS if option.name}


def test_a_default_resolves_to_the_default_setting() -> None:
    resolved = options.resolve({o.name: o.default for o in options.OPTIONS if o.name})
    assert vars(resolved) == vars(settings.Config())


def test_every_variable_in_the_code_is_an_option() -> None:
    package = Path(opm.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    # most variables are named by their option alone; docs/configuration.md has them all
    variables = {option.variable for option in options.OPTIONS if option.variable}
    named = set(re.findall(r"OTEL_PIPELINE_METRICS_[A-Z_]+", text))
    assert named - variables == options._OTHER_VARIABLES
    documented = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(OTEL_PIPELINE_METRICS_[A-Z_]+)`", documented)) >= variables


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        opm.configure("my-service")  # type: ignore[misc]


def test_a_bad_argument_leaves_the_configuration_in_force(captured: Captured) -> None:
    captured.configure()
    with pytest.raises(ValueError, match="exporter"):
        opm.configure(exporter="jaeger")  # type: ignore[arg-type]
    with opm.stage("still here"):
        pass
    assert captured.span_names() == ["still here"]


def test_an_error_names_a_provider_of_the_wrong_signal(captured: Captured) -> None:
    with pytest.raises(TypeError, match=r"tracer_provider must be .* not MeterProvider"):
        opm.configure(tracer_provider=captured.meter_provider)  # type: ignore[arg-type]


def test_a_no_op_tracer_provider_means_metrics_only(captured: Captured) -> None:
    opm.configure(
        tracer_provider=trace.NoOpTracerProvider(), meter_provider=captured.meter_provider
    )
    with opm.run("metrics-only", resources=False) as run, opm.stage("counted"):
        pass
    assert captured.values("pipeline.stage.duration", "pipeline.stage.name") == {"counted": 1}
    assert run.report.run["trace_id"] is None


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_PIPELINE_METRICS_CONSOLE", "maybe", "must be off, summary or all, not 'maybe'"),
        ("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "soon", "must be a positive number of seconds"),
        ("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "-1", "must be a positive number of seconds"),
        ("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "nan", "must be a positive number of seconds"),
        ("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "inf", "must be a positive number of seconds"),
    ],
)
def test_a_broken_variable_causes_one_warning(
    captured: Captured,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(variable, value)
    for _ in range(2):
        captured.configure()
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.getMessage().startswith(variable)
    assert says in record.getMessage()
    assert settings.settings().flush_timeout_s == 5.0


def test_variables_of_the_library_are_read(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_CONSOLE", "False")
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "1.5")
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES", "tenant, region,")
    captured.configure(metric_attributes=["tenant", "kind"])
    config = settings.settings()
    assert (config.console, config.flush_timeout_s) == ("off", 1.5)
    assert config.metric_attributes == ("tenant", "kind", "region")


def test_an_argument_wins_over_the_variable(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_CONSOLE", "true")
    captured.configure(console=False)
    assert settings.settings().console == "off"


def test_only_named_attributes_reach_the_metrics(captured: Captured) -> None:
    captured.configure(metric_attributes=("tenant",))

    @opm.stage(attributes={"tenant": "a", "shard": "b"})
    def work() -> None:
        opm.current_stage().set_attribute("row", 7)

    work()
    (span,) = captured.spans()
    given = dict(span.attributes or {})
    assert (given["tenant"], given["shard"], given["row"]) == ("a", "b", 7)
    (point,) = captured.points()["pipeline.stage.duration"]
    assert dict(point.attributes) == {"pipeline.stage.name": "work", "tenant": "a"}


@pytest.fixture
def resource_of() -> Iterator[Callable[..., dict[str, Any]]]:
    """Return the resource of the providers that `configure()` builds."""

    def made(**arguments: Any) -> dict[str, Any]:
        opm.configure(exporter="console", **arguments)
        return dict(trace.get_tracer_provider().resource.attributes)  # type: ignore[attr-defined]

    yield made
    opm.shutdown()


def test_the_resource_tells_the_process_apart(
    resource_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__version__", raising=False)
    resource = resource_of(service_name="no such distribution")
    assert resource["host.name"] == socket.gethostname()
    assert resource["process.pid"] == os.getpid()
    assert "service.version" not in resource


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_what_is_set_of_the_resource_wins(
    way: str, resource_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"host.name": "given", "process.pid": "7", "service.version": "1.2"}
    monkeypatch.setattr(sys.modules["__main__"], "__version__", "9", raising=False)
    if way == "variable":
        text = ",".join(f"{key}={value}" for key, value in given.items())
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", text)
        given_argument = {}
    else:
        given_argument = given
    resource = resource_of(resource_attributes=given_argument)
    assert {key: resource[key] for key in given} == given


def test_the_services_version_where_it_is_known(
    resource_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = sys.modules["__main__"]
    monkeypatch.delattr(main, "__version__", raising=False)
    assert resource_of(service_name="pytest")["service.version"] == pytest.__version__
    monkeypatch.setattr(main, "__version__", "9.1", raising=False)
    assert resource_of(service_name="another")["service.version"] == "9.1"


def test_service_name_and_resource_attributes_are_on_built_providers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    opm.configure(
        service_name="nightly", exporter="console", resource_attributes={"deployment": "test"}
    )
    resource = trace.get_tracer_provider().resource.attributes  # type: ignore[attr-defined]
    assert (resource["service.name"], resource["deployment"]) == ("nightly", "test")
    opm.shutdown()
    capsys.readouterr()
