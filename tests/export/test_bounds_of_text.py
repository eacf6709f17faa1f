"""Bounds of the formatted values and of the environment variables."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otel_pipeline_metrics._export import console_text, environment_checks
from otel_pipeline_metrics._export.console import ConsoleSpanExporter
from otel_pipeline_metrics._export.environment import plan


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1, "{retry}", "1 retry"), (2, "{retry}", "2 retries"), (2, "{batch}", "2 batches"),
        (0, "{item}", "0 items"), (2, "{context_switch}", "2 context switches"),
        (1500, "ms", "1.50 s"), (3, "1", "3"), (3, "", "3"), (3, "V", "3 V"), (2, "{}", "2 "),
    ],
)  # fmt: skip
def test_quantities_have_a_noun_in_the_plural(value: float, unit: str, text: str) -> None:
    assert console_text.quantity(value, unit) == text


def test_an_attribute_value_has_60_characters_at_most() -> None:
    assert console_text.attributes({"a": "x" * 60}) == "a=" + "x" * 60
    assert console_text.attributes({"a": "x" * 61}) == "a=" + "x" * 59 + "…"


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.75, 7.0), (1.0, 9.0)]
)
def test_quantiles_are_linear_within_a_bucket(share: float, value: float) -> None:
    """The buckets from 1 to 9 hold two values, none, and two values."""
    buckets = list(console_text.explicit_buckets([3.0, 5.0], [2, 0, 2], 1.0, 9.0))
    assert console_text.quantile(buckets, share, 1.0, 9.0) == value


def test_the_outer_buckets_end_at_the_extremes() -> None:
    assert list(console_text.explicit_buckets([2.0, 4.0], [1, 1, 1], 0.5, 7.0)) == [
        (0.5, 2.0, 1),
        (2.0, 4.0, 1),
        (4.0, 7.0, 1),
    ]
    # the other buckets are empty, and their bounds stay in order
    above = list(console_text.explicit_buckets([2.0, 4.0], [0, 0, 3], 5.0, 7.0))
    assert above == [(2.0, 2.0, 0), (2.0, 4.0, 0), (4.0, 7.0, 3)]
    assert console_text.quantile(above, 0.0, 5.0, 7.0) == 5.0
    below = list(console_text.explicit_buckets([2.0, 4.0], [3, 0, 0], 0.5, 1.0))
    assert below == [(0.5, 2.0, 3), (2.0, 4.0, 0), (4.0, 4.0, 0)]
    assert list(console_text.explicit_buckets([], [3], 0.5, 7.0)) == [(0.5, 7.0, 3)]
    assert console_text.quantile([(0.0, 8.0, 2)], 0.5, 2.0, 4.0) == 3.0
    assert console_text.quantile([], 0.5, 2.0, 4.0) == 4.0


def test_an_empty_histogram_is_a_count_of_0() -> None:
    assert console_text.histogram(SimpleNamespace(count=0), "s") == "count 0"


def test_the_buckets_of_an_exponential_histogram_are_in_ascending_order() -> None:
    point = SimpleNamespace(
        scale=0,
        negative=SimpleNamespace(offset=1, bucket_counts=[5, 6]),
        zero_count=4,
        positive=SimpleNamespace(offset=-1, bucket_counts=[1, 2]),
    )
    assert list(console_text.exponential_buckets(point)) == [
        (-8.0, -4.0, 6), (-4.0, -2.0, 5), (0.0, 0.0, 4), (0.5, 1.0, 1), (1.0, 2.0, 2),
    ]  # fmt: skip


def span(name: str) -> ReadableSpan:
    return ReadableSpan(name=name, context=SpanContext(1, 1, False), start_time=1, end_time=2)


@pytest.mark.parametrize(
    ("spans", "lines", "last"),
    [
        (20, 20, ""), (21, 20, '… and 1 more "a" span\n'), (22, 20, '… and 2 more "a" spans\n'),
        (1021, 20, '… and 1,001 more "a" spans\n'),
    ],
)  # fmt: skip
def test_at_most_20_lines_of_a_name_are_written(spans: int, lines: int, last: str) -> None:
    stream = io.StringIO()
    exporter = ConsoleSpanExporter(stream)
    exporter.export([span("a")] * spans)
    assert len(stream.getvalue().splitlines()) == lines
    exporter.force_flush()
    assert "".join(stream.getvalue().splitlines(keepends=True)[lines:]) == last


def problems(**env: str) -> tuple[list[str], dict[str, str | None]]:
    found = environment_checks.check(env)
    return [problem.split(" ")[0] for problem in found.problems], found.repairs


@pytest.mark.parametrize(
    ("name", "text", "valid"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "1", True),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", False),
        ("OTEL_BSP_SCHEDULE_DELAY", "1.5", False),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", False),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "0", True),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1", False),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0.5", True),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", False),
        ("OTEL_METRIC_EXPORT_INTERVAL", "inf", False),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan", False),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:65535", True),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1", True),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:0", False),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:65536", False),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", False),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///socket", True),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a b", False),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP", True),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", False),
    ],
)
def test_a_variable_is_valid_or_reported_once(name: str, text: str, valid: bool) -> None:
    named, repairs = problems(**{name: text})
    assert (named, repairs) == (([], {}) if valid else ([name], {name: None}))


@pytest.mark.parametrize(
    ("text", "use"),
    [("0", None), ("1", None), ("0.5", None), ("-0.01", "1"), ("1.01", "1"), ("nan", "1")],
)
def test_a_sampler_ratio_is_from_0_to_1(text: str, use: str | None) -> None:
    name = "OTEL_TRACES_SAMPLER_ARG"
    for sampler in ("traceidratio", "parentbased_traceidratio"):
        named, repairs = problems(**{"OTEL_TRACES_SAMPLER": sampler, name: text})
        assert (named, repairs) == (([], {}) if use is None else ([name], {name: use}))
    assert problems(OTEL_TRACES_SAMPLER="always_on", OTEL_TRACES_SAMPLER_ARG=text) == ([], {})
    assert problems(OTEL_TRACES_SAMPLER="traceidratio") == ([], {name: "1"})


@pytest.mark.parametrize(
    ("queue", "batch", "named", "repairs"),
    [
        ("512", None, [], {}),
        ("511", None, [], {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "511"}),
        (None, "2048", [], {}),
        (None, "2049", ["batch"], {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2048"}),
        ("10", "10", [], {}),
        ("10", "11", ["batch"], {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}),
    ],
)
def test_a_batch_fits_into_its_queue(
    queue: str | None, batch: str | None, named: list[str], repairs: dict[str, str]
) -> None:
    env = {"OTEL_BSP_MAX_QUEUE_SIZE": queue, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": batch}
    found = problems(**{name: text for name, text in env.items() if text is not None})
    assert found == (["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] * len(named), repairs)


def test_40_characters_of_a_broken_value_are_quoted() -> None:
    assert environment_checks.quoted("x" * 40) == repr("x" * 40)
    assert environment_checks.quoted("x" * 41) == repr("x" * 39 + "…")


def test_a_secret_by_itself_has_4_characters_at_least() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_HEADERS": "a=abc, b=abcd",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:pw3@host/path?k=v%41lue&q=123",
    }
    assert environment_checks.secrets(env) == (
        "k=v%41lue&q=123", "k=vAlue&q=123", "user:pw3", "v%41lue", "vAlue", "abcd",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("http://h:4318", "http/protobuf"), ("http://h:4317", "grpc"), ("http://h:4319", "grpc"),
        ("http://h", "grpc"), ("http://h/", "grpc"), ("http://h/otlp", "http/protobuf"),
        ("h:4318", "http/protobuf"), ("unix://h/path", "grpc"),
    ],
)  # fmt: skip
def test_the_protocol_is_guessed_from_the_endpoint(endpoint: str, protocol: str) -> None:
    found = plan({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, installed=lambda *_: False)
    assert (found.protocols["traces"], found.protocols["metrics"]) == (protocol, protocol)


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, 2.0), ({"TIMEOUT": "3"}, 3.0), ({"TIMEOUT": "3", "TRACES_TIMEOUT": "0.5"}, 0.5),
        ({"TIMEOUT": "3", "TRACES_TIMEOUT": "0"}, 3.0), ({"TIMEOUT": "-1"}, 2.0),
    ],
)  # fmt: skip
def test_the_first_valid_timeout_is_used(env: dict[str, str], seconds: float) -> None:
    given: dict[str, Any] = {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in env.items()}
    found = plan(given, ("otlp",), installed=lambda *_: False)
    assert found.timeouts_s["traces"] == seconds
    assert {name for name, value in found.repairs if value is None} == set(given)


def test_beside_a_named_signal_the_other_needs_an_endpoint() -> None:
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}
    found = plan(env, installed=lambda *_: False)
    assert (found.traces, found.metrics) == (("console",), ())


def test_a_broken_endpoint_is_not_completed() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "h:65536",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    found = plan(env, installed=lambda *_: False)
    assert found.repairs == (("OTEL_EXPORTER_OTLP_ENDPOINT", None),)
    assert len(found.problems) == 1


def test_the_time_of_day_has_milliseconds() -> None:
    assert console_text.clock(1_700_000_001.512).endswith(":21.512")
    assert console_text.clock(1_700_000_001.0).endswith(":21.000")
