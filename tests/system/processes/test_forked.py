"""Test what a forked child keeps of its parent, seen from inside the child."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export.delivery.counting_exporters import CountingExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._telemetry.sdk_private import reset_after_fork
from tests.system.processes.support import (
    attributes_of,
    exported,
    invocations,
    points,
    run_forking,
    spans,
)

if TYPE_CHECKING:
    from pathlib import Path

# forking this process, which has threads, is what users do too
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def test_grandchildren_start_from_zero_too() -> None:
    there, _ = run_forking("""
        opm.configure()
        work(); work(); work()
        def child():
            work(); work()
            forked(work)
            work()
        forked(child)
    """)
    assert sorted(invocations(there).values()) == [1, 3, 3]


def test_a_pending_collection_belongs_to_the_parent() -> None:
    """Thousands of results have been flushed, but to no instrument yet."""
    there, _ = run_forking("""
        opm.configure()
        def many():
            for _ in range(3000):
                work()
        many()
        forked(work)
        opm._lifecycle.configure._export.flush(5)
        forked(many)
    """)
    assert sorted(invocations(there).values()) == [1, 3000, 3000]


def test_counts_of_caches_belong_to_the_parent() -> None:
    """Exactly, if they are read without a lock; otherwise since the last collection."""
    there, _ = run_forking("""
        import functools
        opm.configure()
        @functools.lru_cache
        def square(number): return number * number
        opm.register_cache("lru", square)
        counted = opm.counted_cache({})
        opm.register_cache("counted", counted)
        opm.register_cache("own", lambda: {"hits": calls, "misses": 0})
        calls = 7
        def use():
            global calls
            calls += 1
            square(2)
            counted.get(2)
        use(); use(); use()
        opm._lifecycle.configure._export.flush(5)
        square(2)
        forked(use)
        square(2)
    """)
    found: dict[Any, list[int]] = {}
    for _, attributes, point in points(there, "pipeline.cache.requests"):
        key = (attributes["cache.name"], attributes["cache.request.type"])
        found.setdefault(key, []).append(point.as_int)
    assert {key: sorted(values) for key, values in found.items()} == {
        ("lru", "hit"): [1, 4],
        ("lru", "miss"): [0, 1],
        ("counted", "hit"): [0, 0],
        ("counted", "miss"): [1, 3],
        ("own", "hit"): [1, 10],
        ("own", "miss"): [0, 0],
    }


def test_open_spans_belong_to_the_parent() -> None:
    """The program's own too; with a provider of the program, those of stages."""
    there, _ = run_forking("""
        from opentelemetry import trace
        opm.configure()
        with trace.get_tracer("own").start_as_current_span("own"):
            pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
    """)
    assert [len(each) for each in spans(there, "own").values()] == [1]
    there, _ = run_forking("""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        tracers = TracerProvider(resource=Resource.create({"service.instance.id": "theirs"}))
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        opm.configure(tracer_provider=tracers, exporter="none")
        with opm.stage("outer"):
            pid = os.fork()
            work()
        if pid:
            os.waitpid(pid, 0)
        tracers.force_flush()
    """)
    assert sum(len(each) for each in spans(there, "outer").values()) == 1
    assert sum(len(each) for each in spans(there, "work").values()) == 2


def test_locks_that_another_thread_holds_are_replaced() -> None:
    there, _ = run_forking("""
        from otel_pipeline_metrics._lifecycle import configure
        from otel_pipeline_metrics._core import drain
        from otel_pipeline_metrics._core import series
        from otel_pipeline_metrics._export import environment_repairs
        opm.configure()
        held, done = threading.Event(), threading.Event()
        def hold():
            with configure._lock, drain._drain_lock, environment_repairs._lock:
                held.set()
                done.wait(30)
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        def child():
            work()
            opm.configure()
            work()
        forked(child)
        done.set()
        thread.join()
    """)
    assert sum(len(each) for each in spans(there).values()) == 2


def test_an_exporter_belongs_to_one_process() -> None:
    made: list[str] = []

    def again() -> str:
        made.append("again")
        return "the child's"

    ledger = ExportLedger("traces", "console", "stderr", remote=False)
    exporter = CountingExporter("the parent's", ledger, factory=again)
    shared = CountingExporter("the console", ledger)
    pid = os.fork()
    if not pid:
        before = (exporter.inner, shared.inner, list(made))
        found = [
            exporter.own_exporter(), exporter.own_exporter(), exporter.inner, shared.own_exporter(),
        ]  # fmt: skip
        os._exit(
            before != (None, "the console", [])
            or found != ["the child's"] * 3 + ["the console"]
            or made != ["again"]
        )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (exporter.own_exporter(), exporter.inner, made) == ("the parent's", "the parent's", [])


def test_open_runs_and_stages_belong_to_the_parent(tmp_path: Path) -> None:
    """Both processes leave a run and two stages, which are counted and reported once."""
    report = tmp_path / "report.json"
    there, done = run_forking(
        """
        opm.configure()
        with opm.run("nightly", report=sys.argv[1], resources=False):
            with opm.stage("outer"), opm.stage("inner") as inner:
                inner.add_items(7)
                pid = os.fork()
                if not pid:
                    inner.add_items(100)
                    work()
            if pid:
                os.waitpid(pid, 0)
        if not pid:
            print(os.path.exists(sys.argv[1]), opm.current_stage() is None)
            work()
        """,
        report,
    )
    assert done.stdout.split()[0] == "False"
    for stage in ("outer", "inner"):
        assert list(invocations(there, stage).values()) == [1]
        assert [len(each) for each in spans(there, stage).values()] == [1]
    assert [len(each) for each in spans(there, "run nightly").values()] == [1]
    runs = [point.count for _, _, point in points(there, "pipeline.run.duration")]
    assert runs == [1]
    items = [(a, p.as_int) for _, a, p in points(there, "pipeline.stage.items")]
    assert [count for _, count in items] == [7]
    told = json.loads(report.read_text())
    assert [stage["name"] for stage in told["stages"]] == ["outer", "inner"]
    # the child's first call belongs to the run and its trace; the second to neither
    (inner,) = next(iter(spans(there, "inner").values()))
    (mine,) = spans(there).values()
    assert [span.trace_id == inner.trace_id for span in mine] == [True, False]
    assert mine[0].parent_span_id == inner.span_id
    pipelines = [
        attributes.get("pipeline.name")
        for _, attributes, _ in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == "work"
    ]
    assert sorted(pipelines, key=str) == [None, "nightly"]


def test_the_ledger_starts_from_zero() -> None:
    _, done = run_forking("""
        opm.configure()
        work(); work(); work()
        def child():
            before = opm.stats()["spans"]
            work()
            opm.shutdown()
            print(json.dumps([before, opm.stats()["spans"]]))
        forked(child)
        opm.shutdown()
        print(json.dumps(opm.stats()["spans"]))
    """)
    (before, after), parent = map(json.loads, done.stdout.splitlines())
    assert set(before.values()) == {0}
    assert (after["created"], after["exported"]) == (1, 1)
    assert (parent["created"], parent["exported"]) == (3, 3)


def test_a_child_has_an_identity_of_its_own() -> None:
    """A new instance id, even if the id was given; also the PID, if it is reported."""
    there, _ = run_forking(
        """
        opm.configure()
        work()
        forked(work)
        """,
        OTEL_RESOURCE_ATTRIBUTES="service.instance.id=mine,team=data",
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="process,otel",
    )
    told = [
        attributes_of(each.resource)
        for request in there.requests
        for each in (
            *getattr(request, "resource_spans", ()),
            *getattr(request, "resource_metrics", ()),
        )
    ]
    assert len({resource["service.instance.id"] for resource in told}) == 2
    assert len({resource["process.pid"] for resource in told}) == 2
    assert len({(r["service.instance.id"], r["process.pid"]) for r in told}) == 2
    assert {resource["team"] for resource in told} == {"data"}


def test_a_child_that_exports_nothing_opens_no_connection() -> None:
    _, done = run_forking("""
        opm.configure()
        work()
        opm._lifecycle.configure._export.flush(5)
        from tests.system.processes.support import sockets
        pid = os.fork()
        if not pid:
            before = sockets()
            time.sleep(0.2)
            print(json.dumps([before, sockets()]), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    before, after = json.loads(done.stdout)
    assert after == before


def test_a_fork_after_shutdown() -> None:
    there, _ = run_forking("""
        opm.configure()
        work()
        opm.shutdown()
        forked(work)
        opm.configure()
        work()
        forked(work)
    """)
    assert exported(there, "pipeline.stage.duration") == [1, 1, 1]


def test_children_of_a_dead_collector_end_in_time() -> None:
    _, done = run_forking(
        """
        opm.configure(flush_timeout=1)
        began = time.monotonic()
        def child():
            global began
            work()
            began = time.monotonic()
            opm.shutdown()
            print(time.monotonic() - began)
        forked(child)
        """,
        fault="silent",
    )
    assert float(done.stdout) < 1.5


def test_an_unknown_sdk_is_left_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    class Storages:
        _lock = threading.Lock()

    class Provider:
        _measurement_consumer = Storages()

    reset_after_fork.reset(Provider(), lambda _: True)
    reset_after_fork.reset(object(), lambda _: True)  # of no SDK
    (record,) = caplog.records
    assert "exports its parent's sums too" in record.message
