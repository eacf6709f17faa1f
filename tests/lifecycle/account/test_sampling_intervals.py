"""Test that the stated intervals of estimated times hold the truth."""

from __future__ import annotations

import asyncio
import math
import random
import types
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as timing
from otel_pipeline_metrics._core.account import Ratio
from otel_pipeline_metrics._stages import sampling
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from tests.conftest import Clock

PROGRAMS = 300
# of a normal distribution, 95 %
DEVIATIONS = 1.96


class Stated(NamedTuple):
    """What a report says of a stage, in the middle of a run or at its end, and the truth."""

    calls: int
    running: float
    error: float
    busy: float
    true_running: float
    true_busy: float

    @property
    def holds(self) -> bool:
        return abs(self.running - self.true_running) <= DEVIATIONS * self.error + 1e-6

    @property
    def is_narrow(self) -> bool:
        return DEVIATIONS * self.error <= 0.1 * self.busy


class Work:
    """Calls of one stage; each computes and awaits for random times of less than 1 ms."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - reproducible, no secrets
        draws = self._random
        self.calls = int(10 ** draws.uniform(2, 3.6))
        self.read_at = draws.randrange(50, self.calls)
        self._shape = draws.choice(["steady", "either", "spread", "drifting", "bursts"])
        self._computes = draws.uniform(0.05, 0.4) * 1e-3
        self._awaits = draws.uniform(0.05, 0.4) * 1e-3
        self.is_generator = draws.random() < 0.25
        self._done = 0
        self.running = 0.0
        self.busy = 0.0

    def draw(self) -> tuple[float, float]:
        """Return how long the next call computes and awaits."""
        draws, self._done = self._random, self._done + 1
        computes, awaits = self._computes, self._awaits
        if self._shape == "either":
            return (computes, 0.0) if draws.random() < 0.5 else (0.0, computes)
        if self._shape == "spread":
            return draws.uniform(0, 2 * computes), draws.uniform(0, 2 * awaits)
        if self._shape == "drifting":
            return computes * self._done / self.calls, awaits * (1 - self._done / self.calls)
        if self._shape == "bursts":
            return (computes, awaits / 4) if self._done // 40 % 2 else (computes / 4, awaits)
        return computes, awaits

    async def once(self) -> None:
        computes, awaits = self.draw()
        # in parts, so that a call has several steps
        parts = self._random.randrange(1, 3)
        for _ in range(parts):
            self._clock.advance(computes / parts)
            await _awaiting(self._clock, awaits / parts)
        self.running += computes
        self.busy += computes + awaits


@types.coroutine
def _awaiting(clock: Clock, seconds: float) -> Generator[None, None, None]:
    """Suspend the task; it goes on in the loop's next round, and the clock has moved."""
    asyncio.get_running_loop().call_soon(clock.advance, seconds)
    yield


async def played(work: Work) -> list[Stated]:
    """Return what the report states in the middle, and at the end."""
    found = []

    @opm.stage("work")
    async def call() -> None:
        await work.once()

    @opm.stage("work")
    async def items() -> AsyncIterator[int]:
        for n in range(work.calls):
            await work.once()
            yield n

    def read() -> Stated:
        row: dict[str, Any] = stage_of(run, "work")["time_s"]
        told = row["running"], row["split_standard_error"], row["busy"]
        return Stated(done, *told, work.running, work.busy)

    async with opm.run("test", resources=False) as run:
        done = 0
        if work.is_generator:
            async for _ in items():
                done += 1
                if done == work.read_at:
                    found.append(read())
        else:
            for done in range(1, work.calls + 1):
                await call()
                if done == work.read_at:
                    found.append(read())
    return [*found, read()]


def test_intervals_hold_the_truth_and_are_narrow(clock_of: Callable[[], Clock]) -> None:
    clock = clock_of()
    programs = []
    for seed in range(PROGRAMS):
        sampling._random.seed(seed)
        programs.append(play(clock, played(Work(clock, seed))))
    for at, when in enumerate(("in the middle", "at the end")):
        all_stated = [program[at] for program in programs]
        for each in all_stated:
            assert each.busy == pytest.approx(each.true_busy), when
        sampled = [each for each in all_stated if each.error]
        # most of them are estimates
        assert len(sampled) >= 0.5 * PROGRAMS, when
        assert sum(each.holds for each in all_stated) >= 0.9 * PROGRAMS, when
        assert sum(each.holds for each in sampled) >= 0.9 * len(sampled), when
        wide = [each for each in all_stated if each.calls >= 1000 and not each.is_narrow]
        assert wide == [], when


def test_the_standard_error_is_that_of_the_total() -> None:
    """Of Cochran's sampling without replacement, here of 100 calls of 800."""
    ratio = Ratio()
    for n in range(100):
        ratio.add(1.0, float(n % 2), weight=8.0)
    found = ratio.estimate(800.0)
    assert found is not None
    variance = 100 * 0.5**2 / 99
    error = 800 * math.sqrt((1 - 100 / 800) * variance / 100)
    # Student's 0.975 quantile for 99 degrees of freedom is 1.984
    assert found[0] == 400.0
    assert found[1] == pytest.approx(error * 1.98422 / 1.95996, rel=1e-4)


def test_an_interval_of_few_samples_stays_within_what_can_be() -> None:
    ratio = Ratio()
    for part in (0.0, 1.0):
        ratio.add(1.0, part, weight=5.0)
    assert ratio.estimate(10.0) == (5.0, 4.0)


def test_a_coroutine_that_never_suspends_awaits_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where reading the clock, and all that is done around its steps, takes time."""

    def passes() -> float:
        clock.time += 1e-6
        return clock.time

    monkeypatch.setattr(timing, "now", passes)

    @opm.stage("computes")
    async def computes() -> None:
        """Suspend nowhere."""

    @opm.stage("yields")
    async def yields() -> AsyncIterator[int]:
        for n in range(50):
            yield n

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            for _ in range(50):
                await computes()
            async for _ in yields():
                pass
        return run

    for row in asyncio.run(main()).report.to_dict()["stages"]:
        assert row["time_s"]["busy"] > 50e-6, row["name"]
        assert row["time_s"]["awaiting"] == pytest.approx(0.0, abs=1e-9), row["name"]


def test_a_step_that_ends_as_the_clock_shows_zero_is_over(clock: Clock) -> None:
    clock.time = 0.0

    @opm.stage("awaits")
    async def awaits() -> None:
        await asyncio.sleep(1)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await awaits()
        return run

    (row,) = play(clock, main()).report.to_dict()["stages"]
    assert (row["time_s"]["running"], row["time_s"]["awaiting"]) == (0.0, 1.0)


@pytest.mark.usefixtures("every_call_sampled")
def test_the_step_after_one_that_ended_a_generator_is_a_sample(
    clock_of: Callable[[], Clock],
) -> None:
    clock = clock_of()

    @opm.stage("numbers")
    async def numbers() -> AsyncIterator[int]:
        clock.advance(0.125)
        for number in ():
            yield number

    async def main() -> dict[str, Any]:
        async with opm.run("test", resources=False) as run:
            for _ in range(3):
                assert [number async for number in numbers()] == []
        found: dict[str, Any] = stage_of(run, "numbers")["time_s"]
        return found

    found = play(clock, main())
    assert (found["running"], found["split_standard_error"]) == (0.375, 0.0)
