"""Test that a run that is over leaves nothing behind: memory, work for each drain, a context."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import queue
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, series
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


def with_a_queue() -> opm.Run:
    items: Any = opm.wrap_queue(queue.Queue(), name="lifetimes")
    with opm.run("queue", resources=False) as run, opm.stage("moves"):
        items.put(1)
        items.get()
    return run


def failed() -> opm.Run:
    run = opm.run("failed", resources=False)
    with contextlib.suppress(KeyError), run, opm.stage("fails"):
        raise KeyError
    return run


@pytest.mark.parametrize("make", [plain, sampled, live, on_a_loop, with_a_queue, failed])
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
            contextvars.copy_context().run(propagate._FromOtherProcess(work, {}, "p", "ab"))
            drain.drain()
        scope = series._remote_scopes["ab"]
        (remote,) = scope.series.values()
        assert (remote.ended_before, scope.released) == (2, False)
    finally:
        series._remote_scopes.clear()
