"""Test that reports of random programs, every call sampled, equal an independent simulation."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import hooks
from tests.lifecycle.account.comparing import differences
from tests.lifecycle.account.player import PlannedError, Player
from tests.lifecycle.account.programs import Program, programs
from tests.probes.queues.support import play
from tests.support.repeats import repeats

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

pytestmark = pytest.mark.usefixtures("every_call_sampled")
many = settings(
    max_examples=repeats(100),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Trial:
    """One program, played in a run and compared with the truth."""

    def __init__(self, clock: Clock, program: Program, *, waits: bool, partial: bool) -> None:
        self._clock = clock
        self._program = program
        self._waits = waits
        self._partial = partial
        self._player: Player
        self._run: opm.Run
        self._over = False
        self._in_task = True
        self.found: list[str] = []
        hooks.set_workers(None)

    def _compare(self, when: str) -> None:
        found = differences(
            self._run.report.to_dict(),
            self._player.truth.account(),
            waits=self._waits,
            in_task=self._in_task,
        )
        self.found += [f"{when}: {each}" for each in found]

    def _so_far(self) -> None:
        if self._partial and not self._over:
            self._compare(f"at {self._clock.now() - 1000}")

    async def _in_tasks(self) -> None:
        queues = {f"q{n}": asyncio.Queue[Any](1 + n) for n in range(2) if self._waits}
        wrapped = {name: opm.wrap_queue(each, name=name) for name, each in queues.items()}
        async with opm.run("test", resources=False) as self._run:
            self._player = player = Player(self._clock, self._program, self._so_far, in_task=True)
            player.queues = wrapped
            for ops in self._program.workers:
                player.start(ops)
            await asyncio.wait(player.tasks, timeout=self._program.ends_after)
            if not self._partial:
                await self._end()
            else:
                self._so_far()
        self._over = True
        self._compare("at the end")
        await self._end()
        player.drop()

    async def _end(self) -> None:
        while pending := [task for task in self._player.tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.125)

    def in_tasks(self) -> list[str]:
        self._clock.time = 1000.0
        play(self._clock, self._in_tasks())
        return self.found

    def in_thread(self) -> list[str]:
        self._clock.time = 1000.0
        self._in_task = False
        queues = {f"q{n}": queue.Queue[Any](1 + n) for n in range(2) if self._waits}
        wrapped = {name: opm.wrap_queue(each, name=name) for name, each in queues.items()}
        with opm.run("test", resources=False) as self._run:
            self._player = player = Player(self._clock, self._program, self._so_far, in_task=False)
            player.queues = wrapped
            worker = player.truth.worker()
            worker.starts()
            for ops in self._program.workers:
                with contextlib.suppress(PlannedError):
                    player.at_once(worker, ops)
            worker.ends()
        self._compare("at the end")
        player.drop()
        return self.found


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "so far"])
@given(program=programs(waits=False))
@many
def test_tasks_without_waits(
    clock_of: Callable[[], Clock], partial: bool, program: Program
) -> None:
    assert Trial(clock_of(), program, waits=False, partial=partial).in_tasks() == []


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "so far"])
@given(program=programs(waits=True))
@many
def test_tasks_with_waits(clock_of: Callable[[], Clock], partial: bool, program: Program) -> None:
    assert Trial(clock_of(), program, waits=True, partial=partial).in_tasks() == []


@pytest.mark.parametrize("waits", [False, True], ids=["without waits", "with waits"])
@given(data=st.data())
@many
def test_a_thread(clock_of: Callable[[], Clock], waits: bool, data: st.DataObject) -> None:
    program = data.draw(programs(waits=waits))
    assert Trial(clock_of(), program, waits=waits, partial=True).in_thread() == []


@pytest.mark.parametrize("waits", [False, True], ids=["without waits", "with waits"])
@pytest.mark.parametrize("in_tasks", [False, True], ids=["a thread", "tasks"])
@pytest.mark.usefixtures("few_calls_sampled")
@given(data=st.data())
@many
def test_calls_that_are_no_samples(
    clock_of: Callable[[], Clock], in_tasks: bool, waits: bool, data: st.DataObject
) -> None:
    trial = Trial(clock_of(), data.draw(programs(waits=waits)), waits=waits, partial=True)
    found = trial.in_tasks() if in_tasks else trial.in_thread()
    # without samples, nothing is known of how busy time is split
    assert [each for each in found if ".running" not in each and ".awaiting" not in each] == []
