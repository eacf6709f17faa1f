"""Test that a run that is over leaves nothing behind: memory, work for each drain, a context."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as context_api

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, remote_runs, series
from otel_pipeline_metrics._core.limit_series import LimitUse
from otel_pipeline_metrics._stages import propagate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lifecycle.configure.conftest import Captured


@opm.stage("work")
def work() -> None: ...


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Free by reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def plain() -> opm.Run:
    with opm.run("plain", resources=False) as run:
        work()
    return run


def sampled() -> opm.Run:
    with opm.run("sampled") as run:
        work()
    return run


def live() -> opm.Run:
    with opm.run("live", resources=False, live=True) as run:
        work()
    return run


def on_a_loop() -> opm.Run:
    async def main() -> opm.Run:
        async with opm.run("loop") as run:
            work()
        return run

    return asyncio.run(main())


def outlived() -> opm.Run:
    @opm.stage("endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    @opm.stage("parent")
    async def parent() -> asyncio.Task[None]:
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        return task

    async def main() -> opm.Run:
        async with opm.run("outlived", resources=False) as run:
            task = await parent()
        task.cancel()
        await asyncio.wait([task])
        drain.drain()
        return run

    return asyncio.run(main())


def with_a_queue() -> opm.Run:
    items: Any = opm.wrap_queue(queue.Queue(), name="lifetimes")
    with opm.run("queue", resources=False) as run, opm.stage("moves"):
        items.put(1)
        items.get()
    return run


def with_a_limit() -> opm.Run:
    lock = opm.wrap_limit(threading.Lock(), name="lifetimes")
    with opm.run("limit", resources=False) as run:
        for _ in range(2):
            with opm.stage("moves"), lock:
                pass
            with lock:
                pass
    return run


def failed() -> opm.Run:
    run = opm.run("failed", resources=False)
    with contextlib.suppress(KeyError), run, opm.stage("fails"):
        raise KeyError
    return run


@pytest.mark.parametrize(
    "make", [plain, sampled, live, on_a_loop, outlived, with_a_queue, with_a_limit, failed]
)
def test_a_run_that_is_over_is_freed_at_once(
    make: Callable[[], opm.Run], captured: Captured, no_gc: None
) -> None:
    """Also everything that it counted in; its report stays with whoever has it."""
    captured.configure(console=False)
    # a context keeps the worker that it had last
    run = contextvars.copy_context().run(make)
    report = run.report
    left = [weakref.ref(run), weakref.ref(run._collector), weakref.ref(run._collector.stats)]
    del run
    assert [ref() for ref in left] == [None, None, None]
    uses = [each for each in gc.get_objects() if type(each) is LimitUse]
    assert not [each for each in uses if each.limit.name == "lifetimes" and each.stage is None]
    assert report.stages


def test_a_run_that_is_over_costs_no_drain_anything(no_gc: None) -> None:
    before = list(series.scopes)
    runs = [plain() for _ in range(5)]
    assert len(runs) == 5
    assert list(series.scopes) == before


def test_what_goes_on_after_its_run_is_counted_and_forgotten_again(captured: Captured) -> None:
    """A task that outlives its run, with a drain between any two of its calls."""
    captured.configure(console=False)
    before = list(series.scopes)
    with opm.run("short", resources=False):
        late = contextvars.copy_context()
    for _ in range(3):
        late.run(work)
        assert len(series.scopes) == len(before) + 1
        drain.drain()
        assert list(series.scopes) == before
    assert captured.values("pipeline.stage.duration", "pipeline.name") == {"short": 3}


def test_a_call_in_progress_keeps_its_run_until_it_ends(captured: Captured) -> None:
    captured.configure(console=False)
    before = list(series.scopes)
    block = opm.stage("long")

    def begin() -> None:
        block.__enter__()

    with opm.run("short", resources=False):
        inside = contextvars.copy_context()
        inside.run(begin)
    drain.drain()
    assert len(series.scopes) == len(before) + 1
    inside.run(block.__exit__, None, None, None)
    drain.drain()
    assert list(series.scopes) == before
    assert captured.values("pipeline.stage.duration", "pipeline.name") == {"short": 1}


def test_the_run_of_another_process_keeps_its_stages_while_it_is_remembered() -> None:
    """A new budget of spans after each drain would be no budget."""
    try:
        for _ in range(2):
            contextvars.copy_context().run(propagate.FromOtherProcess(work, {}, "p", "ab"))
            drain.drain()
        scope = remote_runs._remote_scopes["ab"]
        (remote,) = scope.series.values()
        assert (remote.account.count, scope.released) == (2, False)
    finally:
        remote_runs._remote_scopes.clear()


def entered(name: str) -> opm.Run:
    run = opm.run(name, resources=False)
    run.__enter__()
    return run


def end(run: opm.Run) -> None:
    run.__exit__(None, None, None)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_work_belongs_to_the_innermost_run_that_goes_on(
    order: tuple[int, ...], captured: Captured
) -> None:
    """Three runs begin in one order and end in any other; nothing is left of them."""
    captured.configure(console=False)
    before = series.active_cell.get(), context_api.get_current()
    names = ("A", "B", "C")
    runs = [entered(name) for name in names]
    open_runs = [0, 1, 2]
    for which in order:
        end(runs[which])
        open_runs.remove(which)
        assert series.current_scope().pipeline == (names[open_runs[-1]] if open_runs else None)
        work()
    work()
    assert (series.active_cell.get(), context_api.get_current()) == before

    spans = captured.spans()
    run_of = {span.context.span_id: span.name for span in spans if span.name.startswith("run ")}
    parents = [span.parent and run_of[span.parent.span_id] for span in spans if span.name == "work"]
    expected: list[str | None] = []
    open_runs = [0, 1, 2]
    for which in order:
        open_runs.remove(which)
        expected.append(f"run {names[open_runs[-1]]}" if open_runs else None)
    assert parents == [*expected, None]


@pytest.mark.parametrize("ended_elsewhere", [0, 1])
def test_runs_may_end_in_another_thread(ended_elsewhere: int, captured: Captured) -> None:
    """The context of the thread that they began in is right again with the last of them."""
    captured.configure(console=False)
    before = series.active_cell.get(), context_api.get_current()
    runs = [entered("A"), entered("B")]
    thread = threading.Thread(target=end, args=(runs.pop(ended_elsewhere),))
    thread.start()
    thread.join()
    end(runs.pop())
    assert (series.active_cell.get(), context_api.get_current()) == before


def test_a_run_after_one_that_ended_in_another_thread_is_not_inside_it(
    captured: Captured,
) -> None:
    """Also many of them make no chain."""
    captured.configure(console=False)

    def program() -> None:
        for _ in range(3):
            thread = threading.Thread(target=end, args=(entered("A"),))
            thread.start()
            thread.join()
        with opm.run("B", resources=False):
            found = series.active_cell.get()
            assert found is not None
            assert found[0].outer is None
        assert series.active_cell.get() is None

    contextvars.Context().run(program)
    spans = captured.spans()
    assert [span.parent for span in spans if span.name == "run B"] == [None]


def test_ending_a_run_again_changes_nothing(captured: Captured) -> None:
    captured.configure(console=False)
    run = plain()
    report = run.report
    with opm.run("other", resources=False) as other:
        run.__exit__(KeyError, KeyError(), None)
        work()
    assert run.report is report
    assert report.run["result"] == "success"
    assert [stage["count"] for stage in other.report.stages] == [1]
    assert captured.values("pipeline.run.duration", "pipeline.name") == {"plain": 1, "other": 1}


def test_ending_a_run_that_was_not_entered_changes_nothing(captured: Captured) -> None:
    captured.configure(console=False)
    run = opm.run("never", resources=False)
    end(run)
    assert captured.values("pipeline.run.duration", "pipeline.name") == {}
    with run:
        work()
    assert [stage["count"] for stage in run.report.stages] == [1]


@pytest.mark.parametrize("runs_later", [0, 1, 40])
def test_a_call_that_looked_up_its_series_before_the_run_was_forgotten_is_counted(
    runs_later: int, captured: Captured
) -> None:
    with opm.run("over", resources=False) as run:
        work()
        (found,) = run._scope.series.values()
    assert not run._scope.series  # forgotten
    # the late call begins, other runs come and go, and it ends
    found.kept[0] = series.default_cell
    for _ in range(runs_later):
        plain()
    found.durations.append(0.25)
    found.kept.clear()
    drain.drain()
    assert (found.active, found.pending) == (0, False)
