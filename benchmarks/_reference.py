"""Simulate what a pipeline's workers do, without asyncio or the library.

A discrete-event simulation of the same parameters is the independent truth that the library's
shares are compared with.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from benchmarks._pipelines import Pipeline, Stage

Step = tuple[str, Any]


@dataclass
class Times:
    """Seconds of all workers of a stage."""

    busy: float = 0.0
    idle: float = 0.0
    blocked: float = 0.0

    def shares(self) -> dict[str, float]:
        wall = self.busy + self.idle + self.blocked
        return {
            "busy": self.busy / wall,
            "idle": self.idle / wall,
            "blocked": self.blocked / wall,
        }


@dataclass
class Outcome:
    """The result of a simulated run."""

    wall_s: float
    times: dict[str, Times]


class _Queue:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: deque[object] = deque()
        self.getters: deque[_Process] = deque()
        self.putters: deque[_Process] = deque()


class _Process:
    def __init__(self, times: Times, body: Generator[Step, Any, None]) -> None:
        self.times = times
        self.body = body
        self.step: Step | None = None
        """What it waits to do; None: the next one."""
        self.since: float | None = None
        """Since when it waits for that."""


class Simulation:
    """A simulation of processes that sleep, get and put, and their time in each state.

    A process that waits for a queue is woken in turn and then tries again, as with asyncio's
    queues: another process may have been faster.
    """

    def __init__(self, capacities: dict[str, int]) -> None:
        self.now = 0.0
        self._queues = {name: _Queue(capacity) for name, capacity in capacities.items()}
        self._timers: list[tuple[float, int, _Process]] = []
        self._order = itertools.count()
        self._ready: deque[_Process] = deque()

    def start(self, times: Times, body: Generator[Step, Any, None]) -> None:
        self._ready.append(_Process(times, body))

    def run(self) -> float:
        """Run to the end, and return its time."""
        while True:
            while self._ready:
                self._go_on(self._ready.popleft())
            if not self._timers:
                return self.now
            self.now, _, process = heapq.heappop(self._timers)
            self._ready.append(process)

    def _go_on(self, process: _Process) -> None:
        """Let a process take steps until one of them makes it wait."""
        value: object = None
        while True:
            if process.step is None:
                try:
                    process.step = process.body.send(value)
                except StopIteration:
                    return
            what, detail = process.step
            if what == "sleep":
                process.step = None
                process.times.busy += detail
                heapq.heappush(self._timers, (self.now + detail, next(self._order), process))
                return
            if what == "get":
                queue = self._queues[detail]
                if not queue.items:
                    self._wait(process, queue.getters)
                    return
                value = queue.items.popleft()
                self._wake(queue.putters)
                process.times.idle += self._waited(process)
            else:
                queue = self._queues[detail[0]]
                if len(queue.items) >= queue.capacity:
                    self._wait(process, queue.putters)
                    return
                queue.items.append(detail[1])
                self._wake(queue.getters)
                process.times.blocked += self._waited(process)
                value = None

    def _wait(self, process: _Process, line: deque[_Process]) -> None:
        if process.since is None:
            process.since = self.now
        line.append(process)

    def _wake(self, line: deque[_Process]) -> None:
        if line:
            self._ready.append(line.popleft())

    def _waited(self, process: _Process) -> float:
        since, process.since, process.step = process.since, None, None
        return 0.0 if since is None else self.now - since


def simulate(pipeline: Pipeline) -> Outcome:
    """Simulate what a pipeline's workers do."""
    simulation = Simulation(pipeline.capacities)
    times = {stage.name: Times() for stage in pipeline.stages}
    makers = makers_of(pipeline)
    for stage in pipeline.stages:
        service = iter(pipeline.draws[stage.name])
        numbers = iter(range(pipeline.items))
        turn = itertools.count()
        for _ in range(stage.workers):
            body = _worker(
                pipeline, stage, service=service, numbers=numbers, turn=turn, makers=makers
            )
            simulation.start(times[stage.name], body)
    if pipeline.arrivals is not None:
        simulation.start(Times(), _source(pipeline, makers))
    return Outcome(simulation.run(), times)


def makers_of(pipeline: Pipeline) -> dict[str, int]:
    """Return how many workers put into each queue."""
    makers = dict.fromkeys(pipeline.capacities, 0)
    for stage in pipeline.stages:
        for sink in stage.sinks:
            makers[sink] += stage.workers
    if pipeline.arrivals is not None:
        makers[pipeline.arrivals] += 1
    return makers


def takers_of(pipeline: Pipeline, queue: str) -> int:
    """Return how many workers get from a queue."""
    return sum(stage.workers for stage in pipeline.stages if stage.source == queue)


def targets(stage: Stage, turn: Iterator[int]) -> tuple[str, ...]:
    """Return the queues that the next item of a stage goes into."""
    if stage.spread == "each":
        return stage.sinks
    return (stage.sinks[next(turn) % len(stage.sinks)],)


def _worker(
    pipeline: Pipeline,
    stage: Stage,
    *,
    service: Iterator[float],
    numbers: Iterator[int],
    turn: Iterator[int],
    makers: dict[str, int],
) -> Generator[Step, Any, None]:
    going = True
    while going:
        taken = 0
        if stage.source is None:
            going = next(numbers, None) is not None
            taken = int(going)
        while stage.source is not None and taken < stage.takes:
            if (yield ("get", stage.source)) is None:
                going = False
                break
            taken += 1
        if not taken:
            break
        if stage.gap_s:
            yield ("sleep", stage.gap_s)
        yield ("sleep", next(service) * taken / stage.takes)
        for _ in range(stage.gives):
            for sink in targets(stage, turn):
                yield ("put", (sink, 0))
    yield from _done(pipeline, stage.sinks, makers)


def _source(pipeline: Pipeline, makers: dict[str, int]) -> Generator[Step, Any, None]:
    assert pipeline.arrivals is not None
    for gap_s in pipeline.draws["(source)"]:
        yield ("sleep", gap_s)
        yield ("put", (pipeline.arrivals, 0))
    yield from _done(pipeline, (pipeline.arrivals,), makers)


def _done(
    pipeline: Pipeline, sinks: tuple[str, ...], makers: dict[str, int]
) -> Generator[Step, Any, None]:
    """Tell the next workers that no item follows, if this was the last producer."""
    for sink in sinks:
        makers[sink] -= 1
        if makers[sink] == 0:
            for _ in range(takers_of(pipeline, sink)):
                yield ("put", (sink, None))
