"""Each rule of what is exported where is one line here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics._export import environment_checks
from otel_pipeline_metrics._export.environment import ExportPlan, endpoint, plan, redact_endpoint

ROOT = Path(__file__).parents[2]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
OTLP = ("otlp",)
CONSOLE = ("console",)


def nothing_installed(group: str, name: str) -> bool:
    return False


def of(
    env: dict[str, str], exporters: tuple[str, ...] | None = None, *installed: str
) -> ExportPlan:
    return plan(env, exporters, installed=lambda group, name: name in installed)


@pytest.mark.parametrize(
    ("env", "traces", "metrics", "source"),
    [
        ({}, (), (), "default"),
        ({"OTEL_SERVICE_NAME": "x"}, (), (), "default"),
        ({ENDPOINT: " "}, (), (), "default"),
        ({ENDPOINT: "http://c:4317"}, OTLP, OTLP, "environment"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, OTLP, OTLP, "environment"),
        ({PROTOCOL: "http/protobuf"}, OTLP, OTLP, "environment"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, OTLP, (), "environment"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, (), OTLP, "environment"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4317"}, (), (), "default"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, OTLP, (), "environment"),
        ({"OTEL_METRICS_EXPORTER": "console"}, (), CONSOLE, "environment"),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c"}, (), OTLP, "environment"),
        ({"OTEL_TRACES_EXPORTER": "console", ENDPOINT: "http://c"}, CONSOLE, OTLP, "environment"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, (), (), "environment"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp, console,otlp", "OTEL_METRICS_EXPORTER": " NONE "},
            ("otlp", "console"),
            (),
            "environment",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_METRICS_EXPORTER": "otlp_proto_grpc"},
            ("otlp_proto_http",),
            ("otlp_proto_grpc",),
            "environment",
        ),
    ],
)
def test_the_environment_chooses_the_exporters(
    env: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...], source: str
) -> None:
    decided = of(env)

    assert (traces, metrics, source, ()) == (
        decided.traces,
        decided.metrics,
        decided.source,
        decided.problems,
    )


def test_disabled_wins_over_everything() -> None:
    decided = of({"OTEL_SDK_DISABLED": " True", ENDPOINT: "http://c"}, ("otlp",))

    assert (
        decided.disabled,
        decided.traces,
        decided.metrics,
        decided.problems,
    ) == (True, (), (), ())


@pytest.mark.parametrize(
    ("argument", "expected"),
    [(("otlp",), OTLP), (("none",), ()), (("otlp", "console"), ("otlp", "console"))],
)
def test_an_argument_wins_over_the_environment(
    argument: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    decided = of({"OTEL_TRACES_EXPORTER": "zipkin"}, argument)

    assert (expected, expected, "argument", ()) == (
        decided.traces,
        decided.metrics,
        decided.source,
        decided.problems,
    )


def test_other_exporter_names_are_entry_points() -> None:
    decided = of({"OTEL_METRICS_EXPORTER": "prometheus,otlp"}, None, "prometheus")

    assert decided.metrics == ("prometheus", "otlp")
    assert decided.problems == ()


@pytest.mark.parametrize(
    ("env", "protocol"),
    [
        ({ENDPOINT: "http://c:4317"}, "grpc"),
        ({ENDPOINT: "http://c:4318"}, "http/protobuf"),
        ({ENDPOINT: "c:4318"}, "http/protobuf"),
        ({ENDPOINT: "https://c"}, "grpc"),
        ({ENDPOINT: "https://c/"}, "grpc"),
        ({ENDPOINT: "https://gateway.example/otlp"}, "http/protobuf"),
        ({ENDPOINT: "unix:///run/otel.sock"}, "grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:80/v1/traces"}, "http/protobuf"),
        ({ENDPOINT: "http://c:4318", PROTOCOL: "grpc"}, "grpc"),
        ({ENDPOINT: "http://c:4317", PROTOCOL: "HTTP/protobuf "}, "http/protobuf"),
        (
            {PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http/protobuf",
        ),
    ],
)
def test_the_protocol_comes_from_its_variable_or_the_endpoint(
    env: dict[str, str], protocol: str
) -> None:
    assert protocol == of(env).protocols["traces"]


def test_each_signal_has_its_own_protocol() -> None:
    decided = of(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4317",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:4318/v1/metrics",
        }
    )

    assert (decided.protocols["traces"], decided.protocols["metrics"]) == ("grpc", "http/protobuf")


def test_json_needs_its_package() -> None:
    env = {PROTOCOL: "http/json", ENDPOINT: "http://c:4318"}

    assert of(env, None, "otlp_json_http").protocols["traces"] == "http/json"
    without = of(env)
    assert without.protocols["traces"] == "http/protobuf"
    assert (
        (
            f"{PROTOCOL} asks for http/json, which needs the package "
            "opentelemetry-exporter-otlp-json-http; http/protobuf is used"
        ),
    ) == without.problems


@pytest.mark.parametrize(
    ("env", "traces", "metrics"),
    [
        ({}, 2.0, 2.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2.5"}, 2.5, 2.5),
        (
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "3", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "4"},
            3.0,
            4.0,
        ),
    ],
)
def test_timeouts_are_in_seconds(env: dict[str, str], traces: float, metrics: float) -> None:
    decided = of({ENDPOINT: "http://c", **env})

    assert (traces, metrics, ()) == (
        decided.timeouts_s["traces"],
        decided.timeouts_s["metrics"],
        decided.problems,
    )


@pytest.mark.parametrize(
    ("name", "value", "problem", "repair"),
    [
        (
            PROTOCOL,
            "thrift",
            "must be one of grpc, http/protobuf, http/json, not 'thrift'; grpc",
            None,
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "soon",
            "must be a number of seconds above 0, not 'soon'",
            None,
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "must be a number of seconds above 0, not '0'", None),
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "zip",
            "must be one of none, gzip, deflate, not 'zip'",
            None,
        ),
        (
            "OTEL_METRIC_EXPORT_INTERVAL",
            "1m",
            "must be a number of milliseconds above 0, not '1m'",
            None,
        ),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "must be a number of milliseconds above 0", None),
        (
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "-1",
            "must be a number of milliseconds above 0, not '-1'; 30000 is used",
            None,
        ),
        (
            "OTEL_BSP_SCHEDULE_DELAY",
            "5s",
            "must be a whole number above 0, not '5s'; 5000 is used",
            None,
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "0",
            "must be a whole number above 0, not '0'; 2048 is used",
            None,
        ),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "is larger than the queue of 2048", "2048"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "many", "must be a whole number, not 'many'", None),
        ("OTEL_TRACES_SAMPLER", "often", "must be one of parentbased_always_on, ", None),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "x", "must be one of trace_based", None),
        ("OTEL_SDK_DISABLED", "1", "must be one of false, true, not '1'; false is used", None),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "a=1,secret,b=2",
            "must be key=value pairs separated by commas; left out: number 2 of 3",
            "a=1,b=2",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Bearer s3cret",
            "must be key=value pairs separated by commas; left out: number 1 of 1",
            None,
        ),
        (ENDPOINT, "http://u:s3cret@c:99999/x?k=s3cret", "must be a usable URL", None),
        (ENDPOINT, "http://", "must be a usable URL, not 'http://'", None),
        (ENDPOINT, "http://[::1", "must be a usable URL, not '<unreadable endpoint>'", None),
    ],
)
def test_a_broken_value_is_one_problem(
    name: str, value: str, problem: str, repair: str | None
) -> None:
    decided = of({ENDPOINT: "http://c:4317", name: value})

    assert len(decided.problems) == 1
    assert decided.problems[0].startswith(f"{name} {problem}")
    assert "s3cret" not in decided.problems[0]
    assert (name, repair) in decided.repairs
    assert OTLP == decided.traces == decided.metrics


def test_an_unknown_exporter_is_left_out() -> None:
    decided = of({"OTEL_TRACES_EXPORTER": "jaegr,console", "OTEL_METRICS_EXPORTER": "none"})

    assert decided.traces == CONSOLE
    assert decided.problems == (
        "OTEL_TRACES_EXPORTER names exporters that cannot be used here: 'jaegr'; console is used",
    )


@pytest.mark.parametrize(
    ("env", "console", "traces", "metrics"),
    [
        ({}, "all", CONSOLE, CONSOLE),
        ({}, "off", (), ()),
        ({ENDPOINT: "http://c"}, "all", ("otlp", "console"), ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "console"}, "all", CONSOLE, CONSOLE),
        ({"OTEL_TRACES_EXPORTER": "console"}, "off", (), ()),
        ({"OTEL_METRICS_EXPORTER": "otlp,console"}, "off", (), OTLP),
        (
            {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"},
            "all",
            CONSOLE,
            CONSOLE,
        ),
        ({"OTEL_SDK_DISABLED": "true"}, "all", (), ()),
        ({"OTEL_TRACES_EXPORTER": "console"}, "summary", CONSOLE, ()),
    ],
)
def test_the_console_is_added_or_removed_last(
    env: dict[str, str], console: str, traces: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    decided = plan(env, None, console, installed=lambda _group, _name: False)

    assert (decided.traces, decided.metrics) == (traces, metrics)
    assert decided.every_span == (console == "all")


def test_with_only_unknown_exporters_the_default_is_used() -> None:
    decided = of({"OTEL_TRACES_EXPORTER": "jaegr"})

    assert (decided.traces, decided.metrics) == ((), ())
    assert len(decided.problems) == 1


def test_a_sampler_ratio_out_of_range_is_replaced() -> None:
    name = "OTEL_TRACES_SAMPLER_ARG"
    decided = of({"OTEL_TRACES_SAMPLER": "traceidratio", name: "7"})

    assert (f"{name} must be a ratio from 0 to 1, not '7'; 1 is used",) == decided.problems
    assert (name, "1") in decided.repairs


def test_a_small_queue_limits_the_batch_without_a_warning() -> None:
    """The SDK raises a ValueError for a small queue alone, which is not a user error."""
    decided = of({"OTEL_BSP_MAX_QUEUE_SIZE": "100"})

    assert decided.problems == ()
    assert decided.repairs == (("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100"),)


def test_http_completes_an_endpoint_without_a_scheme() -> None:
    decided = of({ENDPOINT: "collector:4318"})

    assert (f"{ENDPOINT} has no http:// or https://; http:// is used",) == decided.problems
    assert decided.repairs == ((ENDPOINT, "http://collector:4318"),)


@pytest.mark.parametrize(
    ("env", "protocol", "expected"),
    [
        ({}, "grpc", "http://localhost:4317"),
        ({}, "http/protobuf", "http://localhost:4318/v1/traces"),
        ({ENDPOINT: "http://u:p@c:4318/"}, "http/protobuf", "http://c:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces?key=s3cret"},
            "http/protobuf",
            "https://c/v1/traces",
        ),
        ({ENDPOINT: "c:4317"}, "grpc", "c:4317"),
    ],
)
def test_the_endpoint_is_completed_and_redacted(
    env: dict[str, str], protocol: str, expected: str
) -> None:
    assert expected == endpoint(env, "traces", protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://user:pass@host:1/p?q=1#f", "http://host:1/p"),
        ("user:pass@host:1", "host:1"),
        ("http://[::1]:4317", "http://[::1]:4317"),
        ("http://[::1", "<unreadable endpoint>"),
    ],
)
def test_an_endpoint_is_redacted(url: str, expected: str) -> None:
    assert expected == redact_endpoint(url)


NAMES = sorted(
    {ENDPOINT, PROTOCOL, "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED"}
    | {"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_TRACES_SAMPLER_ARG"}
    | set(environment_checks._RULES)
    | set(environment_checks._PAIRS)
)


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)))
def test_no_environment_makes_it_raise(env: dict[str, str]) -> None:
    decided = plan(env, installed=nothing_installed)

    assert len(decided.problems) == len(set(decided.problems))


@given(st.text(min_size=8, max_size=30).filter(lambda text: "=" not in text and "," not in text))
def test_no_problem_quotes_a_header(secret: str) -> None:
    secret = f"§{secret}"  # our own sentences never contain this character
    decided = plan({"OTEL_EXPORTER_OTLP_HEADERS": secret}, installed=nothing_installed)

    assert not any(secret in problem for problem in decided.problems)


def test_the_environment_is_read_without_the_sdk() -> None:
    code = (
        "import sys, otel_pipeline_metrics._export.environment;"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
