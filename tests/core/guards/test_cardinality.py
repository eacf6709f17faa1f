"""Test the limit of values of a key: further ones become `_OTHER`, and memory stays flat."""

from __future__ import annotations

import contextlib
import functools
import queue
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import cardinality, stage_id
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.cardinality import MAX_NAMES, OTHER, Distinct
from otel_pipeline_metrics._probes.caches import registry as caches_registry
from otel_pipeline_metrics._probes.queues import registry as queues_registry
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured

N = 10_000


@pytest.fixture(autouse=True)
def default_limit() -> Iterator[None]:
    yield
    assert cardinality.max_values == 200, "configure() did not put it back"


def others() -> int:
    count: int = opm.stats()["guards"]["other_values"]
    return count


def only(said: pytest.LogCaptureFixture) -> str:
    (message,) = said.messages
    return message


def test_10000_values_of_an_attribute_make_201_series(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False, metric_attributes=("file",))
    for number in range(N):
        with opm.stage("parse", attributes={"file": f"{number}.csv"}) as stage:
            stage.add_items(2)
    counts = captured.values("pipeline.stage.duration", "file")
    assert len(counts) == 201
    assert counts[OTHER] == N - 200
    assert sum(counts.values()) == N
    assert sum(captured.values("pipeline.stage.items", "file").values()) == 2 * N
    assert captured.points()
    assert {
        name: len(points) for name, points in captured.points().items() if len(points) > 201
    } == {}
    assert others() == N - 200
    assert only(said) == (
        "there are more than 200 different values of file; further ones are counted together, "
        "as _OTHER: they should be fixed words, not made from data"
    )
    (series,) = _series.process_scope.series.values()
    assert series.key.stage == "parse"


def test_keys_have_limits_of_their_own_and_a_common_one(captured: Captured) -> None:
    captured.configure(console=False, metric_attributes=("row", "column"))
    for row in range(60):
        for column in range(60):
            with opm.stage("cell", attributes={"row": row, "column": column}):
                pass
    counts = captured.values("pipeline.stage.duration", "row", "column")
    assert len(counts) == MAX_NAMES  # one attribute set is the stage's own, without attributes
    assert counts[OTHER, OTHER] == 3600 - (MAX_NAMES - 1)
    assert sum(counts.values()) == 3600


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_configure_sets_the_limit(
    way: str, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES", "3")
    limit = {"max_attribute_values": 3} if way == "argument" else {}
    captured.configure(console=False, metric_attributes=("n",), **limit)
    for number in (1, 2, 3, 4, 5, 1, 4):
        with opm.stage("s", attributes={"n": number}):
            pass
    assert captured.values("pipeline.stage.duration", "n") == {1: 2, 2: 1, 3: 1, OTHER: 3}
    opm.shutdown()


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "2.5"])
def test_a_malformed_variable_is_logged_and_ignored(
    wrong: str, captured: Captured, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES", wrong)
    captured.configure(console=False)
    assert "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES must be a whole number" in only(said)


def test_functions_made_from_data_lose_their_attributes(captured: Captured) -> None:
    """Above the limit a stage is measured under its name, without attributes."""
    captured.configure(console=False)
    for number in range(MAX_NAMES + 100):
        opm.process("s", attributes={"file": number})(lambda: None)()
    assert len(stage_id._described) == MAX_NAMES
    assert len(_series.process_scope.series) == MAX_NAMES + 1
    assert captured.values("pipeline.stage.duration", "pipeline.stage.name") == {
        "s": MAX_NAMES + 100
    }
    assert len([span for span in captured.spans() if "file" in (span.attributes or {})]) == 2000
    assert others() == 100


def test_stage_names_made_from_data_become_other(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False)
    with opm.run("r", resources=False) as run:
        for number in range(N):
            with opm.stage(f"parse {number}", kind="process") as stage:
                stage.add_items(1)
    assert "there are more than 2000 different stage names" in only(said)
    counts = captured.values("pipeline.stage.duration", "pipeline.stage.name")
    assert len(counts) == MAX_NAMES + 1
    assert counts[OTHER] == N - MAX_NAMES
    assert len(run.report.stages) == MAX_NAMES + 1
    assert sum(stage["items"]["out"] for stage in run.report.stages) == N
    assert run.report.telemetry["guards"]["other_values"] == N - MAX_NAMES


def test_a_known_stage_stays(captured: Captured) -> None:
    captured.configure(console=False)
    early = opm.stage("early")(lambda: None)
    for number in range(MAX_NAMES + 5):
        opm.stage(f"{number}")(lambda: None)
    early()
    with opm.stage("early"):
        pass
    assert captured.values("pipeline.stage.duration", "pipeline.stage.name") == {"early": 2}


def test_a_thousand_stages_are_allowed(captured: Captured, said: pytest.LogCaptureFixture) -> None:
    captured.configure(console=False)
    with opm.run("r", resources=False) as run:
        for number in range(1000):
            with opm.stage(f"stage {number}"):
                pass
    assert len(run.report.stages) == 1000
    assert said.messages == []


def test_error_types_made_from_data_become_other(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False)
    with opm.run("r", resources=False) as run:
        for number in range(300):
            error = type(f"Error{number}", (Exception,), {"__module__": "builtins"})
            with contextlib.suppress(error), opm.stage("s") as stage:
                stage.retry(f"Retry{number}")
                raise error
    counts = captured.values("pipeline.stage.duration", "error.type")
    assert sum(counts.values()) == 300
    retries = captured.values("pipeline.stage.retries", "error.type")
    assert sum(retries.values()) == 300
    assert len({*counts, *retries}) == 201
    (stage,) = run.report.stages
    by_type = stage["errors"]["by_type"]
    assert (len(by_type), by_type[OTHER], sum(by_type.values())) == (201, 100, 300)
    spans = [span for span in captured.spans() if span.name == "s"]
    assert len({(span.attributes or {})["error.type"] for span in spans}) == 300
    assert len(said.messages) == 2  # on metrics and in the report


def test_a_retrys_name_is_shortened(captured: Captured) -> None:
    captured.configure(console=False)
    with opm.stage("s") as stage:
        stage.retry("x" * 5000)
    assert captured.values("pipeline.stage.retries", "error.type") == {"x" * 128: 1}
    (event,) = captured.spans()[0].events
    assert (event.attributes or {})["error.type"] == "x" * 128


def test_pipelines_made_from_data_become_other(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False)
    for number in range(300):
        with opm.run(f"day {number}", resources=False) as run, opm.stage("s"):
            pass
    assert run.report.run["pipeline"] == "day 299"
    for metric in (
        "pipeline.run.duration",
        "pipeline.run.active",
        "pipeline.run.last_success.time",
        "pipeline.stage.duration",
        "pipeline.stage.time",
    ):
        assert len(captured.values(metric, "pipeline.name")) == 201, metric
    assert captured.values("pipeline.run.duration", "pipeline.name")[OTHER] == 100
    assert set(captured.values("pipeline.run.active", "pipeline.name").values()) == {0}
    assert "different values of pipeline.name" in only(said)
    assert others() == 100


def test_queues_made_from_data_become_other(said: pytest.LogCaptureFixture) -> None:
    before = set(queues_registry.known_sizes())
    alive = []
    for number in range(MAX_NAMES + 3):
        made: Any = opm.wrap_queue(queue.Queue(5), name=f"queue {number}")
        made.put(number)
        alive.append(made)
    sizes = queues_registry.sizes()
    assert len(set(sizes) - before) == MAX_NAMES + 1
    assert sizes[OTHER] == 3
    assert queues_registry.capacities()[OTHER] == 15
    assert "different queue names" in only(said)
    assert others() == 3


def test_caches_made_from_data_become_other(said: pytest.LogCaptureFixture) -> None:
    @functools.lru_cache
    def cached(key: str) -> str:
        return key

    collector = opm.MetricsCollector()
    for number in range(MAX_NAMES + 3):
        collector.record_cache(f"cache {number}", hits=1, misses=2)
    opm.register_cache("one more", cached)
    found = {reading.name: reading for reading in caches_registry.read_all()}
    assert len(found) == MAX_NAMES + 1
    assert found[OTHER].hits == 3
    assert len(collector.caches) == MAX_NAMES + 1
    assert "different cache names" in only(said)


def test_manual_stages_made_from_data_become_other() -> None:
    collector = opm.MetricsCollector()
    for number in range(MAX_NAMES + 3):
        collector.record_stage(f"stage {number}", 0.5)
    assert len(collector.stages) == MAX_NAMES + 1
    assert collector.stages[OTHER]["count"] == 3
    assert len(_series.process_scope.series) == MAX_NAMES + 1


values = st.one_of(
    st.integers(-50, 50), st.text(max_size=2), st.booleans(), st.floats(), st.just(OTHER),
    st.tuples(st.integers(0, 3), st.text(max_size=1)),
)  # fmt: skip


@given(st.lists(values, max_size=80), st.integers(1, 10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_values_stay_and_no_more_come(found: list[Any], most: int) -> None:
    distinct = Distinct(most)
    bound = [distinct.limit("key", value) for value in found]
    kept: list[Any] = []
    for value in found:
        if value != OTHER and value not in kept and len(kept) < most:
            kept.append(value)
    assert bound == [value if value in kept else OTHER for value in found]


PROGRAM = """
import gc, sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider
import psutil
import otel_pipeline_metrics as opm

reader = InMemoryMetricReader()
opm.configure(
    tracer_provider=NoOpTracerProvider(), meter_provider=MeterProvider([reader]),
    metric_attributes=["file"], console=False,
)

def work(begin, end):
    for number in range(begin, end):
        with opm.stage("parse", attributes={"file": f"{number:060d}.csv"}) as stage:
            stage.add_items(1)
        with opm.stage(f"parse {number:060d}"):
            pass
        opm.stage("fixed", attributes={"file": f"{number:060d}"})(lambda: None)()
    reader.get_metrics_data()
    gc.collect()
    return psutil.Process().memory_info().rss

work(0, 10_000)
before = work(10_000, 20_000)
after = work(20_000, 60_000)
print((after - before) / 2**20)
"""


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """Keeping 40,000 strings of 60 characters alone would take 4 MiB."""
    done = run_python(PROGRAM)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.5, done.stdout
