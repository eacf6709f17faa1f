"""Test which worker the tasks of trio and the greenlets of gevent count as."""

from __future__ import annotations

import sys
import threading
import types
from queue import Queue
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._stages.workers.worker import owner_here
from tests.probes.queues.support import stage_of, states
from tests.stages.support import run_script

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock


def test_trio_tasks_are_workers_of_their_own(clock: Clock) -> None:
    """The task that starts them has been a worker itself, and they copy its context."""

    @opm.stage
    async def waits(over: trio.Event) -> None:
        with opm.waiting():
            await over.wait()

    @opm.stage
    async def works(over: trio.Event) -> None:
        with opm.waiting():
            clock.advance(0.5)
        await over.wait()

    async def main() -> None:
        with opm.stage("setup"), opm.waiting():
            clock.advance(1)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            # trio resumes tasks in random order
            nursery.start_soon(works, over)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(waits, over)
            nursery.start_soon(waits, over)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(2)
            over.set()

    with opm.run("r", resources=False) as run:
        trio.run(main)
    assert states(run, "setup") == (0.0, 0.0, 1.0)
    assert (states(run, "waits"), stage_of(run, "waits")["workers"]) == ((0.0, 0.0, 4.0), 2)
    assert (states(run, "works"), stage_of(run, "works")["workers"]) == ((2.0, 0.0, 0.5), 1)


def test_a_thread_works_for_the_trio_task_that_waits_for_it(clock: Clock) -> None:
    """`trio.to_thread.run_sync` copies the task's context, as `asyncio.to_thread` does."""
    q: Queue[Any] = opm.wrap_queue(Queue(), name="q")

    @opm.stage
    async def gets() -> None:
        def later() -> None:
            while not q.not_empty._waiters:  # type: ignore[attr-defined]
                pass
            clock.advance(3)
            q.put("item")

        feeding = threading.Thread(target=later)
        feeding.start()
        assert await trio.to_thread.run_sync(q.get) == "item"
        feeding.join()
        clock.advance(1)

    with opm.run("r", resources=False) as run:
        trio.run(gets)
    assert (states(run, "gets"), stage_of(run, "gets")["workers"]) == ((1.0, 3.0, 0.0), 1)


def test_a_thread_outside_a_trio_task_is_its_own_owner() -> None:
    """This process has imported trio; only its tasks have owners other than threads."""
    thread = (threading.get_ident(),)

    async def main() -> tuple[Any, ...]:
        return owner_here(), await trio.to_thread.run_sync(owner_here)

    inside, in_thread = trio.run(main)
    assert owner_here() == thread
    assert isinstance(inside, int)
    assert in_thread not in (inside, thread)


def test_a_trio_task_in_an_asyncio_loop_is_an_owner() -> None:
    """In guest mode an asyncio loop runs trio's tasks, outside of asyncio's tasks."""
    import asyncio

    async def guest() -> object:
        return owner_here()

    async def host() -> tuple[object, object]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=lambda outcome: done.set_result(outcome.unwrap()),
        )
        return owner_here(), await done

    outer, inner = asyncio.run(host())
    assert isinstance(inner, int)
    assert inner != outer


@pytest.mark.parametrize("name", ["trio", "gevent"])
def test_a_module_that_is_being_imported_is_passed_over(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may be importing it: `sys.modules` has it, without its functions."""
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert owner_here() == (threading.get_ident(),)


@pytest.mark.processes
def test_trio_and_gevent_are_never_imported(tmp_path: Path) -> None:
    """A program that uses neither gets neither from wrapped queues."""
    program = """
        import queue, sys
        import otel_pipeline_metrics as opm

        q = opm.wrap_queue(queue.Queue(), name="q")
        with opm.stage("s"):
            q.put(1)
            q.get()
        print(sorted({"trio", "gevent", "anyio"} & sys.modules.keys()))
    """
    found = run_script(dedent(program), tmp_path / "program.py")
    assert found.stdout == "[]\n", found.stderr


GREENLETS = """
    from otel_pipeline_metrics._stages.workers.worker import owner_here

    before = owner_here()

    import threading
    {patch}
    import gevent

    import otel_pipeline_metrics as opm
    from otel_pipeline_metrics._core import clock, errors

    errors.raise_faults = True
    opm.configure(exporter="none", console=False)
    time = [0.0]
    clock.now = lambda: time[0]

    def waits(over):
        with opm.stage("waits"), opm.waiting():
            over.wait()

    def works(over):
        with opm.stage("works"):
            with opm.waiting():
                time[0] += 0.5
            over.wait()

    from gevent.event import Event

    with opm.run("r", resources=False) as run:
        with opm.stage("setup"), opm.waiting():
            time[0] += 1
        over = Event()
        all_of_them = [gevent.spawn(each, over) for each in (works, waits, waits)]
        gevent.sleep(0)
        time[0] += 2
        over.set()
        gevent.joinall(all_of_them, raise_error=True)
    for stage in sorted(run.report.stages, key=lambda stage: stage["name"]):
        spent = stage["time_s"]
        print(stage["name"], stage["workers"], spent["busy"], spent["blocked"])

    assert {patch!r} or before == owner_here()
    seen = [gevent.spawn(owner_here) for _ in range(2)]
    gevent.joinall(seen, raise_error=True)
    assert len({{owner_here(), *(each.value for each in seen)}}) == 3
    assert all(isinstance(each.value, tuple) for each in seen)
"""


@pytest.mark.processes
@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
def test_greenlets_are_workers_of_their_own(patch: str, tmp_path: Path) -> None:
    """They share one thread; with gevent's monkey-patching each has an identity as a thread."""
    found = run_script(dedent(GREENLETS).format(patch=patch), tmp_path / "program.py")
    assert found.stdout == "setup 1 0.0 1.0\nwaits 2 0.0 4.0\nworks 1 2.0 0.5\n", found.stderr
