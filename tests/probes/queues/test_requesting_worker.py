"""Test that `requesting_worker` returns what `current_worker` does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._stages.workers import accounting, worker
from otel_pipeline_metrics._stages.workers.finding import current_worker, requesting_worker


@pytest.fixture(autouse=True)
def watched() -> None:
    accounting.watch()


def same() -> worker.Worker:
    """Return the worker; `requesting_worker` is first, since `current_worker` may make one."""
    found = requesting_worker()
    assert found is not None
    assert found is current_worker(waits=True)
    return found


def test_both_agree_in_and_around_stages() -> None:
    outside = same()
    with opm.stage("outer"):
        assert same() is outside
        with opm.stage("inner"):
            assert same() is outside
    assert same() is outside


def test_both_agree_in_another_run() -> None:
    outside = same()
    with opm.run("run", resources=False):
        first = same()
        with opm.stage("work"):
            assert same() is first
    assert same() is not first
    assert outside is not first


def test_both_agree_in_a_task_and_its_thread() -> None:
    async def main() -> None:
        mine = same()
        assert await asyncio.to_thread(same) is mine
        with opm.stage("work"):
            assert await asyncio.to_thread(same) is same()
            assert await asyncio.create_task(asked()) is not same()

    async def asked() -> worker.Worker:
        return same()

    asyncio.run(main())


def test_both_agree_while_another_thread_waits_for_the_worker() -> None:
    async def main() -> None:
        mine = same()
        waiting, over = threading.Event(), threading.Event()

        def wait() -> None:
            with opm.waiting():
                waiting.set()
                over.wait(10)

        thread = asyncio.create_task(asyncio.to_thread(wait))
        await asyncio.to_thread(waiting.wait, 10)
        assert mine.waits
        same()
        over.set()
        await thread

    asyncio.run(main())


def test_both_agree_while_the_worker_is_in_a_stage_elsewhere() -> None:
    found: Any = same()
    with opm.stage("work"):
        pass
    with opm.stage("elsewhere") as call:
        pass
    call.opener = "another"
    found.stack.append([None, None, 0.0, call, None, None, None, found])
    found.settle()
    same()
    found.stack.clear()


def test_both_agree_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = same()

    def fork() -> None:
        monkeypatch.setattr(worker, "_first_number", next(worker._numbers))
        series.reset_after_fork()

    fork()
    assert same() is not parents
    with opm.stage("work"):
        fork()
        same()
