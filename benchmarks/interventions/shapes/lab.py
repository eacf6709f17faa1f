"""What the shapes of this bench are made of.

Each shape is a function of `Knobs`, which hold what an intervention changes. Times vary with the
seed: the bench seeds `random` before each run, so a shape has the same times in all of its runs.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import queue
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

SHAPES: dict[str, tuple[str, Callable[..., Any], dict[str, dict[str, Any]]]] = {}
REAL_TIME: set[str] = set()

# How far a seed moves the mean of a time, up or down.
_VARIES: Final = 0.1


class Knobs:
    """What an intervention changes: names of stages, limits or things that are left out."""

    def __init__(
        self,
        faster: Iterable[str] = (),
        more: Iterable[str] = (),
        raised: Iterable[str] = (),
        without: Iterable[str] = (),
        count: dict[str, int] | None = None,
    ) -> None:
        self._faster, self._more = frozenset(faster), frozenset(more)
        self._raised, self._without = frozenset(raised), frozenset(without)
        self._count = count or {}

    def times(
        self, name: str, mean_s: float, shape: str = "lognormal", *, varies: bool = True
    ) -> Callable[[], float]:
        """Return a function that draws service times; half as long for what is faster."""
        rng = random.Random(random.random())
        varied_s = mean_s * (math.exp(rng.uniform(-_VARIES, _VARIES)) if varies else 1.0)
        factor = 0.5 if name in self._faster else 1.0
        draws: dict[str, Callable[[], float]] = {
            "constant": lambda: 1.0,
            "lognormal": lambda: rng.lognormvariate(-0.02, 0.2),
            "exponential": lambda: rng.expovariate(1.0),
            # a twentieth of the calls takes half of the time
            "heavy": lambda: 10.0 if rng.random() < 0.05 else 0.5 / 0.95,
        }
        draw = draws[shape]
        return lambda: draw() * varied_s * factor

    def workers(self, name: str, count: int) -> int:
        """Return how many workers a stage has."""
        return self._count.get(name, count) + (name in self._more)

    def limit(self, name: str, count: float) -> Any:
        """Return how much a limit allows."""
        return count * 2 if name in self._raised else count

    def has(self, what: str) -> bool:
        """Tell whether something is there, or was left out."""
        return what not in self._without


def shape(
    family: str,
    *,
    faster: str = "",
    workers: str = "",
    limits: str = "",
    without: str = "",
    tie: str = "",
    source: bool = False,
    undecorated: bool = False,
    real: bool = False,
    **named: dict[str, Any],
) -> Callable[[Callable[[Knobs], Any]], Callable[[Knobs], Any]]:
    """Add a shape, with the interventions that these names stand for.

    Args:
        family: what it belongs to.
        faster: the stages that can be made twice as fast.
        workers: those that can have one more worker.
        limits: the limits that can be doubled.
        without: the kinds of verdict that name what can be left out.
        tie: the stages that gain only if both are faster.
        source: the step "source" can be made faster.
        undecorated: the step "undecorated" can be made faster.
        real: it computes, so it runs in real time.
        named: other kinds, with what to change.
    """
    changes: dict[str, dict[str, Any]] = {}
    for key, knob, names in (
        ("faster:", "faster", faster),
        ("workers:", "more", workers),
        ("limit:", "raised", limits),
        ("", "without", without),
    ):
        changes |= {key + name: {knob: (name,)} for name in names.split()}
    if tie:
        changes[f"tie:{','.join(tie.split())}"] = {"faster": tuple(tie.split())}
    for kind, there in (("source", source), ("undecorated", undecorated)):
        if there:
            changes[kind] = {"faster": (kind,)}
    changes |= {kind.replace("_", " "): change for kind, change in named.items()}

    def add(body: Callable[[Knobs], Any]) -> Callable[[Knobs], Any]:
        if inspect.iscoroutinefunction(body):

            async def main(**kwargs: Any) -> int:
                return int(await body(Knobs(**kwargs)))
        else:

            def main(**kwargs: Any) -> int:  # type: ignore[misc]
                return int(body(Knobs(**kwargs)))

        SHAPES[body.__name__] = (family, main, changes)
        if real:
            REAL_TIME.add(body.__name__)
        return body

    return add


# --- asyncio -------------------------------------------------------------------------------------


def q(size: int, name: str) -> Any:
    """Return a wrapped queue of asyncio."""
    return opm.wrap_queue(asyncio.Queue(size), name=name)


def step(
    k: Knobs,
    name: str,
    mean_s: float,
    shape: str = "lognormal",
    *,
    kind: Any = "process",
    varies: bool = True,
) -> Any:
    """Return a stage that awaits and returns its item."""
    times = k.times(name, mean_s, shape, varies=varies)

    @opm.stage(name, kind=kind)
    async def work(item: Any) -> Any:
        await asyncio.sleep(times())
        return item

    return work


async def pump(source: Any, work: Callable[[Any], Awaitable[Any]], sink: Any = None) -> None:
    """Get, work and put until None comes."""
    while (item := await source.get()) is not None:
        done = await work(item)
        if sink is not None:
            await sink.put(done)


async def pool(
    workers: int, source: Any, work: Callable[[Any], Awaitable[Any]], sink: Any = None, end: int = 0
) -> None:
    """Let so many workers pump, and then put None so many times."""
    await asyncio.gather(*(pump(source, work, sink) for _ in range(workers)))
    for _ in range(end):
        await sink.put(None)


async def feed(
    sink: Any, count: int, end: int = 1, every: Callable[[], float] | None = None
) -> None:
    """Put so many numbers, and then None for each worker."""
    for number in range(count):
        if every is not None:
            await asyncio.sleep(every())
        await sink.put(number)
    for _ in range(end):
        await sink.put(None)


async def line(items: int, stages: list[tuple[Any, int]], sizes: Iterable[int] = ()) -> int:
    """Run stages one behind the other, each with its workers and a queue before it."""
    room = itertools.chain(sizes, itertools.repeat(4))
    queues = [q(next(room), f"q{number}") for number in range(len(stages))]
    parts = [feed(queues[0], items, stages[0][1])]
    for number, (work, workers) in enumerate(stages):
        last = number + 1 == len(stages)
        sink = None if last else queues[number + 1]
        parts.append(
            pool(workers, queues[number], work, sink, 0 if last else stages[number + 1][1])
        )
    await asyncio.gather(*parts)
    return items


# --- threads -------------------------------------------------------------------------------------


def tq(size: int, name: str) -> Any:
    """Return a wrapped queue of threads."""
    return opm.wrap_queue(queue.Queue(size), name=name)


def tstep(
    k: Knobs,
    name: str,
    mean_s: float,
    shape: str = "lognormal",
    *,
    kind: Any = "process",
    varies: bool = True,
) -> Any:
    """Return a stage that sleeps and returns its item."""
    times = k.times(name, mean_s, shape, varies=varies)

    @opm.stage(name, kind=kind)
    def work(item: Any) -> Any:
        time.sleep(times())
        return item

    return work


def tpump(source: Any, work: Callable[[Any], Any], sink: Any = None) -> None:
    """Get, work and put until None comes."""
    while (item := source.get()) is not None:
        done = work(item)
        if sink is not None:
            sink.put(done)


def tpool(
    workers: int, source: Any, work: Callable[[Any], Any], sink: Any = None, end: int = 0
) -> None:
    """Let so many threads pump, and then put None so many times."""
    run_threads([lambda: tpump(source, work, sink)] * workers)
    for _ in range(end):
        sink.put(None)


def tfeed(sink: Any, count: int, end: int = 1, every: Callable[[], float] | None = None) -> None:
    """Put so many numbers, and then None for each worker."""
    for number in range(count):
        if every is not None:
            time.sleep(every())
        sink.put(number)
    for _ in range(end):
        sink.put(None)


def run_threads(bodies: list[Callable[[], Any]]) -> None:
    """Run functions in threads, and wait for all of them."""
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tline(items: int, stages: list[tuple[Any, int]], size: int = 4) -> int:
    """Run stages one behind the other in threads, each with a queue before it."""
    queues = [tq(size, f"q{number}") for number in range(len(stages))]
    bodies: list[Callable[[], Any]] = [lambda: tfeed(queues[0], items, stages[0][1])]
    for number, (work, workers) in enumerate(stages):
        last = number + 1 == len(stages)
        sink = None if last else queues[number + 1]
        end = 0 if last else stages[number + 1][1]
        bodies.append(
            lambda n=number, w=work, c=workers, s=sink, e=end: tpool(c, queues[n], w, s, e)  # type: ignore[misc]
        )
    run_threads(bodies)
    return items
