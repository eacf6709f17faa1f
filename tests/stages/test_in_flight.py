"""Test that calls that end in any order, in many threads, leave nothing in flight."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import clock, nesting
from otel_pipeline_metrics._core.process.gc_safety import extras
from otel_pipeline_metrics._stages.internals import internals
from tests.stages.support import in_flight, sample_no_more

if TYPE_CHECKING:
    from tests.conftest import Results


class Turns:
    """Lets one thread run at a time, and another one go on where Python would let it."""

    def __init__(self, seed: int, threads: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - of a test
        self._waiting = {number: threading.Semaphore(0) for number in range(threads)}
        self._here = threading.local()

    def run(self, number: int, work: Any) -> None:
        self._here.number = number
        self._waiting[number].acquire()
        work(number)
        del self._waiting[number]
        self.give()

    def give(self) -> None:
        """Let any of the threads go on."""
        if self._waiting:
            self._waiting[self._random.choice(sorted(self._waiting))].release()

    def take_turns(self, given: Any = None) -> Any:
        """Go on later; Python switches threads where something is called."""
        number = getattr(self._here, "number", None)
        if number is not None:
            mine = self._waiting[number]
            self.give()
            mine.acquire()
        return given


class Body:
    """What runs inside of both stages, and looks at how many calls are in flight."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._inside = 0
        # how often fewer calls were in flight than were inside
        self.too_few = 0

    def run(self) -> None:
        self._inside += 1
        self._turns.take_turns()
        self.too_few += in_flight("inside") < self._inside
        self._inside -= 1


class TurnLock:
    """A re-entrant lock that lets others run while it is taken."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._owner: int | None = None
        self._entered = 0

    def __enter__(self) -> None:
        while self._owner not in {None, threading.get_ident()}:
            self._turns.take_turns()
        self._owner = threading.get_ident()
        self._entered += 1

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._owner = None


class Current:
    """The context variable of the current call, which lets others run as it is set and reset."""

    def __init__(self, turns: Turns, variable: Any) -> None:
        self._turns = turns
        self._variable = variable
        self.get = variable.get

    def set(self, cell: Any) -> Any:
        self._turns.take_turns()
        return self._turns.take_turns(self._variable.set(cell))

    def reset(self, token: Any) -> None:
        self._turns.take_turns()
        self._variable.reset(token)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("seeds", [range(n, n + 50) for n in range(0, 150, 50)])
def test_calls_of_many_threads_that_end_in_any_order(
    seeds: range, threads: int, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    have_execution, active_cell = nesting.have_execution, internals.active_cell
    for seed in seeds:
        turns, name = Turns(seed, threads), f"work {seed}"
        body = Body(turns)
        work = stage(name)(stage("inside")(body.run))
        work()
        sample_no_more()
        monkeypatch.setattr(nesting, "_lock", TurnLock(turns))
        monkeypatch.setattr(clock, "now", lambda turns=turns: turns.take_turns(1.0))
        monkeypatch.setattr(internals, "active_cell", Current(turns, active_cell))
        monkeypatch.setattr(
            nesting,
            "have_execution",
            lambda cell, turns=turns: turns.take_turns(have_execution(turns.take_turns(cell))),
        )

        def calls(_: int, work: Any = work) -> None:
            for _ in range(3):
                work()

        made = [threading.Thread(target=turns.run, args=(n, calls)) for n in range(threads)]
        for thread in made:
            thread.start()
        turns.give()
        for thread in made:
            thread.join(60)
        assert not any(thread.is_alive() for thread in made)
        assert body.too_few == 0, seed
        assert in_flight(name) == in_flight("inside") == 0, seed
        assert len(results.durations(name)) == 3 * threads + 1, seed
        assert "overlapping" not in extras, seed
