"""Test that a collection has the time of calls and waits in progress, as a report has."""

from __future__ import annotations

import asyncio
import queue as thread_queue
import threading
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, sleep, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

STATES = ("running", "awaiting", "idle", "blocked")


class Both:
    """Looks at a stage's time in states, in the metrics and in the report so far."""

    def __init__(self, otel: Otel, run: opm.Run, stage: str) -> None:
        self._otel, self._run, self._stage = otel, run, stage
        self.seen: list[tuple[float, ...]] = []

    def look(self) -> None:
        values = self._otel.values("pipeline.stage.time", self._stage)
        in_metrics = {state: sum(v for k, v in values.items() if state in k) for state in STATES}
        in_report = stage_of(self._run, self._stage)["time_s"]
        assert in_metrics == {state: in_report[state] for state in STATES}
        self.seen.append(tuple(in_metrics[state] for state in STATES))


def test_a_long_call_of_a_worker(clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    @opm.write
    def store(item: int) -> None:
        for _ in range(2):
            clock.advance(item)
            both.look()

    with make_run() as run:
        both = Both(otel, run, "store")
        for item in (4, 8):
            q.put(item)
        store(q.get())
        clock.advance(1)
        store(q.get())
        both.look()
    assert [running for running, *_ in both.seen] == [4.0, 8.0, 17.0, 25.0, 25.0]


def test_a_long_call_of_a_task(clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]) -> None:
    @opm.write
    async def store(_: object) -> None:
        await sleep(10)

    async def main() -> Any:
        q = opm.wrap_queue(asyncio.Queue(), name="q")
        async with make_run() as run:
            both = Both(otel, run, "store")

            async def work() -> None:
                for _ in range(2):
                    await store(await q.get())

            q.put_nowait(1)
            q.put_nowait(2)
            worker = asyncio.ensure_future(work())
            for _ in range(3):
                await sleep(4)
                both.look()
            await worker
        return both.seen

    assert play(clock, main()) == [(0.0, 4.0 * n, 0.0, 0.0) for n in (1, 2, 3)]


def test_a_wait_inside_of_a_call(clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]) -> None:
    @opm.process
    def work() -> None:
        clock.advance(1)
        with opm.waiting():
            for _ in range(2):
                clock.advance(3)
                both.look()
        with opm.waiting("idle"):
            clock.advance(2)
            both.look()
        both.look()

    with make_run() as run:
        both = Both(otel, run, "work")
        work()
    assert both.seen == [
        (1.0, 0.0, 0.0, 3.0),
        (1.0, 0.0, 0.0, 6.0),
        (1.0, 0.0, 2.0, 6.0),
        (1.0, 0.0, 2.0, 6.0),
    ]


def test_a_wait_for_room_after_a_call(
    clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]
) -> None:
    @opm.fetch
    async def fetch(n: int) -> int:
        await sleep(1)
        return n

    async def main() -> Any:
        q = opm.wrap_queue(asyncio.Queue(1), name="q")
        async with make_run() as run:
            both = Both(otel, run, "fetch")

            async def produce() -> None:
                for n in range(2):
                    await q.put(await fetch(n))

            producer = asyncio.ensure_future(produce())
            for _ in range(2):
                await sleep(5)
                both.look()
            await q.get()
            await producer
            both.look()
        return both.seen

    assert play(clock, main()) == [(0.0, 2.0, 0.0, 3.0), *[(0.0, 2.0, 0.0, 8.0)] * 2]


def test_a_call_that_outlives_its_run(
    clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]
) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    begun, over = threading.Event(), threading.Event()

    @opm.write
    def store(_: object) -> None:
        begun.set()
        assert over.wait(60)

    def running() -> float:
        return float(sum(otel.values("pipeline.stage.time", "store").values()))

    worker = threading.Thread(target=lambda: store(q.get()))
    with make_run() as run:
        q.put(1)
        worker.start()
        assert begun.wait(60)
        clock.advance(2)
    found = [running()]
    for _ in range(2):
        clock.advance(3)
        found.append(running())
    over.set()
    worker.join()
    assert (found, running()) == ([2.0, 5.0, 8.0], 8.0)
    assert stage_of(run, "store")["time_s"]["running"] == 2.0
