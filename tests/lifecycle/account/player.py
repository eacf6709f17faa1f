"""Play a program with the library, and write down the truth about it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from tests.lifecycle.account.truth import Truth, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Clock
    from tests.lifecycle.account.programs import Op, Ops, Program


class PlannedError(Exception):
    """An error of the program's."""


class Slot:
    """A generator that any worker may pull."""

    def __init__(self, generator: Any, invocation: Any) -> None:
        self.generator = generator
        self.invocation = invocation
        # who pulls
        self.worker: Worker | None = None


class Player:
    """Plays one program.

    Args:
        in_task: whether it is played in tasks, or in a thread without a loop.
        on_report: what to do where the program reads the report.
    """

    def __init__(
        self, clock: Clock, program: Program, on_report: Callable[[], None], *, in_task: bool
    ) -> None:
        self.clock = clock
        self.truth = Truth(clock)
        self._program = program
        self._on_report = on_report
        self._in_task = in_task
        self._slots: dict[str, Slot] = {}
        self.queues: dict[str, Any] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self._stages: dict[tuple[str, str], Any] = {}
        # a generator may spawn who pulls it
        self._fuel = 60

    # what is decorated

    def _stage(self, form: str, name: str) -> Any:
        if (form, name) not in self._stages:
            self._stages[form, name] = opm.stage(name)(getattr(self, f"_{form}"))
        return self._stages[form, name]

    def _function(self, worker: Worker, ops: Ops) -> None:
        self.at_once(worker, ops)

    async def _coroutine(self, worker: Worker, ops: Ops) -> None:
        await self.all_of(worker, ops)

    def _generator(self, slot: list[Slot], bodies: tuple[Ops, ...]) -> Iterator[int]:
        try:
            for ops in bodies[:-1] * 2:
                self.at_once(_puller(slot), ops)
                yield 1
        finally:
            if slot[0].worker is not None:
                self.at_once(_puller(slot), bodies[-1])

    async def _async_generator(
        self, slot: list[Slot], bodies: tuple[Ops, ...]
    ) -> AsyncIterator[int]:
        try:
            for ops in bodies[:-1] * 2:
                await self.all_of(_puller(slot), ops)
                yield 1
        finally:
            # None if it is dropped after the run
            if slot[0].worker is not None:
                await self.all_of(_puller(slot), bodies[-1])

    # in a task

    async def all_of(self, worker: Worker, ops: Ops) -> None:
        for op in ops:
            kind = op.kind.partition(" ")[0]
            does = getattr(self, f"a_{kind}", None)
            if does is None:
                self.now(worker, op)
            else:
                await does(worker, op)

    async def _awaits(self, worker: Worker, state: str, awaitable: Any) -> Any:
        worker.becomes(state)
        try:
            return await awaitable
        finally:
            worker.becomes("running")

    async def a_sleep(self, worker: Worker, op: Op) -> None:
        await self._awaits(worker, "awaiting", asyncio.sleep(op.seconds))

    async def a_waiting(self, worker: Worker, op: Op) -> None:
        state: Any = op.kind.partition(" ")[2] or "blocked"
        worker.at_queue()
        async with opm.waiting(state=state):
            await self._awaits(worker, state, asyncio.sleep(op.seconds))

    async def a_get(self, worker: Worker, op: Op) -> None:
        worker.at_queue()
        await self._awaits(worker, "idle", self.queues[op.name].get())

    async def a_put(self, worker: Worker, op: Op) -> None:
        worker.at_queue(puts=True)
        try:
            await self._awaits(worker, "blocked", self.queues[op.name].put(object()))
        finally:
            worker.at_queue(puts=True)

    async def a_coroutine(self, worker: Worker, op: Op) -> None:
        with self._inside(worker, op.name, stepped=True), contextlib.suppress(PlannedError):
            await self._stage("coroutine", op.name)(worker, op.inside[0])

    async def a_block(self, worker: Worker, op: Op) -> None:
        with self._inside(worker, op.name, stepped=False), contextlib.suppress(PlannedError):
            async with opm.stage(op.name):
                await self.all_of(worker, op.inside[0])

    async def a_gather(self, worker: Worker, op: Op) -> None:
        tasks = [self._spawn(worker, ops, op) for ops in op.inside]
        with contextlib.suppress(PlannedError):
            await self._awaits(worker, "awaiting", asyncio.gather(*tasks))

    async def a_group(self, worker: Worker, op: Op) -> None:
        """Work beside the tasks, and then wait for them."""
        tasks = [self._spawn(worker, ops, op) for ops in op.inside[1:]]
        try:
            await self.all_of(worker, op.inside[0])
        finally:
            if tasks:
                await self._awaits(worker, "awaiting", asyncio.wait(tasks))

    async def a_pull(self, worker: Worker, op: Op) -> None:
        if int(op.name) % 2:
            for _ in range(_times(op)):
                await self._steps_async(worker, op)
        else:
            self.now(worker, op)

    a_close = a_pull

    async def _steps_async(self, worker: Worker, op: Op) -> None:
        slot = self._slot(worker, op, "async_generator")
        if slot is None:
            return
        over, slot.worker = True, worker
        worker.enters(slot.invocation)
        try:
            if op.kind == "close":
                await slot.generator.aclose()
            else:
                await slot.generator.__anext__()
                over = False
        except (PlannedError, StopAsyncIteration):
            pass
        finally:
            worker.leaves(over=over)
            slot.worker = None
            if over:
                del self._slots[op.name]

    # at once

    def at_once(self, worker: Worker, ops: Ops) -> None:
        for op in ops:
            self.now(worker, op)

    def now(self, worker: Worker, op: Op) -> None:
        getattr(self, f"_do_{op.kind.partition(' ')[0]}")(worker, op)

    def _do_compute(self, _: Worker, op: Op) -> None:
        self.clock.advance(op.seconds)

    _do_sleep = _do_compute

    def _do_waiting(self, worker: Worker, op: Op) -> None:
        state: Any = op.kind.partition(" ")[2] or "blocked"
        worker.at_queue()
        with opm.waiting(state=state):
            worker.becomes(state)
            self.clock.advance(op.seconds)
            worker.becomes("running")

    def _do_get(self, worker: Worker, op: Op) -> None:
        if op.name in self.queues and not self.queues[op.name].empty():
            worker.at_queue()
            self.queues[op.name].get_nowait()

    def _do_put(self, worker: Worker, op: Op) -> None:
        if op.name in self.queues and not self.queues[op.name].full():
            worker.at_queue(puts=True)
            self.queues[op.name].put_nowait(object())
            worker.at_queue(puts=True)

    def _do_raise(self, _: Worker, __: Op) -> None:
        raise PlannedError

    def _do_report(self, _: Worker, __: Op) -> None:
        self._on_report()

    def _do_function(self, worker: Worker, op: Op) -> None:
        with self._inside(worker, op.name, stepped=True), contextlib.suppress(PlannedError):
            self._stage("function", op.name)(worker, op.inside[0])

    _do_coroutine = _do_function

    def _do_block(self, worker: Worker, op: Op) -> None:
        stepped = not self._in_task
        inside = self._inside(worker, op.name, stepped=stepped)
        with inside, contextlib.suppress(PlannedError), opm.stage(op.name):
            self.at_once(worker, op.inside[0])

    def _do_spawn(self, worker: Worker, op: Op) -> None:
        for ops in op.inside:
            if self._in_task:
                self._spawn(worker, ops, op)
            else:
                self.at_once(worker, ops)

    _do_gather = _do_group = _do_spawn

    def _do_pull(self, worker: Worker, op: Op) -> None:
        for _ in range(_times(op)):
            self._step(worker, op)

    def _step(self, worker: Worker, op: Op) -> None:
        slot = self._slot(worker, op, "generator")
        if slot is None:
            return
        over, slot.worker = True, worker
        worker.enters(slot.invocation)
        try:
            if op.kind == "close":
                slot.generator.close()
            else:
                next(slot.generator)
                over = False
        except (PlannedError, StopIteration):
            pass
        finally:
            worker.leaves(over=over)
            slot.worker = None
            if over:
                del self._slots[op.name]

    _do_close = _do_pull

    # what both need

    def _slot(self, worker: Worker, op: Op, form: str) -> Slot | None:
        """Return the generator of a name; one that cannot be pulled here is None."""
        if (form == "generator") == bool(int(op.name) % 2) or not self._fuel:
            return None
        self._fuel -= 1
        if op.name not in self._slots:
            if op.kind == "close":
                return None
            name = f"{'g' if form == 'generator' else 'a'}{int(op.name) // 4}"
            box: list[Slot] = []
            bodies = self._program.generators[int(op.name)]
            generator = self._stage(form, name)(box, bodies)
            box.append(Slot(generator, self.truth.invocation(name, stepped=True)))
            self._slots[op.name] = box[0]
        slot = self._slots[op.name]
        moved = slot.invocation.pinned not in (None, worker.here())
        return None if moved or slot.worker is not None else slot

    @contextlib.contextmanager
    def _inside(self, worker: Worker, name: str, *, stepped: bool) -> Iterator[None]:
        worker.enters(self.truth.invocation(name, stepped=stepped))
        try:
            yield
        finally:
            worker.leaves(over=True)

    def _spawn(self, worker: Worker, ops: Ops, op: Op) -> asyncio.Task[None]:
        task = self.start(ops, worker)
        if op.cancelled_after is not None:
            asyncio.get_running_loop().call_later(op.cancelled_after, task.cancel)
        return task

    def start(self, ops: Ops, parent: Worker | None = None) -> asyncio.Task[None]:
        """Begin a task that plays operations."""
        inherited = frozenset() if parent is None else parent.spawns()
        worker = self.truth.worker(inherited)
        task = asyncio.get_running_loop().create_task(self._plays(worker, ops))
        self.tasks.append(task)
        return task

    def drop(self) -> None:
        """Close the generators that nobody pulls any more."""
        for slot in self._slots.values():
            if hasattr(slot.generator, "close"):
                slot.generator.close()

    async def _plays(self, worker: Worker, ops: Ops) -> None:
        worker.starts()
        try:
            with contextlib.suppress(PlannedError):
                await self.all_of(worker, ops)
        finally:
            worker.ends()


def _times(op: Op) -> int:
    return 4 if op.kind == "pull many" else 1


def _puller(slot: list[Slot]) -> Worker:
    worker = slot[0].worker
    assert worker is not None
    return worker
