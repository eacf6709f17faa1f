"""One value that no encoder takes costs its own field, or at last its own span or point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.cleaning import MAX_INT
from otel_pipeline_metrics._export.delivery.counting_exporters import CountingSpanExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._probes.queues import registry as queues_registry
from otel_pipeline_metrics.report import RunReport
from tests.export.conftest import points, spans
from tests.lifecycle.configure.support import clean_slate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_pipeline_metrics._export.flush import ExportPipeline
    from tests.export.conftest import Received


BAD = "caf\udce9"
CLEAN = r"caf\udce9"
HUGE = 10**400


@pytest.fixture(autouse=True)
def slate() -> Iterator[None]:
    with clean_slate():
        errors.reset()
        yield
    # neither the queue nor the caches are to be in the metrics of other tests
    for name in (BAD, BAD + "2"):
        opm.unregister_cache(name)
    queues_registry.queues.reset()


@pytest.fixture(params=["http/protobuf", "grpc"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Received:
    name = "grpc_collector" if request.param == "grpc" else "http_collector"
    received: Received = request.getfixturevalue(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return received


def run_with_hostile_values(report: Path | None = None) -> RunReport:
    """Give every argument that ends in telemetry a value that OTLP cannot carry."""
    error = type("E", (Exception,), {"__module__": "m", "__qualname__": "Caf\udce9Error"})
    with opm.run(BAD, report=report, attributes={BAD: BAD, "n": HUGE, "l": [1, "a"]}) as run:
        with opm.stage(BAD, kind=BAD, attributes={BAD: BAD, "chosen": [BAD, 1]}) as stage:
            stage.add_items(HUGE, "in")
            for _ in range(2):
                stage.add_items(MAX_INT)
                stage.add_bytes(2**64 - 1)
            stage.set_attribute("n", HUGE)
            stage.set_attribute("l", (True, 1.5))
            stage.retry(BAD)
            stage.retry(error)
        for _ in range(2):
            with pytest.raises(error), opm.stage("fails"):
                raise error(BAD)
        queue = opm.wrap_queue(Levels(), name=BAD)
        queue.put(1)
        queue.get()
        opm.register_cache(BAD, lambda: {"hits": HUGE, "misses": 2**64, "size_bytes": 2**70})
        manual = opm.get_metrics_collector()
        for _ in range(3):
            manual.record_stage(BAD, HUGE, HUGE)
            manual.record_stage("infinite", 1e308)
        manual.record_cache(BAD + "2", HUGE, 0, 2**70, 2**70)
        manual.record_resources(1e308, 1e308)
        with opm.stage("late") as stage:
            stage.event_time(-1e308)
            stage.event_time(1e308)
            with pytest.raises(ValueError, match="timestamp must be finite"):
                stage.event_time(HUGE)
        with opm.stage("good") as stage:
            stage.add_items(3)
    return run.report


class Levels:
    """A queue whose level and limit are absurd."""

    maxsize = 2**70

    def __init__(self) -> None:
        self._items: list[Any] = []

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        return self._items.pop()

    def qsize(self) -> int:
        return 2**70 if self._items else 2**71


def test_everything_arrives_but_the_values_themselves(
    collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"team={BAD}")
    opm.configure(
        service_name=BAD,
        console=False,
        error_messages=True,
        metric_attributes=["chosen", BAD],
        resource_attributes={BAD: BAD, "n": HUGE},
    )
    path = tmp_path / "report.json"
    report = run_with_hostile_values(path)
    opm.shutdown()
    for signal in ("spans", "metric_points"):
        state = opm.stats()[signal]
        assert state["dropped"] == state["pending"] == 0
        assert state["exported"] == state["created"] - state["sampled_out"] > 0
    assert collector.spans[CLEAN] == 1
    assert collector.spans[f"run {CLEAN}"] == 1
    assert collector.spans["fails"] == 2
    assert collector.points["pipeline.stage.duration"] == 6
    assert collector.points["pipeline.cache.requests"] == 4
    assert all(found["service.name"] == CLEAN for found in collector.resources)
    assert all(found["team"] == CLEAN for found in collector.resources)
    assert RunReport.load(path) == report


def test_totals_saturate(captured_points: Callable[[], dict[str, Any]]) -> None:
    for _ in range(3):
        with opm.stage("s") as stage:
            stage.add_bytes(MAX_INT - 1)
        captured_points()
    with opm.stage("s") as stage:
        stage.add_bytes(7)
    (total,) = [
        point.value
        for point in captured_points()["pipeline.stage.io"]
        if point.attributes["pipeline.stage.name"] == "s"
    ]
    assert total == MAX_INT


@pytest.fixture
def captured_points() -> Iterator[Callable[[], dict[str, Any]]]:
    from tests.lifecycle.configure.support import Captured  # its fixtures are elsewhere

    providers = Captured()
    providers.configure()
    yield providers.points
    providers.close()


def test_reports_are_written_in_every_format(tmp_path: Path) -> None:
    opm.configure(exporter="none", console=False)
    path = tmp_path / "report.json"
    report = run_with_hostile_values(path)
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert data == report.to_dict()
    names = [stage["name"] for stage in data["stages"]]
    assert names == [CLEAN, "fails", CLEAN, "infinite", "late", "good"]
    assert data["stages"][1]["errors"]["by_type"] == {r"m.Caf\udce9Error": 2}
    assert data["stages"][3]["duration_s"]["total"] == 3.0 * MAX_INT
    assert data["stages"][-1]["items"] == {"in": None, "out": 3}
    for name in ("console", "html", "json", "markdown"):
        page = report.render(name)  # type: ignore[arg-type]
        assert page.encode()
        assert "caf" in page


def test_a_scrape_by_prometheus_has_every_series() -> None:
    reader = PrometheusMetricReader()
    opm.configure(
        tracer_provider=NoOpTracerProvider(),
        meter_provider=MeterProvider([reader], shutdown_on_exit=False),
        console=False,
        metric_attributes=["chosen", BAD],
    )
    run_with_hostile_values()
    text = generate_latest(REGISTRY).decode()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert "pipeline_stage_duration_seconds" in families
    assert r'pipeline_stage_name="caf\\udce9"' in text
    reader.shutdown()


class TestWhatTheProgramMakesItself:
    """Its own spans and metrics, on our providers, come to the exporter unseen."""

    @staticmethod
    def use(count: int = 3) -> None:
        tracer = trace.get_tracer("mine")
        for name in ("bad \udce9", *["good"] * count):
            tracer.start_span(name).end()
        counter = metrics.get_meter("mine").create_counter("mine")
        counter.add(2**70, {"which": "bad"})
        for n in range(count):
            counter.add(1, {"which": n})
        metrics.get_meter("mine").create_counter("only.bad").add(2**70)

    def test_a_span_or_point_is_dropped_and_the_others_arrive(
        self, collector: Received, build: Callable[..., ExportPipeline], caplog: Any
    ) -> None:
        telemetry = build()
        self.use()
        telemetry.flush(5)
        assert collector.spans == {"good": 3}
        assert collector.points["mine"] == 3
        assert collector.points["only.bad"] == 0
        assert (spans(telemetry).exported, spans(telemetry).dropped) == (3, 1)
        assert points(telemetry).dropped == 2
        assert points(telemetry).exported == collector.points.total()
        # the cumulative total holds the value at every later collection, too
        telemetry.flush(5)
        assert points(telemetry).dropped == 4
        assert points(telemetry).exported == collector.points.total()
        assert collector.points["mine"] == 6
        said = [record.message for record in caplog.records if "cannot carry" in record.message]
        assert len(said) == 2

    def test_of_what_goes_to_the_disk_too(
        self,
        collector: Received,
        build: Callable[..., ExportPipeline],
        tmp_path: Path,
    ) -> None:
        collector.later = True
        telemetry = build(spool=tmp_path)
        self.use()
        telemetry.flush(20)
        # the pause after the failure: the batch is never encoded for the network
        self.use()
        telemetry.flush(20)
        assert (spans(telemetry).spooled, spans(telemetry).dropped) == (6, 2)
        assert points(telemetry).dropped == 4
        assert collector.spans == {}
        collector.later = False
        for exporter in telemetry._counting:
            exporter.delivery._paused_until = 0.0
        telemetry.flush(5)
        trace.get_tracer("mine").start_span("good").end()
        telemetry.shutdown(5)
        assert collector.spans == {"good": 7}
        assert (spans(telemetry).spooled, spans(telemetry).exported) == (0, 7)

    def test_a_batch_of_nothing_else_is_dropped(
        self, collector: Received, build: Callable[..., ExportPipeline]
    ) -> None:
        telemetry = build()
        self.use(0)
        telemetry.flush(5)
        assert (spans(telemetry).exported, spans(telemetry).dropped) == (0, 1)
        assert points(telemetry).dropped == 2
        assert (collector.spans, collector.points["mine"]) == ({}, 0)


def test_an_exporter_that_fails_otherwise_is_not_tried_again() -> None:
    class Refusing(SpanExporter):
        calls = 0

        def export(self, spans: Any) -> SpanExportResult:
            self.calls += 1
            return SpanExportResult.FAILURE

    refusing = Refusing()
    ledger = ExportLedger("traces", "other", "entry point")
    counting = CountingSpanExporter(refusing, ledger)
    counting.export((ended_span(),))
    assert (refusing.calls, ledger.failed) == (1, 1)
    counting.shutdown()


def ended_span() -> ReadableSpan:
    from opentelemetry.sdk.trace import TracerProvider

    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s")
    span.end()
    return span  # type: ignore[return-value]
