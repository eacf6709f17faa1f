"""Test that calls that end in any order, in many threads, leave nothing in flight."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.series import RunScope, Series
from otel_pipeline_metrics._core.stage_id import stage_id


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


class Earlier(dict[int, Any]):
    """The calls that were moved, in a dict that lets others run."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns

    def pop(self, *args: Any) -> Any:
        self.turns.take_turns()
        return self.turns.take_turns(super().pop(*args))


@pytest.mark.parametrize("seeds", [range(n, n + 50) for n in range(0, 300, 50)])
def test_calls_of_many_threads_that_end_in_any_order(
    seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in seeds:
        turns = Turns(seed, 4)
        series = Series(RunScope(), stage_id("work", None), None)
        series.earlier = Earlier(turns)
        monkeypatch.setattr(
            _series, "id", lambda it, turns=turns: turns.take_turns(id(it)), raising=False
        )

        def work(_: int, series: Series = series, turns: Turns = turns) -> None:
            for _ in range(3):
                cell: Any = [series, object(), 0.0, None, None, None, None, None]
                series.latest.append(cell)
                turns.take_turns()
                # as a wrapper ends a call
                if series.latest and series.latest[-1] is cell:
                    del series.latest[-1]
                else:
                    series.remove(cell)
                turns.take_turns()
                cell[1] = None

        threads = [threading.Thread(target=turns.run, args=(n, work)) for n in range(4)]
        for thread in threads:
            thread.start()
        turns.give()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert series.open == [], seed
