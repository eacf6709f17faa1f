"""counter, gauge and histogram: handles that may be used at any time, under the guards."""

from __future__ import annotations

import math
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import cardinality, privacy
from otel_pipeline_metrics._telemetry import own_metrics, sink, values
from otel_pipeline_metrics._telemetry.backlog import BOUND
from tests.core.guards.test_cleaning import own_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without a metric of the program's own."""
    monkeypatch.setattr(own_metrics, "_handles", {})
    for kept in ("_measures", "_levels"):
        ours = {
            name: each
            for name, each in getattr(values, kept).items()
            if name in own_metrics._RESERVED
        }
        monkeypatch.setattr(values, kept, ours)
    monkeypatch.setattr(sink, "_probes", dict(sink._probes))
    # as in a program that has not called configure()
    sink.install(sink.OtelSink())
    yield
    sink.install(sink.OtelSink())


class Metrics:
    """A meter provider, installed as `configure()` does it."""

    def __init__(self, **options: Any) -> None:
        self.reader = InMemoryMetricReader(**options)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        sink.install(sink.OtelSink(NoOpTracerProvider(), self.provider))

    def collect(self) -> dict[str, list[Any]]:
        """Collect once; return the points of each metric."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (() if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[Any]:
        return self.collect().get(name, [])

    def metric(self, name: str) -> Any:
        (resource,) = self.reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        (found,) = [m for s in resource.scope_metrics for m in s.metrics if m.name == name]
        return found


def test_what_was_recorded_before_configure_arrives() -> None:
    orders = opm.counter("shop.orders", unit="{order}", description="Orders.")
    prices = opm.histogram("shop.price", unit="By")
    open_carts = opm.gauge("shop.carts")
    for number in range(3000):
        orders.add(1, {"shop": "a" if number % 3 else "b"})
    prices.record(12.5)
    open_carts.set(3)
    open_carts.set(-4)
    metrics = Metrics()
    orders.add(5, {"shop": "a"})
    found = {point.attributes["shop"]: point.value for point in metrics.points("shop.orders")}
    assert found == {"a": 2005, "b": 1000}
    (price,) = metrics.points("shop.price")
    assert (price.count, price.sum, dict(price.attributes)) == (1, 12.5, {})
    assert [point.value for point in metrics.points("shop.carts")] == [-4]
    metric = metrics.metric("shop.orders")
    assert (metric.unit, metric.description) == ("{order}", "Orders.")
    assert isinstance(metric.data.data_points[0].value, int)


def test_a_second_configuration_takes_over() -> None:
    orders, carts = opm.counter("orders"), opm.gauge("carts")
    first = Metrics()
    orders.add(1)
    carts.set(7)
    second = Metrics()
    orders.add(2)
    # what was recorded before went to the first, what came later to the second
    assert [point.value for point in second.points("orders")] == [2]
    assert [point.value for point in first.points("orders")] == [1]
    assert [point.value for point in second.points("carts")] == [7]
    assert first.points("carts") == []


def test_after_shutdown_nothing_is_kept() -> None:
    orders = opm.counter("orders")
    sink.install(sink.silent())
    for _ in range(10_000):
        orders.add(1)
    assert len(values._measures["orders"].pending) < values.PENDING_BOUND
    metrics = Metrics()
    orders.add(1)
    assert metrics.points("orders")[0].value < values.PENDING_BOUND


def test_a_histogram_before_configure_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    waits = opm.histogram("waits", unit="s")
    for _ in range(BOUND + 2000):
        waits.record(1)
    kept = values._measures["waits"]
    assert len(kept._early) + len(kept.pending) <= BOUND + values.PENDING_BOUND
    metrics = Metrics()
    (point,) = metrics.points("waits")
    missing = BOUND + 2000 - point.count
    assert 0 < missing <= 2000
    (warning,) = caplog.records
    assert warning.message.startswith(f"{missing} values of waits from before configure()")


def test_no_value_is_lost_between_threads_and_collections() -> None:
    orders, waits = opm.counter("orders"), opm.histogram("waits", unit="s")
    delta: dict[type, AggregationTemporality] = {
        SdkCounter: AggregationTemporality.DELTA,
        SdkHistogram: AggregationTemporality.DELTA,
    }
    metrics = Metrics(preferred_temporality=delta)
    done = threading.Event()

    def work(thread: int) -> None:
        for _ in range(5000):
            orders.add(2, {"thread": thread})
            waits.record(0.25)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    totals, counts = dict.fromkeys(range(4), 0), 0
    for thread in threads:
        thread.start()
    while True:
        if not any(thread.is_alive() for thread in threads):
            done.set()
        found = metrics.collect()
        for point in found.get("orders", ()):
            totals[point.attributes["thread"]] += point.value
        counts += sum(point.count for point in found.get("waits", ()))
        if done.is_set():
            break
    assert totals == dict.fromkeys(range(4), 10_000)
    assert counts == 20_000


def test_the_guards_on_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cardinality, "max_values", 3)
    metrics = Metrics()
    orders, level = opm.counter("orders"), opm.gauge("level")
    dropped = privacy.forbidden_keys.value()
    for number in range(10):
        orders.add(1, {"email": "a@b.c", "shop": f"shop {number}"})
        level.set(number, {"shop": f"shop {number}", "token": "secret"})
    found = {point.attributes["shop"]: point.value for point in metrics.points("orders")}
    assert found == {"shop 0": 1, "shop 1": 1, "shop 2": 1, "_OTHER": 7}
    assert all(set(point.attributes) == {"shop"} for point in metrics.points("orders"))
    levels = {point.attributes["shop"]: point.value for point in metrics.points("level")}
    assert levels == {"shop 0": 0, "shop 1": 1, "shop 2": 2, "_OTHER": 9}
    assert privacy.forbidden_keys.value() == dropped + 20
    monkeypatch.setattr(privacy, "_rules", privacy.Rules(strict=True))
    orders.add(1, {"email": "x"})  # while the program works, nothing is refused
    level.set(1, {"email": "x"})
    assert privacy.forbidden_keys.value() == dropped + 22


def test_equal_attributes_are_one_series() -> None:
    metrics = Metrics()
    orders = opm.counter("orders")
    orders.add(1, {"a": 1, "b": ["x", "y"]})
    orders.add(1, {"b": ("x", "y"), "a": 1})
    (point,) = metrics.points("orders")
    assert (point.value, dict(point.attributes)) == (2, {"a": 1, "b": ("x", "y")})


def test_buckets_follow_the_unit() -> None:
    metrics = Metrics()
    opm.histogram("waits", unit="s").record(0.0002)
    opm.histogram("sizes", unit="By").record(1)
    waits, sizes = metrics.points("waits")[0], metrics.points("sizes")[0]
    assert waits.explicit_bounds[0] == 0.0001
    assert sizes.explicit_bounds[:2] == (0, 5)
    assert waits.bucket_counts[1] == 1


def test_a_value_in_a_sampled_span_is_an_exemplar() -> None:
    metrics = Metrics()
    waits = opm.histogram("waits", unit="s")
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("work") as span:
        waits.record(0.25)
    waits.record(0.5)
    (point,) = metrics.points("waits")
    (exemplar,) = point.exemplars
    assert (exemplar.value, exemplar.span_id) == (0.25, span.get_span_context().span_id)
    assert not trace.get_current_span().get_span_context().is_valid
    provider.shutdown()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: opm.counter("n").add(-1), ValueError, "amount must not be negative"),
        (lambda: opm.counter("n").add(math.nan), ValueError, "amount must be finite"),
        (lambda: opm.counter("n").add("1"), TypeError, "amount must be a number"),  # type: ignore[arg-type]
        (lambda: opm.counter("n").add(True), TypeError, "amount must be a number"),
        (lambda: opm.counter("n").add(1, {"a": object()}), TypeError, "attributes"),  # type: ignore[dict-item]
        (lambda: opm.counter("n").add(1, {"": 1}), ValueError, "key must not be empty"),
        (lambda: opm.histogram("h").record(-1), ValueError, "value must not be negative"),
        (lambda: opm.gauge("g").set(math.inf), ValueError, "value must be finite"),
        (lambda: opm.counter(3), TypeError, "name must be a string"),  # type: ignore[arg-type]
        (lambda: opm.counter(""), ValueError, "name must begin with a letter"),
        (lambda: opm.counter("1st"), ValueError, "name must begin with a letter"),
        (lambda: opm.counter("a b"), ValueError, "name must begin with a letter"),
        (lambda: opm.counter("a" * 256), ValueError, "name must begin with a letter"),
        (lambda: opm.counter("n", unit="é"), ValueError, "unit must have at most 63 ASCII"),
        (lambda: opm.counter("n", description=None), TypeError, "description"),  # type: ignore[arg-type]
        (lambda: opm.counter("pipeline.stage.time"), ValueError, "is a metric of otel_pipeline"),
        (lambda: opm.gauge("Process.CPU.Time"), ValueError, "is a metric of otel_pipeline"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_name_is_one_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = opm.counter("orders", unit="{order}")
    assert opm.counter("orders", unit="{order}") is orders
    for other in (
        lambda: opm.counter("orders"),
        lambda: opm.counter("Orders", unit="{order}"),
        lambda: opm.gauge("orders", unit="{order}"),
        lambda: opm.counter("orders", unit="{order}", description="More."),
    ):
        with pytest.raises(ValueError, match="already a counter named 'orders'"):
            other()
    monkeypatch.setattr(cardinality, "MAX_NAMES", 2)
    opm.counter("second")
    with pytest.raises(ValueError, match="belongs into an attribute"):
        opm.counter("third")


def test_handles_survive_pickling() -> None:
    for handle in (opm.counter("c", unit="s"), opm.gauge("g"), opm.histogram("h")):
        assert pickle.loads(pickle.dumps(handle)) is handle  # noqa: S301 - our own
    assert repr(opm.counter("c", unit="s")) == "counter('c')"


@pytest.mark.processes
def test_a_forked_child_starts_at_zero() -> None:
    metrics = Metrics()
    orders, carts = opm.counter("orders"), opm.gauge("carts")
    orders.add(5)
    carts.set(5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            orders.add(2)
            found = [point.value for point in metrics.points("orders")]
            code = 0 if (found, metrics.points("carts")) == ([2], []) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [point.value for point in metrics.points("orders")] == [5]


@pytest.mark.parametrize("kind", [int, float])
def test_numbers_of_the_programs_classes_count_as_what_they_are(kind: type) -> None:
    own = own_class(kind)(7)
    metrics = Metrics()
    opm.counter("c").add(own)
    opm.gauge("g").set(own, {"a": own})
    opm.histogram("h").record(own)
    found = metrics.collect()
    assert (found["c"][0].value, found["g"][0].value, found["h"][0].sum) == (7, 7, 7)
