"""Test limits of anyio, trio, gevent and multiprocessing, of pools, and of context managers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.limits import coroutines
from tests.probes.limits.support import (
    in_thread,
    limit_of,
    numbers,
    stages_of,
    until,
    waiting,
)
from tests.probes.queues.support import play, sleep, states

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Clock


# --- anyio and trio ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: anyio.CapacityLimiter(1), "capacity limiter"),
        (lambda: anyio.Semaphore(1), "semaphore"),
        (anyio.Lock, "lock"),
        (anyio.Condition, "condition"),
    ],
)
@pytest.mark.parametrize("how", ["with", "acquire"])
def test_anyio_on_asyncio(
    clock: Clock, make_run: Callable[[], opm.Run], make: Any, kind: str, how: str
) -> None:
    @opm.stage
    async def work(limit: Any, before: float, inside: float) -> None:
        await sleep(before)
        if how == "with":
            async with limit:
                await sleep(inside)
        else:
            assert await limit.acquire() is None
            await sleep(inside)
            limit.release()

    async def main() -> None:
        limit = opm.wrap_limit(make(), name="x")
        await asyncio.gather(work(limit, 0, 3), work(limit, 1, 4))
        await sleep(1)

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (8.0, 0.0, 2.0)
    assert numbers(run) == (1, 7 / 8, 1, 2, 2.0)
    assert stages_of(run) == {"work": (2.0, 7.0)}
    assert limit_of(run)["kind"] == kind


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "make", [lambda: anyio.CapacityLimiter(1), lambda: anyio.Semaphore(1), anyio.Lock]
)
def test_a_free_permit_is_no_wait_although_acquiring_suspends(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run], make: Any, backend: str
) -> None:
    def waits(*_: object) -> Any:
        pytest.fail("it waits")

    monkeypatch.setattr(coroutines, "PermitWait", waits)

    async def main() -> None:
        limit = opm.wrap_limit(make(), name="x")
        async with limit:
            pass
        await limit.acquire()
        limit.release()

    with make_run() as run:
        anyio.run(main, backend=backend)
    assert limit_of(run)["acquired"] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: anyio.CapacityLimiter(1),
        lambda: anyio.Semaphore(1),
        lambda: trio.CapacityLimiter(1),
        lambda: trio.Semaphore(1),
        trio.Lock,
        trio.StrictFIFOLock,
        trio.Condition,
    ],
)
def test_on_trio(clock: Clock, make_run: Callable[[], opm.Run], make: Any) -> None:
    @opm.stage
    async def holds(limit: Any) -> None:
        async with limit:
            clock.advance(1)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(3)

    @opm.stage
    async def waits(limit: Any) -> None:
        await limit.acquire()
        clock.advance(2)
        limit.release()

    async def main() -> None:
        limit = opm.wrap_limit(make(), name="x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holds, limit)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(waits, limit)

    with make_run() as run:
        trio.run(main)
    assert stages_of(run)["holds"][1] == 4.0
    assert stages_of(run)["waits"][1] == 2.0
    assert numbers(run)[:4] == (1, 1.0, 1, 2)


def test_a_limiter_on_behalf_of_others(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    async def main() -> None:
        raw = anyio.CapacityLimiter(2)
        limit = opm.wrap_limit(raw, name="x")
        await limit.acquire_on_behalf_of("a")
        limit.acquire_on_behalf_of_nowait("b")
        with pytest.raises(anyio.WouldBlock):
            limit.acquire_nowait()
        with pytest.raises(RuntimeError):
            limit.release_on_behalf_of("c")  # refused: both permits stay held
        await sleep(1)
        assert (limit.borrowed_tokens, limit.available_tokens) == (2, 0)
        limit.release_on_behalf_of("a")
        await sleep(1)
        limit.release_on_behalf_of("b")
        # it may grow
        limit.total_tokens = 5
        assert raw.total_tokens == 5
        for borrower in range(4):
            await limit.acquire_on_behalf_of(borrower)
        await sleep(1)

    with make_run() as run:
        play(clock, main())
    assert numbers(run)[1:] == ((2 + 1 + 4) / 3, 4, 6, 0.0)


def test_a_limiter_without_a_limit_has_no_maximum(make_run: Callable[[], opm.Run]) -> None:
    async def main() -> None:
        async with opm.wrap_limit(anyio.CapacityLimiter(math.inf), name="x"):
            pass

    with make_run() as run:
        asyncio.run(main())
    assert limit_of(run)["max"] is None


def test_a_limiter_of_threads(make_run: Callable[[], opm.Run]) -> None:
    async def main() -> int:
        limit = opm.wrap_limit(anyio.CapacityLimiter(1), name="x")
        return await anyio.to_thread.run_sync(lambda: 7, limiter=limit)

    for backend in ("asyncio", "trio"):
        with make_run() as run:
            assert anyio.run(main, backend=backend) == 7
        assert limit_of(run)["acquired"] == 1
        assert limit_of(run)["usage_peak"] == 1


def test_cancelled_in_trio_it_holds_nothing(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    @opm.stage
    async def waits(limit: trio.Lock) -> None:
        async with limit:
            pytest.fail("it cannot get the lock")

    async def main() -> None:
        limit = opm.wrap_limit(trio.Lock(), name="x")
        await limit.acquire()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits, limit)
                await trio.testing.wait_all_tasks_blocked()
                clock.advance(3)
                scope.cancel()
        limit.release()
        assert not limit.locked()

    with make_run() as run:
        trio.run(main)
    assert stages_of(run) == {"waits": (3.0, 0.0), None: (0.0, 3.0)}


def test_waiting_in_a_condition_of_trio(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    @opm.stage
    async def takes(condition: trio.Condition) -> None:
        async with condition:
            clock.advance(1)
            await condition.wait()
            clock.advance(1)

    async def main() -> None:
        condition = opm.wrap_limit(trio.Condition(), name="x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(takes, condition)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(5)
            async with condition:
                condition.notify()

    with make_run() as run:
        trio.run(main)
    assert states(run, "takes") == (2.0, 5.0, 0.0)
    assert stages_of(run)["takes"] == (0.0, 2.0)


# --- anything with acquire --------------------------------------------------------------------


class Pool:
    """Connections; acquiring one takes a second by the manual clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.free = ["a", "b"]

    def acquire(self) -> str:
        self.clock.advance(1)
        return self.free.pop()

    def release(self, connection: str, *, broken: bool = False) -> str:
        if connection in self.free:
            raise ValueError("released already")
        self.free.append(connection)
        return f"{connection}{broken}"

    def __len__(self) -> int:
        return len(self.free)


def test_a_pool_whose_release_takes_the_connection(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    raw = Pool(clock)
    pool = opm.wrap_limit(raw, name="x", limit=2)

    @opm.stage
    def work() -> None:
        one, two = pool.acquire(), pool.acquire()
        assert (one, two, len(pool)) == ("b", "a", 0)
        assert pool.free is raw.free
        clock.advance(1)
        assert pool.release(one, broken=True) == "bTrue"
        with pytest.raises(ValueError, match="released already"):
            pool.release(one)
        clock.advance(1)
        pool.release(two)

    with make_run() as run:
        work()
    # held from 1 and from 2 on, until 3 and 4
    assert numbers(run) == (2, 1.0, 2, 2, 2.0)
    assert stages_of(run) == {"work": (2.0, 4.0)}
    assert states(run, "work") == (2.0, 0.0, 2.0)
    assert limit_of(run)["kind"] == "other"


def test_without_a_release_the_usage_is_unknown(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    class Rate:
        async def acquire(self, tokens: int = 1) -> None:
            await sleep(tokens)

    async def main() -> None:
        rate = opm.wrap_limit(Rate(), name="x", limit=5)
        async with opm.stage("work"):
            await rate.acquire()
            await rate.acquire(tokens=2)

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (5, None, None, 2, 3.0)
    assert stages_of(run) == {"work": (3.0, None)}
    assert states(run, "work") == (0.0, 0.0, 3.0)


class FileLock:
    """Acquired by a method or a block, and released by the end of either block."""

    def __init__(self, clock: Clock, gives: str) -> None:
        self.clock = clock
        self.gives = gives

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> Any:
        if self.gives == "generator":
            return self._block()
        self.clock.advance(1)
        return self if self.gives == "itself" else contextlib.closing(self)

    close = release = lambda self: None

    @contextlib.contextmanager
    def _block(self) -> Iterator[FileLock]:
        self.clock.advance(1)
        yield self


@pytest.mark.parametrize(
    ("gives", "usage"), [("itself", (3 / 4, 1)), ("generator", (1 / 2, 1)), ("other", (None, None))]
)
def test_what_acquire_returns_may_release_at_the_end_of_a_block(
    clock: Clock, make_run: Callable[[], opm.Run], gives: str, usage: Any
) -> None:
    """Its wait is blocked; a permit whose end nobody sees is not taken for held."""
    limit = opm.wrap_limit(FileLock(clock, gives), name="x")
    with make_run() as run, opm.stage("work"):
        got = limit.acquire()
        if gives == "itself":
            assert got is limit
            clock.advance(2)
            clock.advance(1)
            limit.release()
        else:
            with got:
                clock.advance(2)
            clock.advance(1)
    assert numbers(run) == (None, *usage, 1, 1.0)
    assert states(run, "work") == (3.0, 0.0, 1.0)


def test_what_acquire_returns_may_be_awaited_or_entered(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """As the pools of asyncpg and aiomysql."""

    class Acquiring:
        def __init__(self, pool: Connections) -> None:
            self.pool = pool

        def __await__(self) -> Any:
            return self.get().__await__()

        async def get(self) -> str:
            await sleep(1)
            return "connection"

        async def __aenter__(self) -> str:
            return await self.get()

        async def __aexit__(self, *error: object) -> None:
            await self.pool.release("connection")

    class Connections:
        def acquire(self) -> Acquiring:
            return Acquiring(self)

        async def release(self, connection: str) -> None:
            await sleep(0)

    async def main() -> None:
        pool: Any = opm.wrap_limit(Connections(), name="x")
        async with opm.stage("work"):
            async with pool.acquire() as connection:
                assert connection == "connection"
                await sleep(2)
            assert await pool.acquire() == "connection"
            await sleep(3)
            await pool.release("connection")

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (None, 5 / 7, 1, 2, 2.0)
    assert limit_of(run)["wait_s"]["avg"] == 1.0
    assert stages_of(run) == {"work": (2.0, 5.0)}
    assert states(run, "work") == (5.0, 0.0, 2.0)


def test_an_acquire_that_fails_holds_nothing(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    class Full:
        def acquire(self) -> None:
            clock.advance(1)
            raise KeyError("full")

        def release(self) -> None:
            """Nothing."""

    limit = opm.wrap_limit(Full(), name="x")
    with make_run() as run, pytest.raises(KeyError, match="full"):
        limit.acquire()
    assert numbers(run) == (None, 0.0, 0, 0, 1.0)


def test_a_subclass_keeps_its_own_methods(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    class Counted(asyncio.Semaphore):
        calls = 0

        async def acquire(self) -> Any:
            self.calls += 1
            return await super().acquire()

    async def main() -> int:
        limit = opm.wrap_limit(Counted(1), name="x")
        async with limit:
            await sleep(1)
        await limit.acquire()
        assert isinstance(limit, Counted)
        return limit.calls

    with make_run() as run:
        assert play(clock, main()) == 2
    assert numbers(run)[0] == 1
    assert limit_of(run)["acquired"] == 2
    assert limit_of(run)["kind"] == "semaphore"


# --- only a context manager -------------------------------------------------------------------


def test_a_context_manager(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    class Slot:
        def __enter__(self) -> str:
            clock.advance(1)
            return "slot"

        def __exit__(self, kind: object, error: object, traceback: object) -> bool:
            return kind is ZeroDivisionError

    slot = opm.wrap_limit(Slot(), name="x", limit=3)
    with make_run() as run, opm.stage("work"):
        for _ in range(2):
            with slot as got:
                assert got == "slot"
                clock.advance(2)
                raise ZeroDivisionError
    assert numbers(run) == (3, 2 / 3, 1, 2, 2.0)
    assert stages_of(run) == {"work": (2.0, 4.0)}
    assert limit_of(run)["kind"] == "context manager"


def test_one_that_is_made_for_each_use_adds_up_by_name(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @contextlib.contextmanager
    def connection() -> Iterator[int]:
        clock.advance(1)
        yield 7

    @contextlib.asynccontextmanager
    async def connection_async() -> AsyncIterator[int]:
        await sleep(1)
        yield 7

    async def main() -> None:
        for _ in range(3):
            with opm.wrap_limit(connection(), name="x") as got:
                await sleep(1)
            async with opm.wrap_limit(connection_async(), name="x") as got_async:
                await sleep(2)
            assert (got, got_async) == (7, 7)

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (None, 9 / 15, 1, 6, 6.0)


# --- other libraries ----------------------------------------------------------------------------


def test_a_lock_of_multiprocessing(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    limit = opm.wrap_limit(multiprocessing.Lock(), name="x")
    with make_run() as run:
        with limit:
            thread = in_thread(lambda: limit.acquire() and limit.release())
            until(waiting)
            clock.advance(2)
        thread.join()
    assert numbers(run)[:4] == (1, 1.0, 1, 2)
    assert limit_of(run)["wait_s"]["max"] == 2.0


@pytest.mark.parametrize("make", [multiprocessing.RLock, multiprocessing.Condition])
def test_a_nested_lock_of_multiprocessing(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    with make_run() as run:
        with limit, limit:
            limit.acquire()
            clock.advance(1)
            limit.release()
        clock.advance(1)
        with pytest.raises(AssertionError):
            limit.release()
    assert numbers(run)[:4] == (1, 0.5, 1, 1)


def test_who_does_not_hold_a_nested_lock_of_multiprocessing_cannot_release_it(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(multiprocessing.RLock(), name="x")

    def elsewhere() -> None:
        with pytest.raises(AssertionError):
            limit.release()

    with make_run() as run:
        with limit, limit:
            in_thread(elsewhere).join()
        # once more would be too early: it was entered twice
        with limit:
            with limit:
                in_thread(elsewhere).join()
            clock.advance(1)
        clock.advance(1)
    assert numbers(run) == (1, 0.5, 1, 2, 0.0)


def test_a_semaphore_of_gevent(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    gevent_lock = pytest.importorskip("gevent.lock")
    limit = opm.wrap_limit(gevent_lock.BoundedSemaphore(2), name="x")
    with make_run() as run:
        assert limit.acquire()
        with limit:
            clock.advance(1)
            assert limit.acquire(blocking=False) is False
        limit.release()
        clock.advance(1)
    assert numbers(run) == (2, 1.0, 2, 2, 0.0)


class Picklable:
    def acquire(self) -> int:
        return 7

    def release(self) -> None:
        """Nothing."""


def test_it_pickles_if_the_wrapped_object_does() -> None:
    copy = pickle.loads(pickle.dumps(opm.wrap_limit(Picklable(), name="x", limit=3)))  # noqa: S301
    assert copy.acquire() == 7
    assert repr(copy).startswith("<instrumented 'x'")
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(opm.wrap_limit(threading.Lock(), name="x"))


# --- what is refused ------------------------------------------------------------------------------


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(TypeError, match=r"builtins\.int has no acquire"):
        opm.wrap_limit(7, name="x")
    with pytest.raises(TypeError, match="not a class"):
        opm.wrap_limit(threading.Semaphore, name="x")
    lock = threading.Lock()
    stand_in = opm.wrap_limit(lock, name="x")
    for again in (lock, stand_in):
        with pytest.raises(TypeError, match="instrumented already"):
            opm.wrap_limit(again, name="y")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"name": 7}, TypeError, "name must be"),
        ({"name": "x", "limit": 0}, ValueError, "limit must be above 0"),
        ({"name": "x", "limit": 1.5}, ValueError, "limit must be a whole number"),
        ({"name": "x", "limit": "3"}, TypeError, "limit must be a number"),
        ({"name": "x", "limit": True}, TypeError, "limit must be a number"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opm.wrap_limit(threading.Lock(), **arguments)
