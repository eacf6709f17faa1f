"""Test that what the tasks of a wrapped process pool do is in the run's report."""

from __future__ import annotations

import builtins
import concurrent.futures
import copyreg
import multiprocessing
import os
import pickle
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.support.process import poll
from tests.system.faults.collector.servers import collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lifecycle.configure.support import Captured

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    with concurrent.futures.ProcessPoolExecutor(
        2, multiprocessing.get_context("forkserver")
    ) as made:
        yield opm.wrap_executor(made)


@opm.stage("parse")
def parse(number: int) -> int:
    opm.current_stage().add_items(2)
    if number % 10 == 3:
        opm.current_stage().retry("again")
    if number % 10 == 5:
        raise ValueError("bad", number)
    return number


@opm.stage("convert")
def convert(number: int) -> int:
    return parse(number - number % 10)


class OddError(Exception):
    """One that pickles in its own way."""

    def __init__(self, first: int, second: object) -> None:
        super().__init__(first)
        self.second = second

    def __reduce__(self) -> Any:
        return OddError, (self.args[0], self.second), {"third": 3}


def odd(number: int) -> None:
    parse(number)
    raise OddError(number, [number])


def plain_error() -> None:
    raise OddError(1, [1])


def end(_: int) -> None:
    os._exit(3)


def not_picklable() -> object:
    parse(1)
    return threading.Lock()


def register() -> None:
    copyreg.pickle(ValueError, _by_a_library)  # type: ignore[arg-type]


def _by_a_library(error: ValueError) -> Any:
    return ValueError, error.args, error.__dict__


def row(run: opm.Run) -> dict[str, Any]:
    (found,) = run.report.stages
    return found


def test_an_exception_that_a_library_pickles_leaves_its_part_to_the_next_result() -> None:
    context = multiprocessing.get_context("forkserver")
    with (
        concurrent.futures.ProcessPoolExecutor(1, context, register) as pool,
        opm.run("pool", resources=False) as run,
    ):
        opm.wrap_executor(pool)
        error = pool.submit(parse, 5).exception()
        assert (type(error), vars(error)) == (ValueError, {})
        assert pool.submit(parse, 1).result() == 1
    assert (row(run)["count"], row(run)["errors"]["by_type"]) == (2, {"ValueError": 1})
    assert run.parts_missing == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_calls_in_two_processes(method: str) -> None:
    context = multiprocessing.get_context(method)
    with (
        concurrent.futures.ProcessPoolExecutor(2, context) as pool,
        opm.run("pool", resources=False) as run,
    ):
        opm.wrap_executor(pool)
        futures = [pool.submit(parse, number) for number in range(500)]
        results = list(pool.map(parse, [n for n in range(555) if n % 10 != 5], chunksize=10))
        found = [future.exception() for future in futures]
    assert results == [n for n in range(555) if n % 10 != 5]
    assert [type(error) for error in found if error is not None] == [ValueError] * 50
    stage = row(run)
    assert (stage["count"], stage["errors"]["by_type"]) == (1000, {"ValueError": 50})
    assert (stage["items"]["out"], stage["retries"]) == (2000, 106)
    assert 1 <= stage["workers"] <= 2
    assert run.report.run["parts"] == 550
    assert run.parts_missing == 0


@pytest.mark.slow
def test_the_verdict_names_the_slow_stage_in_the_workers(
    pool: concurrent.futures.ProcessPoolExecutor,
) -> None:
    # the pool's own start is not the run's
    list(pool.map(uneven, range(2)))
    with opm.run("pool", resources=False) as run:
        list(pool.map(uneven, range(8)))
    assert run.report.bottleneck["stage"] == "slow"


def uneven(_: int) -> None:
    import time

    with opm.stage("fast"):
        pass
    with opm.stage("slow"):
        time.sleep(0.25)


def test_an_exception_is_as_it_was(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    with opm.run("pool", resources=False) as run:
        error = pool.submit(odd, 1).exception()
    outside = pool.submit(plain_error).exception()
    assert type(error) is OddError
    assert (error.args, vars(error)) == ((1,), {"second": [1], "third": 3})
    assert row(run)["count"] == 1
    assert vars(outside) == vars(error)
    # an exception that arrived goes on as any other
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.args, vars(again)) == (error.args, vars(error))


def raises(kind: str) -> None:
    if kind == "cause":
        try:
            parse(5)
        except ValueError as error:
            raise OddError(1, 2) from error
    if kind == "group":
        raise builtins.ExceptionGroup("some", [ValueError(1), KeyError(2)])  # type: ignore[attr-defined]
    if kind == "note":
        noted = KeyError("key")
        noted.__notes__ = ["a note"]  # type: ignore[attr-defined]
        raise noted
    {"exit": sys.exit, "called wrongly": odd}[kind]()  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="one frame of ours is printed there")
@pytest.mark.parametrize("method", METHODS)
def test_a_printed_traceback_is_that_of_the_bare_pool(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dask, which other tests import, has exceptions pickled in a way of its own, here too
    for kind in [kind for kind in copyreg.dispatch_table if issubclass(kind, BaseException)]:
        monkeypatch.delitem(copyreg.dispatch_table, kind)
    kinds = ("cause", "group", "note", "exit", "called wrongly")
    calls: list[tuple[Any, ...]] = [*((raises, kind) for kind in kinds), (raises,), (odd, 1, 2)]
    context = multiprocessing.get_context(method)

    def printed(pool: concurrent.futures.ProcessPoolExecutor) -> list[str]:
        found = [pool.submit(*call).exception(60) for call in calls]
        return ["".join(traceback.format_exception(error)) for error in found if error is not None]

    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        bare = printed(pool)
        opm.wrap_executor(pool)
        outside_of_runs = printed(pool)
        with opm.run("pool", resources=False) as run:
            in_a_run = printed(pool)
    assert len(bare) == len(calls)
    assert outside_of_runs == in_a_run == bare
    assert run.parts_missing == 0


def in_a_thread() -> None:
    thread = threading.Thread(target=parse, args=(1,))
    thread.start()
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_threads_of_a_task_belong_to_its_part(method: str) -> None:
    """Also in a forked worker, which has a copy of the open run."""
    context = multiprocessing.get_context(method)
    with (
        opm.run("pool", resources=False) as run,
        concurrent.futures.ProcessPoolExecutor(1, context) as pool,
    ):
        opm.wrap_executor(pool).submit(in_a_thread).result()
    assert row(run)["count"] == 1


def test_only_a_run_wraps_results(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    assert pool.submit(parse, 1).result() == 1
    with opm.run("pool", resources=False) as run:
        pass
    assert run.report.stages == []


@pytest.mark.parametrize("function", [end, not_picklable])
def test_what_is_lost_is_missing_and_not_waited_for(
    pool: concurrent.futures.ProcessPoolExecutor, function: Callable[..., object]
) -> None:
    run = opm.run("pool", resources=False, parts_timeout=3600)
    with run:
        pool.submit(parse, 1).result()
        arguments = (1,) if function is end else ()
        assert pool.submit(function, *arguments).exception() is not None
    assert run.parts_missing == 1
    assert row(run)["count"] == 1


def test_a_task_that_never_began_is_not_missing(
    pool: concurrent.futures.ProcessPoolExecutor,
) -> None:
    with opm.run("pool", resources=False) as run:
        futures = [pool.submit(uneven, number) for number in range(12)]
        cancelled = [future.cancel() for future in futures]
        concurrent.futures.wait(futures)
    assert any(cancelled)
    assert run.parts_missing == 0
    assert run.report.run["parts"] == cancelled.count(False)


def test_a_call_that_unpickles_where_it_was_made_gives_the_value() -> None:
    """Another kind of pool may run it there."""
    made = []

    class Here(concurrent.futures.ProcessPoolExecutor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            made.append(pickle.loads(pickle.dumps(function)))  # noqa: S301 - our own
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(made[-1](*args, **kwargs))
            return future

    with Here(1) as pool, opm.run("pool", resources=False, parts_timeout=0) as run:
        assert opm.wrap_executor(pool).submit(parse, 1).result() == 1
    assert row(run)["count"] == 1


def test_propagate_gives_the_plain_value(captured: Captured) -> None:
    with opm.run("pool", resources=False) as run:
        carried = pickle.dumps(opm.propagate(parse))
    assert pickle.loads(carried)(1) == 1  # noqa: S301 - our own
    assert "parts" not in run.report.run


def test_spans_of_tasks_are_in_the_runs_trace() -> None:
    """They are in the workers' trace, whose ids come back with what they return."""
    context = multiprocessing.get_context("forkserver")
    with (
        concurrent.futures.ProcessPoolExecutor(1, context) as pool,
        opm.run("pool", resources=False),
    ):
        opm.wrap_executor(pool)
        with opm.stage("submitting"):
            assert pool.submit(headers).result() == current_headers()


@pytest.mark.slow
# the server of forkserver keeps the environment of the test that started it
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("carry", [opm.wrap_executor, None])
def test_a_worker_flushes_while_it_works(
    monkeypatch: pytest.MonkeyPatch, method: str, carry: Any
) -> None:
    """It may be ended without warning, and then its last interval would be lost."""
    with collector("none", "http/protobuf") as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{there.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        opm.configure(console=False)
        context = multiprocessing.get_context(method)
        with (
            concurrent.futures.ProcessPoolExecutor(1, context) as pool,
            opm.run("pool", resources=False),
        ):
            if carry is not None:
                carry(pool)
            work = opm.propagate(parse)
            assert [pool.submit(work, number).result() for number in (0, 1)] == [0, 1]
            poll(lambda: there.calls("parse") == 2, timeout=60, what="the calls")
            poll(lambda: there.spans["parse"] == 2, timeout=60, what="their spans")
        opm.shutdown()


def current_headers() -> dict[str, str]:
    from opentelemetry import propagate

    found: dict[str, str] = {}
    propagate.inject(found)
    return found


def headers() -> dict[str, str]:
    return current_headers()


def test_a_pool_is_held_by_the_outermost_stage_of_its_tasks(
    pool: concurrent.futures.ProcessPoolExecutor,
) -> None:
    with opm.run("held", resources=False) as run:
        assert list(pool.map(convert, range(20))) == [0] * 10 + [10] * 10
    (limit,) = run.report.limits
    assert limit["kind"] == "process pool"
    assert [each["stage"] for each in limit["stages"]] == ["convert"]
    (held,) = limit["stages"]
    assert held["held_s"] > 0
    assert held["waited_s"] == pytest.approx(limit["wait_s"]["total"])
