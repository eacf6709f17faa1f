"""Test the probes' metrics as the SDK exports them."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import Counter, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View

from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._core.metric_definitions import Metric
from otel_pipeline_metrics._probes.caches.register import (
    counted_cache,
    install_caches,
    register_cache,
)
from otel_pipeline_metrics._probes.manual import Records
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._probes.resources.instruments import install_resources
from otel_pipeline_metrics._telemetry.instruments import InstrumentSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock
    from tests.probes.conftest import Machine

Points = dict[tuple[str, ...], float]


class Exported:
    """A provider with a reader, and the points of the library's scope."""

    def __init__(
        self, install: Callable[[InstrumentSet], None], readers: int = 1, **options: Any
    ) -> None:
        self.readers = [InMemoryMetricReader() for _ in range(readers)]
        self.provider = MeterProvider(self.readers, **options)
        self.instruments = InstrumentSet(self.provider.get_meter("probes"))
        install(self.instruments)

    def metrics(self, reader: int = 0) -> dict[str, Any]:
        data = self.readers[reader].get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "probes"
            for metric in scope.metrics
            if metric.data.data_points
        }

    def points(self, reader: int = 0) -> dict[str, Points]:
        """Return points by metric and attribute values."""
        return {
            name: {
                tuple(str(v) for v in (point.attributes or {}).values()): point.value
                for point in metric.data.data_points
            }
            for name, metric in self.metrics(reader).items()
        }

    def close(self) -> None:
        self.provider.shutdown()


@pytest.fixture
def exported() -> Iterator[Callable[..., Exported]]:
    made: list[Exported] = []

    def make(*arguments: Any, **options: Any) -> Exported:
        made.append(Exported(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def contrib() -> Iterator[SystemMetricsInstrumentor]:
    """Return contrib's real instrumentor; uninstrument it afterwards."""
    instrumentor = SystemMetricsInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def described(metric: Any) -> tuple[str, str]:
    """Return kind and unit as the conventions write them."""
    kind = type(metric.data).__name__.lower()
    if kind == "sum":
        kind = "counter" if metric.data.is_monotonic else "updowncounter"
    return kind, metric.unit


def requests(name: str, hits: int, misses: int) -> Points:
    return {(name, "hit"): hits, (name, "miss"): misses}


def test_cache_metrics_are_exported(exported: Callable[..., Exported]) -> None:
    export = exported(install_caches)
    register_cache(
        "full",
        lambda: {
            "hits": 3,
            "misses": 1,
            "evictions": 5,
            "expirations": 6,
            "entries": 7,
            "size_bytes": 8,
        },
    )

    assert export.points() == {
        "pipeline.cache.requests": {("full", "hit"): 3, ("full", "miss"): 1},
        "pipeline.cache.evictions": {("full",): 5},
        "pipeline.cache.expirations": {("full",): 6},
        "pipeline.cache.entry.count": {("full",): 7},
        "pipeline.cache.size": {("full",): 8},
        "pipeline.cache.hit.ratio": {("full",): 0.75},
    }
    metrics = export.metrics()
    assert {name: described(metric) for name, metric in metrics.items()} == {
        "pipeline.cache.requests": ("counter", "{request}"),
        "pipeline.cache.evictions": ("counter", "{entry}"),
        "pipeline.cache.expirations": ("counter", "{entry}"),
        "pipeline.cache.entry.count": ("updowncounter", "{entry}"),
        "pipeline.cache.size": ("updowncounter", "By"),
        "pipeline.cache.hit.ratio": ("gauge", "1"),
    }
    (hit, miss) = metrics["pipeline.cache.requests"].data.data_points
    assert hit.attributes == {"cache.name": "full", "cache.request.type": "hit"}
    assert miss.attributes == {"cache.name": "full", "cache.request.type": "miss"}


def test_unknown_values_have_no_points(exported: Callable[..., Exported]) -> None:
    export = exported(install_caches)
    assert export.points() == {}

    register_cache("unused", lambda: {"hits": 0, "misses": 0})

    assert export.points() == {"pipeline.cache.requests": requests("unused", 0, 0)}


def test_a_collection_reads_each_source_once_and_the_next_one_again(
    exported: Callable[..., Exported],
) -> None:
    calls = 0

    def source() -> dict[str, int]:
        nonlocal calls
        calls += 1
        return {"hits": calls, "misses": 0, "entries": calls}

    export = exported(install_caches, readers=2)
    register_cache("counting", source)
    for collection in range(1, 5):
        points = export.points(collection % 2)
        assert points["pipeline.cache.requests"]["counting", "hit"] == collection
        assert points["pipeline.cache.entry.count"]["counting",] == collection
    assert calls == 4


@pytest.mark.parametrize("dropped", ["pipeline.cache.requests", "pipeline.cache.hit.ratio"])
def test_a_dropped_metric_does_not_freeze_the_others(
    exported: Callable[..., Exported], dropped: str
) -> None:
    export = exported(
        install_caches,
        views=[View(instrument_name=dropped, aggregation=DropAggregation())],
    )
    records = Records()
    for total in (1, 2, 3):
        records.record_cache("manual", 1, 0, evictions=1)
        points = export.points()
        assert dropped not in points
        assert points["pipeline.cache.evictions"] == {("manual",): total}


def test_a_cleared_lru_cache_exports_no_negative_delta(exported: Callable[..., Exported]) -> None:
    export = exported(install_caches)
    delta = InMemoryMetricReader(
        preferred_temporality={
            ObservableCounter: AggregationTemporality.DELTA,
            Counter: AggregationTemporality.DELTA,
        }
    )
    provider = MeterProvider([delta])
    install_caches(InstrumentSet(provider.get_meter("probes")))
    export.readers.append(delta)
    cached = functools.lru_cache(str)
    register_cache("cleared", cached)
    cached(1)
    cached(1)

    assert export.points(1)["pipeline.cache.requests"] == requests("cleared", 1, 1)
    cached.cache_clear()
    assert export.points(1)["pipeline.cache.requests"] == requests("cleared", 0, 0)
    cached(2)
    assert export.points(1)["pipeline.cache.requests"] == requests("cleared", 0, 1)
    assert export.points(0)["pipeline.cache.requests"] == requests("cleared", 1, 2)
    provider.shutdown()


def test_a_retired_set_does_not_read(exported: Callable[..., Exported]) -> None:
    calls: list[int] = []
    export = exported(install_caches)
    register_cache("name", lambda: calls.append(1))
    export.instruments.retire()

    assert export.points() == {}
    assert calls == []


def test_the_first_export_has_an_exact_utilization_however_soon_it_comes(
    machine: Machine, clock: Clock, exported: Callable[..., Exported]
) -> None:
    export = exported(install_resources)
    clock.advance(0.002)
    machine.user_s += 0.001

    points = export.points()
    assert points["process.cpu.utilization"] == {(): pytest.approx(0.25)}
    assert "system.cpu.utilization" not in points


def test_resource_metrics_are_exported(
    machine: Machine, clock: Clock, exported: Callable[..., Exported]
) -> None:
    """The first export has a utilisation, since installation takes a first reading."""
    export = exported(install_resources)
    clock.advance(10)
    machine.user_s, machine.system_s = 4.0, 1.0
    machine.switches = (11, 12)
    machine.disk = (100, 200)
    machine.network = (300, 400)
    machine.cpu["user"], machine.cpu["idle"] = 15.0, 5.0

    assert export.points() == {
        "process.cpu.time": {("user",): 4.0, ("system",): 1.0},
        "process.cpu.utilization": {(): 0.25},
        "process.memory.usage": {(): 1000},
        "process.memory.virtual": {(): 5000},
        "process.thread.count": {(): 3},
        "process.unix.file_descriptor.count": {(): 7},
        "process.disk.io": {("read",): 100, ("write",): 200},
        "process.context_switches": {("voluntary",): 11, ("involuntary",): 12},
        "system.cpu.utilization": {(): 0.75},
        "system.memory.usage": {("used",): 250},
        "system.memory.utilization": {("used",): 0.25},
        "system.network.io": {("receive",): 300, ("transmit",): 400},
        "system.disk.io": {("read",): 0, ("write",): 0},
        "system.filesystem.utilization": {("/", "used"): 0.25},
    }
    metrics = export.metrics()
    assert {name: described(metric) for name, metric in metrics.items()} == {
        "process.cpu.time": ("counter", "s"),
        "process.cpu.utilization": ("gauge", "1"),
        "process.memory.usage": ("updowncounter", "By"),
        "process.memory.virtual": ("updowncounter", "By"),
        "process.thread.count": ("updowncounter", "{thread}"),
        "process.unix.file_descriptor.count": ("updowncounter", "{file_descriptor}"),
        "process.disk.io": ("counter", "By"),
        "process.context_switches": ("counter", "{context_switch}"),
        "system.cpu.utilization": ("gauge", "1"),
        "system.memory.usage": ("updowncounter", "By"),
        "system.memory.utilization": ("gauge", "1"),
        "system.network.io": ("counter", "By"),
        "system.disk.io": ("counter", "By"),
        "system.filesystem.utilization": ("gauge", "1"),
    }
    assert {
        key
        for metric in metrics.values()
        for point in metric.data.data_points
        for key in point.attributes
    } == {
        "cpu.mode",
        "disk.io.direction",
        "network.io.direction",
        "process.context_switch.type",
        "system.filesystem.mountpoint",
        "system.filesystem.state",
        "system.memory.state",
    }


def test_names_and_units_follow_the_conventions() -> None:
    """Compare with the package that is generated from the semantic conventions."""
    from opentelemetry.semconv._incubating.metrics import process_metrics, system_metrics

    theirs = {
        value
        for module in (process_metrics, system_metrics)
        for key, value in vars(module).items()
        if key.isupper()
    }
    ours = [
        value
        for value in vars(metric_definitions).values()
        if isinstance(value, Metric) and value.name.startswith(("process.", "system."))
    ]

    assert len(ours) == 14
    if "process.open_file_descriptor.count" in theirs:
        # renamed since; the library has the newest names
        theirs.add("process.unix.file_descriptor.count")
    assert {metric.name for metric in ours} <= theirs


def test_resources_are_read_once_a_collection(
    machine: Machine, clock: Clock, exported: Callable[..., Exported]
) -> None:
    export = exported(install_resources, readers=2)
    for collections in (1, 2, 3):
        clock.advance(1)
        machine.calls.clear()
        export.points(collections % 2)
        assert machine.calls.count("memory_info") == 1

    machine.calls.clear()
    export.points(1)
    export.points(0)
    assert machine.calls == []  # two exporters at the same moment


def test_unreadable_values_have_no_points(
    machine: Machine, exported: Callable[..., Exported], caplog: pytest.LogCaptureFixture
) -> None:
    machine.failing = {"memory_info": OSError("no"), "getrusage": OSError("no")}

    points = exported(install_resources).points()

    assert not {
        "process.memory.usage",
        "process.memory.virtual",
        "process.cpu.time",
        "process.cpu.utilization",
        "process.context_switches",
    } & set(points)
    assert points["process.thread.count"] == {(): 3}
    assert len(caplog.records) == 2


def test_recorded_resources_are_exported_without_psutil(
    machine: Machine, exported: Callable[..., Exported]
) -> None:
    export = exported(functools.partial(install_resources, psutil=False))
    assert export.points() == {}

    probe.record_manual(cpu_utilization=0.5, rss_bytes=100)
    assert export.points() == {
        "process.cpu.utilization": {(): 0.5},
        "process.memory.usage": {(): 100},
    }
    probe.record_manual(rss_bytes=200)
    assert export.points()["process.memory.usage"] == {(): 200}
    assert machine.calls == []


@pytest.mark.parametrize("first", ["contrib", "ours"])
@pytest.mark.parametrize("psutil", [True, False])
def test_nothing_is_reported_twice_beside_contrib(
    exported: Callable[..., Exported],
    contrib: SystemMetricsInstrumentor,
    caplog: pytest.LogCaptureFixture,
    first: str,
    *,
    psutil: bool,
) -> None:
    caplog.set_level(logging.INFO, "otel_pipeline_metrics")
    theirs = MeterProvider([InMemoryMetricReader()])
    probe.record_manual(rss_bytes=1)
    if first == "contrib":
        contrib.instrument(meter_provider=theirs)
    export = exported(functools.partial(install_resources, psutil=psutil))
    if first == "ours":
        assert "process.memory.usage" in export.points()
        contrib.instrument(meter_provider=theirs)

    assert export.points() == {}
    assert export.points() == {}
    said = [record for record in caplog.records if "system-metrics" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.INFO]

    contrib.uninstrument()  # which leaves its instruments running
    assert export.points() == {}
    theirs.shutdown()


def test_contrib_is_neither_imported_nor_constructed(
    machine: Machine, exported: Callable[..., Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "opentelemetry.instrumentation.system_metrics"
    export = exported(install_resources)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, module)
        assert "process.memory.usage" in export.points()
        assert module not in sys.modules

    def refuse(*_: object) -> None:
        raise AssertionError("constructed")

    monkeypatch.setattr(SystemMetricsInstrumentor, "__init__", refuse)
    assert "process.memory.usage" in export.points()


def test_the_ratios_of_other_sizes_are_exported(exported: Callable[..., Exported]) -> None:
    export = exported(install_caches)
    cache: Any = counted_cache(cachetools.LRUCache(2), name="c", what_if=True)
    register_cache("other", lambda: {"hits": 1, "misses": 1})
    name = "pipeline.cache.what_if.hit.ratio"
    assert name not in export.points()
    for key in "abca":  # "a" is found at twice the size
        if cache.get(key) is None:
            cache[key] = key
    assert described(export.metrics()[name]) == ("gauge", "1")
    assert export.points()[name] == {("c", "0.5"): 0.0, ("c", "2"): 0.25, ("c", "4"): 0.25}
    cache.pop("a")  # then half the size is unknown
    assert export.points()[name] == {("c", "2"): 0.25, ("c", "4"): 0.25}
