"""Test the context across threads, tasks and processes."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import multiprocessing
import pickle
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import remote_runs
from tests.stages.conftest import make_otel, nothing_left_over, otel
from tests.system.faults.collector.servers import collector
from tests.system.processes import jobs
from tests.system.processes.support import invocations, points, run_text, spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

__all__ = ["make_otel", "nothing_left_over", "otel"]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@opm.stage("work")
def work(number: int = 0) -> int:
    return number + 1


def spans_of(otel: Otel, name: str) -> list[Any]:
    return [span for span in otel.spans() if span.name == name]


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a thread without a context."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def counts(run: opm.Run) -> dict[str, int]:
    return {stage["name"]: stage["count"] for stage in run.report.to_dict()["stages"]}


def test_a_thread_during_two_runs(otel: Otel) -> None:
    """While more than one run is in progress, a bare thread belongs to none of them."""
    with opm.run("one", resources=False) as one, opm.run("two", resources=False) as two:
        with opm.stage("outer"):
            in_thread(opm.propagate(work))
        in_thread(work)
        in_thread(opm.propagate(work))
    assert counts(two) == {"outer": 1, "work": 2}
    assert counts(one) == {}
    first, bare, last = spans_of(otel, "work")
    assert first.parent.span_id == otel.span("outer").context.span_id
    assert bare.parent is None
    assert last.parent.span_id == otel.span("run two").context.span_id


def test_the_context_is_the_one_at_the_time_of_propagate() -> None:
    variable.set("then")
    function = opm.propagate(variable.get)
    variable.set("now")
    assert (function(), in_thread(function), variable.get()) == ("then", "then", "now")


def test_changes_of_the_context_stay_inside() -> None:
    variable.set("before")

    def change() -> str:
        found = variable.get()
        variable.set("changed")
        return found

    function = opm.propagate(change)
    assert [function(), in_thread(function), function()] == ["before"] * 3
    assert variable.get() == "before"


def test_many_threads_at_a_time_and_recursion() -> None:
    """A context can be entered once at a time; a propagated function may be called by many."""
    barrier = threading.Barrier(8, timeout=30)

    def meet(again: bool) -> str:
        barrier.wait()
        return function(False) if again else variable.get()

    variable.set("shared")
    function = opm.propagate(meet)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(function, [True] * 8)) == ["shared"] * 8


def test_it_looks_like_the_function() -> None:
    function = opm.propagate(work)
    assert (function.__name__, function.__doc__) == (work.__name__, work.__doc__)
    assert inspect.signature(function) == inspect.signature(work)
    assert function(41) == 42


def test_exceptions_pass() -> None:
    with pytest.raises(KeyError, match="the job's own"):
        opm.propagate(jobs.fails)()


def test_wrong_arguments_are_refused() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    for bad in (generator, async_generator):
        with pytest.raises(TypeError, match="must not be a generator function"):
            opm.propagate(bad)
    with pytest.raises(TypeError, match="function must be callable, not int"):
        opm.propagate(1)  # type: ignore[arg-type]


async def test_a_coroutine_function(otel: Otel) -> None:
    """Each step runs in the context, and what it awaits works: tasks, timeouts, exceptions."""

    async def inner() -> str:
        return variable.get()

    @opm.stage("job")
    async def job(fail: bool) -> list[str]:
        seen = [variable.get()]
        await asyncio.sleep(0)
        seen.append(variable.get())
        seen.append(await asyncio.create_task(inner()))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(30), 0.001)
        variable.set("within")
        if fail:
            raise KeyError("its own")
        return seen

    variable.set("then")
    with opm.stage("outer"):
        function = opm.propagate(job)
    variable.set("now")
    assert inspect.iscoroutinefunction(function)
    assert await asyncio.gather(function(False), function(False)) == [["then"] * 3] * 2
    with pytest.raises(KeyError, match="its own"):
        await function(True)
    assert variable.get() == "now"
    assert {span.parent.span_id for span in spans_of(otel, "job")} == {
        otel.span("outer").context.span_id
    }


async def test_cancelling_a_coroutine() -> None:
    seen: list[str] = []

    async def job() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            seen.append(variable.get())

    variable.set("then")
    function = opm.propagate(job)
    variable.set("now")
    task = asyncio.create_task(function())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["then"]


# --- wrap_executor ---------------------------------------------------------------------------


def test_a_pool_of_threads(otel: Otel) -> None:
    with ThreadPoolExecutor(2) as raw:
        pool = opm.wrap_executor(raw)
        assert pool is raw
        assert isinstance(pool, ThreadPoolExecutor)
        with opm.run("one", resources=False), opm.run("two", resources=False) as two:
            assert pool.submit(work, 1).result() == 2
            assert pool.submit(work, number=2).result() == 3
            assert list(pool.map(work, range(3), timeout=30)) == [1, 2, 3]
        failed = pool.submit(jobs.fails)
        with pytest.raises(KeyError):
            failed.result()
    assert counts(two) == {"work": 5}
    parents = {span.parent.span_id for span in spans_of(otel, "work")}
    assert parents == {otel.span("run two").context.span_id}
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(work)


async def test_in_run_in_executor() -> None:
    loop = asyncio.get_running_loop()
    with opm.wrap_executor(ThreadPoolExecutor(2)) as pool:
        loop.set_default_executor(pool)
        with opm.run("one", resources=False), opm.run("two", resources=False) as two:
            await loop.run_in_executor(pool, work, 1)
            await loop.run_in_executor(None, work, 1)
    assert counts(two) == {"work": 2}


def test_executors_that_are_refused() -> None:
    with ThreadPoolExecutor(1) as pool:
        opm.wrap_executor(pool)
        with pytest.raises(TypeError, match="wrapped already"):
            opm.wrap_executor(pool)
        # an object that is not callable is the executor's problem
        with pytest.raises(TypeError):
            pool.submit(3).result()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a concurrent.futures.Executor, not list"):
        opm.wrap_executor([])  # type: ignore[type-var]


def test_an_executor_of_the_program() -> None:
    class Mine(Executor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(in_thread(lambda: function(*args, **kwargs)))
            return future

    pool = opm.wrap_executor(Mine())
    variable.set("submitted")
    assert list(pool.map(lambda _: variable.get(), range(2))) == ["submitted"] * 2


def test_threads_keep_their_time_apart(clock: Clock) -> None:
    """One worker per thread and not per job, the submitter is none of them; waits are its own."""
    import queue

    q = opm.wrap_queue(queue.Queue(), name="q")
    with (
        opm.wrap_executor(ThreadPoolExecutor(1)) as pool,
        opm.run("pool", resources=False) as run,
    ):

        def job() -> None:
            q.get()
            with opm.stage("job"):
                clock.advance(2)

        with opm.stage("feed"):
            for number in range(5):
                q.put(number)
                pool.submit(job).result()
    stages = {stage["name"]: stage for stage in run.report.to_dict()["stages"]}
    assert stages["job"]["workers"] == 1
    assert stages["job"]["time_s"]["busy"] == 10.0
    assert stages["feed"]["time_s"]["wall"] == 10.0


# --- processes -------------------------------------------------------------------------------


def test_what_a_pickle_carries() -> None:
    """Headers and the run."""
    tracer = trace.NonRecordingSpan(
        trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    token = context.attach(baggage.set_baggage("who", "me", trace.set_span_in_context(tracer)))
    with opm.run("nightly", resources=False) as run:
        packed = pickle.dumps(opm.propagate(jobs.parse))
    context.detach(token)
    arrived = pickle.loads(packed)  # noqa: S301 - our own
    number, trace_id, who, _ = arrived(5)
    assert (number, int(trace_id, 16), who) == (5, 0xABC, "me")
    scope = remote_runs.remote_run_scope("nightly", run.id)
    assert [series.key.pipeline for series in scope.series.values()] == ["nightly"]
    assert trace.get_current_span() is trace.INVALID_SPAN
    again = pickle.loads(pickle.dumps(arrived))  # noqa: S301 - our own
    assert again(6)[1:3] == (trace_id, who)


def test_without_a_propagator_the_context_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration file that names none has one that returns None."""
    arrived = pickle.loads(pickle.dumps(opm.propagate(jobs.parse)))  # noqa: S301 - our own
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", CompositePropagator([]))
    token = context.attach(baggage.set_baggage("who", "me"))
    try:
        assert arrived(5)[2] == "me"
    finally:
        context.detach(token)


def test_runs_of_other_processes_are_forgotten() -> None:
    before = len(remote_runs._remote_scopes)
    for number in range(100):
        remote_runs.remote_run_scope("nightly", f"run-{number}")
    assert len(remote_runs._remote_scopes) <= remote_runs.MAX_REMOTE_SCOPES
    assert before <= remote_runs.MAX_REMOTE_SCOPES
    remote_runs._remote_scopes.clear()


POOL = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import otel_pipeline_metrics as opm
from opentelemetry import baggage, context
from tests.system.processes import jobs
if __name__ == "__main__":
    jobs.configure()
    forks = sys.argv[1] == "fork"
    pool = opm.wrap_executor(ProcessPoolExecutor(
        2,
        mp_context=multiprocessing.get_context(sys.argv[1]),
        initializer=None if forks else jobs.configure,
    ))
    with pool:
        for name in ("one", "two"):
            with opm.run(name, resources=False) as run, opm.stage("crawl"):
                context.attach(baggage.set_baggage("who", name))
                got = [pool.submit(jobs.parse, 0).result()]
                got += pool.map(jobs.parse, range(1, 6), chunksize=2, timeout=60)
            print([number for number, *_ in got], {who for _, _, who, _ in got})
            print({trace for _, trace, _, _ in got} == {run.report.to_dict()["run"]["trace_id"]})
            print([stage["name"] for stage in run.report.to_dict()["stages"]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_pool_of_processes(method: str) -> None:
    """Spans are children of the one that submitted; metrics and report count for the run."""
    with collector("none", "http/protobuf") as there:
        done = run_text(POOL, method, collector=there)
    assert done.returncode == 0, done.stderr
    for name, lines in zip(("one", "two"), _by_three(done.stdout.splitlines()), strict=True):
        assert lines == [f"[0, 1, 2, 3, 4, 5] {{'{name}'}}", "True", "['crawl', 'parse']"]
    parsed = [
        (attributes["pipeline.name"], point.count)
        for _, attributes, point in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == "parse"
    ]
    for name in ("one", "two"):
        assert sum(count for pipeline, count in parsed if pipeline == name) == 6
    assert sum(invocations(there, "parse").values()) == 12
    crawls = {s.span_id for each in spans(there, "crawl").values() for s in each}
    parents = [s.parent_span_id for each in spans(there, "parse").values() for s in each]
    assert len(parents) == 12
    assert set(parents) == crawls


def _by_three(lines: list[str]) -> list[list[str]]:
    return [lines[at : at + 3] for at in range(0, len(lines), 3)]


@pytest.mark.slow
def test_a_function_that_does_not_pickle_fails_as_without_us() -> None:
    with opm.wrap_executor(
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    ) as pool:
        failed = pool.submit(lambda: None)
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            failed.result(60)


def test_a_coroutine_that_outlives_an_error_goes_on() -> None:
    """What it is sent after that is sent, and not thrown."""

    class Step:
        def __await__(self) -> Any:
            return (yield)

    @opm.propagate
    async def survives() -> list[Any]:
        try:
            await Step()
        except KeyError:
            return [await Step(), await Step()]
        return []

    coroutine = survives()
    coroutine.send(None)
    coroutine.throw(KeyError())
    coroutine.send(1)
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(2)
    assert stopped.value.value == [1, 2]
