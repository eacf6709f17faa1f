"""Test that items in are items out, in flight or failed, at any moment."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import series
from tests.probes.queues.support import play, queue_of, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


class Item(NamedTuple):
    """An item, and its effect on the stage that gets it."""

    seconds: float
    outcome: str


class Killer(NamedTuple):
    """The moments at which workers are cancelled and replaced."""

    at: float
    worker: int


_eighths = st.integers(0, 16).map(lambda n: n / 8)
_items = st.lists(
    st.tuples(_eighths, st.sampled_from(["ok", "ok", "ok", "error"])).map(lambda p: Item(*p)),
    max_size=20,
)
_killers = st.lists(
    st.tuples(_eighths.map(lambda n: n * 4), st.integers(0, 2)).map(lambda p: Killer(*p)),
    max_size=6,
)


class FailedError(Exception):
    """The error of an item."""


class Pipeline:
    """The pipeline feeder → first → work → second → write; `work` has three workers."""

    def __init__(self, inside: bool) -> None:
        self.first = opm.wrap_queue(asyncio.Queue(2), name="first")
        self.second = opm.wrap_queue(asyncio.Queue(1), name="second")
        self.inside = inside
        self.written: list[Item] = []
        self.lost = 0

    async def work(self) -> None:
        while True:
            if self.inside:
                async with opm.stage("work") as s:
                    await self._work(s, await self.first.get())
            else:
                item = await self.first.get()
                async with opm.stage("work") as s:
                    await self._work(s, item)

    async def _work(self, s: opm.Execution, item: Item) -> None:
        s.add_items(1, "in")
        try:
            await asyncio.sleep(item.seconds)
            if item.outcome == "error":
                raise FailedError  # noqa: TRY301 - as user code does
            await self.second.put(item)
        except BaseException:
            self.lost += 1
            raise
        s.add_items(1)

    async def write(self) -> None:
        while True:
            item = await self.second.get()
            async with opm.stage("write"):
                await asyncio.sleep(0.5)
                self.written.append(item)

    async def forever(self) -> None:
        while True:
            with contextlib.suppress(FailedError):
                await self.work()

    async def run(self, items: list[Item], killers: list[Killer], look: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        workers = [loop.create_task(self.forever()) for _ in range(3)]
        writer = loop.create_task(self.write())

        def kill(number: int) -> None:
            workers[number].cancel()
            workers[number] = loop.create_task(self.forever())

        for killer in killers:
            loop.call_later(killer.at, kill, killer.worker)
        for item in items:
            await self.first.put(item)
            look()
        for _ in range(8):
            await asyncio.sleep(2)
            look()
        for task in (*workers, writer):
            task.cancel()
        await asyncio.gather(*workers, writer, return_exceptions=True)


@given(items=_items, killers=_killers, inside=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_item_is_out_in_flight_or_failed(
    clock_of: Callable[[], Clock], items: list[Item], killers: list[Killer], inside: bool
) -> None:
    pipeline = Pipeline(inside)
    with opm.run("test", resources=False) as run:

        def look() -> None:
            check(run, pipeline)

        play(clock_of(), pipeline.run(items, killers, look))
    check(run, pipeline)
    if not any(stage["name"] == "work" for stage in run.report.to_dict()["stages"]):
        assert not items
        return
    work = stage_of(run, "work")
    got = queue_of(run, "first")["got"] if items else 0
    assert (work["items"]["in"] or 0) == got
    assert got == (work["items"]["out"] or 0) + pipeline.lost
    # a worker that is cancelled while it waits for an item loses none
    waiting = 0 if not inside else work["cancelled"] + work["errors"]["total"] - pipeline.lost
    assert pipeline.lost == work["cancelled"] + work["errors"]["total"] - waiting
    assert work["count"] == got + waiting
    assert active("work") == 0


def active(name: str) -> int:
    return sum(s.active for s in series.all_series() if s.key.stage == name)


def check(run: opm.Run, pipeline: Pipeline) -> None:
    """Compare the numbers of queues and stages while the pipeline runs."""
    data: dict[str, Any] = run.report.to_dict()
    queues = {queue["name"]: queue for queue in data["queues"]}
    stages = {stage["name"]: stage for stage in data["stages"]}
    for name, q in (("first", pipeline.first), ("second", pipeline.second)):
        if name in queues:
            assert queues[name]["put"] == queues[name]["got"] + q.qsize()
    if "second" in queues:
        wrote = stages.get("write", {"count": 0})["count"]
        assert queues["second"]["got"] == wrote + active("write")
    if "first" in queues and not pipeline.inside:
        done = stages.get("work", {"count": 0})["count"]
        assert queues["first"]["got"] == done + active("work")
