"""Test that the time of random workers adds up, and that no item is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from tests.probes.queues.support import STATES, play

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from otel_pipeline_metrics._core.observed import WorkerTimes
    from tests.conftest import Clock

STAGES = ("a", "b")


class Op(NamedTuple):
    """One operation of a worker."""

    name: str
    seconds: float = 0.0
    stage: str = ""
    inside: tuple[Op, ...] = ()


class PlannedError(Exception):
    """An error that a worker's script raises."""


# eighths add up exactly in any order
_seconds = st.integers(0, 24).map(lambda n: n / 8)
_simple = st.one_of(
    st.tuples(st.sampled_from(["sleep", "sleep", "waiting", "get for"]), _seconds),
    st.tuples(st.sampled_from(["get", "get", "put", "put", "get ahead", "children"])),
).map(lambda parts: Op(*parts))
_stage = st.deferred(
    lambda: st.tuples(
        st.sampled_from(["stage", "stage", "generator", "raising"]),
        st.just(0.0),
        st.sampled_from(STAGES),
        st.lists(_ops, max_size=4).map(tuple),
    ).map(lambda parts: Op(*parts))
)
_ops = st.one_of(_simple, _simple, _stage)


class Script(NamedTuple):
    """The operations of a worker, how often it repeats them, and its cancellation."""

    ops: tuple[Op, ...]
    rounds: int
    cancelled_at: float | None


scripts = st.lists(
    st.tuples(
        st.lists(_ops, min_size=1, max_size=6).map(tuple),
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(0, 160).map(lambda n: n / 8)),
    ).map(lambda parts: Script(*parts)),
    min_size=1,
    max_size=4,
)


class Ledger:
    """The expected account of one worker."""

    def __init__(self) -> None:
        self.time = {stage: Counter[str]() for stage in STAGES}
        self.stack: list[str] = []
        self.last: str | None = None
        self.met = False
        self.gap = Counter[str]()
        self.pending = Counter[str]()
        self.wall = 0.0
        self.nobodys = 0.0

    def spent(self, state: str, seconds: float) -> None:
        self.wall += seconds
        if self.stack:
            for stage in set(self.stack):
                self.time[stage][state] += seconds
            self.wall += seconds * (len(set(self.stack)) - 1)
        elif state == "busy":
            # the next operation decides whose time it is
            self.gap[state] += seconds
        else:
            self._outside(state, seconds)

    def _outside(self, state: str, seconds: float) -> None:
        if self.last is None and not self.met:
            self.nobodys += seconds
        elif state == "idle" or self.last is None:
            self.pending[state] += seconds
        else:
            self.time[self.last][state] += seconds

    def _close_gap(self) -> None:
        self._outside("busy", self.gap.pop("busy", 0.0))

    def at_queue(self, *, puts: bool) -> None:
        if self.stack:
            return
        if puts and self.last is None:
            self.nobodys += sum(self.pending.values()) + self.gap.pop("busy", 0.0)
            self.pending.clear()
            self.met = False
            return
        self._close_gap()
        self.met = True

    def entered(self, stage: str) -> None:
        if not self.stack:
            if self.last in {None, stage} or self.met:
                self._close_gap()
            else:
                self.nobodys += self.gap.pop("busy", 0.0)
            self.time[stage].update(self.pending)
            self.pending.clear()
            self.last = stage
        self.stack.append(stage)

    def left(self) -> None:
        self.stack.pop()
        if not self.stack:
            self.met = False

    def over(self) -> None:
        """A wait before a stage that never came counts for the last one."""
        self.nobodys += self.gap.pop("busy", 0.0)
        if self.last is not None:
            self.time[self.last].update(self.pending)
        else:
            self.nobodys += sum(self.pending.values())
        self.pending.clear()


class Player:
    """A worker that runs one script and keeps its ledger."""

    def __init__(self, clock: Clock, source: Any, sink: Any, number: int) -> None:
        self.clock = clock
        self.source = source
        self.sink = sink
        self.number = number
        self.made = 0
        self.got: list[Any] = []
        self.ledger = Ledger()
        self.failed = 0

    async def play(self, script: Script) -> None:
        for _ in range(script.rounds):
            for op in script.ops:
                await self.do(op)

    async def do(self, op: Op) -> None:
        if op.stage:
            await getattr(self, f"_{op.name}")(op)
            return
        ledger, began = self.ledger, self.clock.now()
        at_queue, puts = op.name not in {"sleep", "children"}, op.name.startswith("put")
        if at_queue:
            ledger.at_queue(puts=puts)
        try:
            await getattr(self, f"_{op.name.replace(' ', '_')}")(op.seconds)
        finally:
            state = {"get": "idle", "put": "blocked", "waiting": "blocked"}.get(op.name.split()[0])
            ledger.spent(state or "busy", self.clock.now() - began)
            if puts:
                ledger.at_queue(puts=True)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _waiting(self, seconds: float) -> None:
        async with opm.waiting():
            await asyncio.sleep(seconds)

    async def _get(self, _: float) -> None:
        self.got.append(await self.source.get())

    async def _get_for(self, seconds: float) -> None:
        # without any time, it would not be read
        with contextlib.suppress(asyncio.TimeoutError):
            self.got.append(await asyncio.wait_for(self.source.get(), seconds + 0.125))

    async def _get_ahead(self, _: float) -> None:
        ahead = asyncio.create_task(self.source.get())
        try:
            self.got.append(await ahead)
        except asyncio.CancelledError:
            if ahead.done() and not ahead.cancelled():
                self.got.append(ahead.result())
            raise

    def _item(self) -> tuple[int, int]:
        self.made += 1
        return self.number, self.made

    async def _put(self, _: float) -> None:
        item = self._item()
        try:
            await self.sink.put(item)
        except asyncio.CancelledError:
            self.made -= 1
            raise

    async def _children(self, _: float) -> None:
        """Run operations in child tasks, which the worker awaits."""

        async def child() -> None:
            await asyncio.sleep(0.5)
            if not self.source.empty():
                self.got.append(self.source.get_nowait())
            with opm.waiting():
                await asyncio.sleep(0.25)

        await asyncio.gather(child(), child())

    async def _stage(self, op: Op) -> None:
        try:
            with opm.stage(op.stage):
                self.ledger.entered(op.stage)
                for inner in op.inside:
                    await self.do(inner)
        finally:
            self.ledger.left()

    async def _raising(self, op: Op) -> None:
        try:
            with opm.stage(op.stage):
                self.ledger.entered(op.stage)
                for inner in op.inside:
                    await self.do(inner)
                raise PlannedError  # noqa: TRY301 - the stage is to be left with it
        except PlannedError:
            self.failed += 1
        finally:
            self.ledger.left()

    async def _generator(self, op: Op) -> None:
        """Run each operation between two yields, with a pause of the consumer after each."""
        ledger = self.ledger

        @opm.stage(op.stage)
        async def steps() -> AsyncIterator[int]:
            # the wrapper sees an early end in `finally`
            for inner in op.inside:
                ledger.entered(op.stage)
                try:
                    await self.do(inner)
                finally:
                    ledger.left()
                yield 1
            ledger.entered(op.stage)
            ledger.left()

        async for _ in steps():
            await self.do(Op("sleep", 0.125))


@given(scripts)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_workers_time_adds_up(clock_of: Any, workers: list[Script]) -> None:
    clock = clock_of()
    players: list[Player] = []

    async def main() -> None:
        queues = [opm.wrap_queue(asyncio.Queue(1 + n), name=f"q{n}") for n in range(2)]
        tasks = []
        for number, script in enumerate(workers):
            source, sink = queues[number % 2], queues[(number + 1) % 2]
            player = Player(clock, source, sink, number)
            players.append(player)
            tasks.append(asyncio.create_task(player.play(script)))
            if script.cancelled_at is not None:
                asyncio.get_running_loop().call_later(script.cancelled_at, tasks[-1].cancel)
        await asyncio.wait(tasks, timeout=30)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = [queue.get_nowait() for queue in queues for _ in range(queue.qsize())]
        check_items(players, left)

    with opm.run("test", resources=False) as run:
        play(clock, main())
        found = list(run._scope.times.values())
    for player in players:
        player.ledger.over()
    check_time(run, found, players)


def check_items(players: list[Player], left: list[Any]) -> None:
    """Check that each item came out once or is still in the queue."""
    out = Counter([item for player in players for item in player.got] + left)
    made = Counter((p.number, n) for p in players for n in range(1, p.made + 1))
    # a cancelled put may leave a gap in the numbers, and never a duplicate
    assert out.total() == made.total()
    assert all(times == 1 for times in out.values())


def check_time(run: opm.Run, found: list[WorkerTimes], players: list[Player]) -> None:
    told: dict[str, Counter[str]] = {}
    for times in found:
        sums = told.setdefault(times.key.stage, Counter())
        for time_ in times.states.values():
            for state in STATES:
                seconds = getattr(time_, state)
                assert seconds >= 0
                sums[state] += seconds
    expected: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
    for player in players:
        for stage, time_ in player.ledger.time.items():
            expected[stage].update(time_)
    for stage in STAGES:
        assert expected[stage] == told.get(stage, Counter())
    for stage in run.report.to_dict()["stages"]:
        if stage["workers"] is not None:
            sums = told[stage["name"]]
            wanted = {"wall": sums.total(), **{state: sums[state] for state in STATES}}
            # `busy` is the sum of estimates, whose parts are rounded
            assert {key: stage["time_s"][key] for key in wanted} == pytest.approx(wanted, abs=1e-6)
        assert stage["duration_s"]["total"] >= 0
    wall = sum(player.ledger.wall - player.ledger.nobodys for player in players)
    assert wall == sum(sums.total() for sums in told.values())
