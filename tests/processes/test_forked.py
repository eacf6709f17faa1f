"""What a forked child knows of its parent, seen from inside the child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import _fork
from otel_pipeline_metrics._telemetry import _inherited
from otel_pipeline_metrics.export.per_process import PerProcess
from tests.faults.collector.servers import collector
from tests.processes.support import attributes_of, exported, invocations, points, run_text, spans

if TYPE_CHECKING:
    from pathlib import Path

# a fork of this process, which has threads, is what users do too
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

START = """
import json, os, sys, threading, time
import otel_pipeline_metrics as opm

@opm.stage("work")
def work(): pass

def forked(function):
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            opm.shutdown()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(program: str, *arguments: object, fault: Any = "none", **env: str) -> tuple[Any, Any]:
    with collector(fault, "http/protobuf") as there:
        done = run_text(START + textwrap.dedent(program), *arguments, collector=there, **env)
    assert done.returncode == 0, done.stderr
    assert "fault" not in done.stderr
    return there, done


def test_grandchildren_start_from_zero_too() -> None:
    there, _ = run("""
        opm.configure()
        work(); work(); work()
        def child():
            work(); work()
            forked(work)
            work()
        forked(child)
    """)
    assert sorted(invocations(there).values()) == [1, 3, 3]


def test_what_waits_for_a_collection_is_the_parents() -> None:
    """Thousands have been handed on, but to no instrument yet."""
    there, _ = run("""
        opm.configure()
        def many():
            for _ in range(3000):
                work()
        many()
        forked(work)
        opm._configure._export.flush(5)
        forked(many)
    """)
    assert sorted(invocations(there).values()) == [1, 3000, 3000]


def test_what_caches_have_counted_is_the_parents() -> None:
    """Exactly, for those that are read without a lock; since the last collection, for others."""
    there, _ = run("""
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
        opm._configure._export.flush(5)
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


def test_open_spans_are_the_parents() -> None:
    """The program's own too; and where the provider is the program's, those of stages."""
    there, _ = run("""
        from opentelemetry import trace
        opm.configure()
        with trace.get_tracer("own").start_as_current_span("own"):
            pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
    """)
    assert [len(each) for each in spans(there, "own").values()] == [1]
    there, _ = run("""
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


def test_locks_that_another_thread_holds() -> None:
    there, _ = run("""
        from otel_pipeline_metrics import _configure, _draining, _series
        from otel_pipeline_metrics.export import exporters
        opm.configure()
        held, done = threading.Event(), threading.Event()
        def hold():
            with _configure._lock, _draining._drain_lock, exporters._environment_lock:
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


def test_an_exporter_is_one_processs_own() -> None:
    made: list[str] = []

    def again() -> str:
        made.append("again")
        return "the child's"

    exporter, shared = PerProcess("the parent's", again), PerProcess("the console", None)
    pid = os.fork()
    if not pid:
        before = (exporter.made, shared.made, list(made))
        found = [exporter.get(), exporter.get(), exporter.made, shared.get()]
        os._exit(
            before != (None, "the console", [])
            or found != ["the child's"] * 3 + ["the console"]
            or made != ["again"]
        )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (exporter.get(), exporter.made, made) == ("the parent's", "the parent's", [])


def test_what_the_parent_began_is_the_parents(tmp_path: Path) -> None:
    """A run and two stages are left by both processes; they are counted, and reported, once."""
    report = tmp_path / "report.json"
    there, done = run(
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
    _, done = run("""
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


def test_a_child_says_who_it_is() -> None:
    """A new instance, even where the id was given; the PID too, where it is told."""
    there, _ = run(
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
    _, done = run("""
        opm.configure()
        work()
        opm._configure._export.flush(5)
        from tests.processes.support import sockets
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
    there, _ = run("""
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
    _, done = run(
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


GIVEN = """
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        def provider():
            return MeterProvider(
                [PeriodicExportingMetricReader(OTLPMetricExporter())],
                resource=Resource.create({"service.instance.id": "theirs"}),
            )
        meters = provider()
        own = meters.get_meter("own").create_counter("own")
        def child():
            for _ in range(3000):
                work()
            own.add(1)
            meters.force_flush()
"""


@pytest.mark.parametrize("how", ["given", "global", "unconfigured"])
def test_providers_of_the_programs(how: str) -> None:
    """Ours start from zero there as well; its own instruments are left as the SDK leaves them."""
    install = {
        "given": "opm.configure(meter_provider=meters, exporter='none')",
        "global": "metrics.set_meter_provider(meters); opm.configure()",
        "unconfigured": "metrics.set_meter_provider(meters)",
    }[how]
    there, _ = run(f"""
        {GIVEN.strip()}
        {install}
        work(); work(); work(); work(); work()
        own.add(5)
        meters.force_flush()
        forked(child)
        meters.force_flush()
    """)
    counts = exported(there, "pipeline.stage.duration")
    assert sorted(set(counts)) == [5, 3000]
    theirs = exported(there, "own")
    assert sorted(set(theirs)) == [5, 6]


@pytest.mark.slow
def test_given_providers_in_a_child_of_multiprocessing() -> None:
    """Nobody else flushes them there."""
    there, _ = run(f"""
        import multiprocessing
        {GIVEN.strip()}
        opm.configure(meter_provider=meters, exporter="none")
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
    """)
    assert [p.count for _, _, p in points(there, "pipeline.stage.duration")] == [1]


@pytest.mark.slow
def test_a_pool_that_is_terminated_flushes_first() -> None:
    """`with Pool()` ends its workers by SIGTERM, which is answered there as in the parent."""
    there, _ = run("""
        import multiprocessing
        opm.configure()
        work()
        def call(n): work()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(call, range(10))
    """)
    assert sum(invocations(there).values()) == 11


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_child_that_is_terminated_before_it_runs_ends() -> None:
    """On one core a parent goes on after its fork, so the signal is there before the child is."""
    run("""
        import signal
        opm.configure()
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for _ in range(20):
            pid = os.fork()
            if not pid:
                time.sleep(10)
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    """)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_does_not_notice_its_signal_is_sent_it_again(
    method: str, tmp_path: Path
) -> None:
    """The signal goes to another thread here: so the call of the main thread is not interrupted."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing, signal, sys, threading
        import otel_pipeline_metrics as opm
        def child():
            opm.configure()
            def send():
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            threading.Timer(0.2, send).start()
            lock = multiprocessing.Lock()
            lock.acquire()
            lock.acquire()
        if __name__ == "__main__":
            opm.configure()
            process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join(20)
            print(process.exitcode)
            process.kill()
        """)
    )
    done = subprocess.run(
        [sys.executable, program, method],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{-signal.SIGTERM}\n", done.stderr


@pytest.mark.slow
def test_a_childs_signal_is_not_its_parents() -> None:
    """A worker that forks: its own child ends, and it goes on."""
    _, done = run("""
        import multiprocessing, signal
        opm.configure()
        def worker():
            pid = os.fork()
            if not pid:
                time.sleep(10)
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            time.sleep(1)
        process = multiprocessing.get_context("fork").Process(target=worker)
        process.start()
        process.join()
        print(process.exitcode)
    """)
    assert done.stdout.split() == [f"{-signal.SIGTERM}", "0"]


def test_a_signal_that_the_program_blocks_stays_blocked_in_a_child() -> None:
    _, done = run("""
        import signal
        opm.configure()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        def child():
            print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
        forked(child)
        child()
    """)
    assert done.stdout.split() == ["True", "True"]


def test_a_child_of_a_process_that_is_ending_can_be_terminated() -> None:
    """A pool replaces its workers on a thread, which goes on during the last flush."""
    program = """
        import os, signal, time
        import otel_pipeline_metrics as opm
        from otel_pipeline_metrics import _termination
        def fork():
            pid = os.fork()
            if not pid:
                _termination.at_end.clear()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        with opm.run("ending", resources=False):
            _termination.at_end.append(fork)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, f"{-signal.SIGTERM}\n"), done.stderr


def test_an_sdk_that_looks_different_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Storages:
        _lock = threading.Lock()

    class Provider:
        _measurement_consumer = Storages()

    _inherited.reset(Provider(), lambda _: True)
    _inherited.reset(object(), lambda _: True)  # no SDK's
    (record,) = caplog.records
    assert "has its parent's sums in it" in record.message


def test_a_thread_inside_a_gate_holds_a_fork_up_for_a_moment_only() -> None:
    gate = _fork.Gate()
    with gate:
        pid = os.fork()
        if not pid:
            with gate:
                os._exit(0)  # it is open in the child
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    assert gate.shut()  # and open again in the parent after a fork that shut it
    gate.reopen()


def test_no_hook_is_left_half_way() -> None:
    """In a program with `-W error` that forks from several threads at a time."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import os, threading, warnings
                warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
                from otel_pipeline_metrics import _fork
                gates = [_fork.Gate() for _ in range(5)]
                def fork():
                    for _ in range(20):
                        pid = os.fork()
                        if not pid:
                            for gate in gates:
                                with gate: pass
                            os._exit(0)
                        os.waitpid(pid, 0)
                threads = [threading.Thread(target=fork) for _ in range(4)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                assert not _fork._forks
                assert all(gate.shut() for gate in gates)
            """),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
