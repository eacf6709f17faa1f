"""Test limits of asyncio, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._probes.limits import registry
from tests.probes.limits.support import limit_of, numbers, stages_of, until, waiting
from tests.probes.queues.support import play, sleep, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

MakeRun = "Callable[[], opm.Run]"


@pytest.mark.parametrize(
    ("make", "kind", "most"),
    [
        (asyncio.Lock, "lock", 1),
        (lambda: asyncio.Semaphore(1), "semaphore", 1),
        (lambda: asyncio.BoundedSemaphore(1), "semaphore", 1),
        (asyncio.Condition, "condition", 1),
    ],
)
def test_a_wait_for_a_permit_is_blocked_and_its_holder_is_named(
    clock: Clock, make_run: Callable[[], opm.Run], make: Any, kind: str, most: int
) -> None:
    @opm.stage
    async def work(limit: Any, before: float, inside: float) -> None:
        await sleep(before)
        async with limit:
            await sleep(inside)

    async def main() -> None:
        limit = opm.wrap_limit(make(), name="x")
        await asyncio.gather(work(limit, 0, 3), work(limit, 1, 4))
        await sleep(1)

    with make_run() as run:
        play(clock, main())
    # the second one waits from 1 to 3
    assert states(run, "work") == (8.0, 0.0, 2.0)
    assert numbers(run) == (most, 7 / 8, 1, 2, 2.0)
    assert stages_of(run) == {"work": (2.0, 7.0)}
    assert limit_of(run)["kind"] == kind


def test_several_permits_are_held_at_a_time(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    @opm.stage
    async def work(limit: asyncio.Semaphore) -> None:
        await limit.acquire()
        await sleep(2)
        limit.release()

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Semaphore(2), name="x")
        await asyncio.gather(*(work(limit) for _ in range(5)))

    with make_run() as run:
        play(clock, main())
    # 0 to 2, 2 to 4, 4 to 6; the waits are 0, 0, 2, 2 and 4 seconds
    assert numbers(run) == (2, 10 / 6, 2, 5, 8.0)
    assert stages_of(run) == {"work": (8.0, 10.0)}
    waits = limit_of(run)["wait_s"]
    assert (waits["avg"], waits["max"]) == (1.6, 4.0)
    assert waits["p50"] == pytest.approx(2.0, rel=0.01)
    assert states(run, "work") == (10.0, 0.0, 8.0)


def test_a_permit_around_a_stage_belongs_to_it(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    async def work() -> None:
        await sleep(2)

    async def one(limit: asyncio.Semaphore) -> None:
        async with limit:
            await work()

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Semaphore(1), name="x")
        await asyncio.gather(one(limit), one(limit))

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"work": (2.0, 4.0)}


def test_a_permit_without_any_stage_belongs_to_none(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    async def one(limit: asyncio.Lock) -> None:
        async with limit:
            await sleep(2)

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Lock(), name="x")
        await asyncio.gather(one(limit), one(limit))

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {None: (2.0, 4.0)}


def test_who_holds_it_is_not_who_waits(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    lock: Any = opm.wrap_limit(asyncio.Lock(), name="x")

    @opm.stage
    async def long() -> None:
        async with lock:
            await sleep(5)

    @opm.stage
    async def short() -> None:
        await sleep(1)
        async with lock:
            pass

    async def main() -> None:
        await asyncio.gather(long(), short())

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"long": (0.0, 5.0), "short": (4.0, 0.0)}


def test_a_permit_may_be_released_by_another_stage(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Permits for items under way: the first stage acquires them, the last one releases them."""
    permits: Any = opm.wrap_limit(asyncio.Semaphore(2), name="x")

    async def main() -> None:
        async with opm.stage("first"):
            await permits.acquire()
        await sleep(1)
        async with opm.stage("first"):
            await permits.acquire()
        await sleep(1)
        async with opm.stage("last"):
            permits.release()
            permits.release()

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"first": (0.0, 3.0)}


def test_another_stage_releases_what_is_held_longest(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    permits: Any = opm.wrap_limit(asyncio.Semaphore(2), name="x")

    async def main() -> None:
        for name in ("first", "second"):
            async with opm.stage(name):
                await permits.acquire()
            await sleep(1)
        async with opm.stage("last"):
            permits.release()
        await sleep(3)
        async with opm.stage("second"):
            permits.release()

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"first": (0.0, 2.0), "second": (0.0, 4.0)}


def test_a_stage_releases_its_own_permit(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    permits: Any = opm.wrap_limit(asyncio.Semaphore(2), name="x")

    @opm.stage
    async def short() -> None:
        async with permits:
            await sleep(1)

    @opm.stage
    async def long() -> None:
        async with permits:
            await sleep(5)

    async def main() -> None:
        await asyncio.gather(short(), long())

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"short": (0.0, 1.0), "long": (0.0, 5.0)}


def test_a_cancelled_acquire_holds_nothing(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    @opm.stage
    async def work(limit: asyncio.Semaphore) -> None:
        async with limit:
            await sleep(10)

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Semaphore(1), name="x")
        first = asyncio.ensure_future(work(limit))
        second = asyncio.ensure_future(work(limit))
        await sleep(3)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        assert not limit.locked()

    with make_run() as run:
        play(clock, main())
    # its three seconds are a wait all the same
    assert numbers(run) == (1, 1.0, 1, 1, 3.0)
    assert stages_of(run) == {"work": (3.0, 10.0)}


def test_a_wait_that_times_out_belongs_to_the_worker_that_asked(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Before Python 3.12 `wait_for` acquires in a task of its own."""

    @opm.stage
    async def work(limit: asyncio.Lock) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limit.acquire(), 2)
        await asyncio.wait_for(limit.acquire(), 10)
        limit.release()

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Lock(), name="x")
        await limit.acquire()
        task = asyncio.ensure_future(work(limit))
        await sleep(5)
        limit.release()
        await task

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (0.0, 0.0, 5.0)
    assert numbers(run) == (1, 1.0, 1, 2, 5.0)
    assert stages_of(run) == {"work": (5.0, 0.0), None: (0.0, 5.0)}


def test_who_comes_after_a_waiting_task_waits_although_the_lock_is_free(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    async def work(limit: asyncio.Lock) -> None:
        async with limit:
            await sleep(1)

    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Lock(), name="x")
        await limit.acquire()
        first = asyncio.ensure_future(work(limit))
        await sleep(1)
        limit.release()
        # free, but promised to the first task
        assert not limit.locked()
        await asyncio.gather(first, work(limit))

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (1, 1.0, 1, 3, 2.0)


def test_waiting_in_a_condition_is_idle_and_holds_nothing(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    async def taker(condition: asyncio.Condition, items: list[int]) -> int:
        async with condition:
            await sleep(1)
            await condition.wait_for(lambda: items)
            await sleep(2)
            return items.pop()

    @opm.stage
    async def giver(condition: asyncio.Condition, items: list[int]) -> None:
        await sleep(4)
        async with condition:
            condition.notify_all()  # for nothing
        await sleep(1)
        async with condition:
            items.append(7)
            condition.notify()
            await sleep(1)

    async def main() -> None:
        condition = opm.wrap_limit(asyncio.Condition(), name="x")
        items: list[int] = []
        got, _ = await asyncio.gather(taker(condition, items), giver(condition, items))
        assert got == 7

    with make_run() as run:
        play(clock, main())
    # the taker waits from 1 to 6, and has the lock from 0 to 1 and from 6 to 8
    assert states(run, "taker") == (3.0, 5.0, 0.0)
    assert stages_of(run) == {"taker": (0.0, 3.0), "giver": (0.0, 1.0)}
    assert numbers(run)[2:] == (1, 3, 0.0)


def test_a_cancelled_condition_holds_its_lock_again(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    async def taker(condition: asyncio.Condition) -> None:
        async with condition:
            try:
                await condition.wait()
            finally:
                await sleep(1)

    async def main() -> None:
        condition = opm.wrap_limit(asyncio.Condition(), name="x")
        task = asyncio.ensure_future(taker(condition))
        await sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not condition.locked()

    with make_run() as run:
        play(clock, main())
    assert stages_of(run) == {"taker": (0.0, 1.0)}
    assert states(run, "taker") == (1.0, 2.0, 0.0)


async def test_a_condition_without_its_lock_cannot_wait() -> None:
    condition = opm.wrap_limit(asyncio.Condition(), name="x")
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        await condition.wait()
    async with condition:
        pass


def test_a_wrapped_lock_serves_a_condition(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    @opm.stage
    async def taker(condition: asyncio.Condition) -> None:
        async with condition:
            await sleep(1)
            await condition.wait()
            await sleep(1)

    async def main() -> None:
        lock = opm.wrap_limit(asyncio.Lock(), name="x")
        condition = asyncio.Condition(lock)
        task = asyncio.ensure_future(taker(condition))
        await sleep(5)
        async with condition:
            condition.notify()
        await task

    with make_run() as run:
        play(clock, main())
    assert limit_of(run)["acquired"] == 3
    assert stages_of(run)["taker"] == (0.0, 2.0)


def test_a_permit_that_is_held_at_the_end_counts_until_then(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    lock: Any = opm.wrap_limit(asyncio.Lock(), name="x")

    @opm.stage
    async def work() -> None:
        await lock.acquire()

    with make_run() as run:
        play(clock, work())
        clock.advance(4)
        assert limit_of(run)["usage_avg"] == 1.0
        clock.advance(4)
    assert stages_of(run) == {"work": (0.0, 8.0)}
    lock.release()


def test_permits_of_one_name_add_up(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    async def main() -> None:
        one = opm.wrap_limit(asyncio.Semaphore(2), name="x")
        other = opm.wrap_limit(asyncio.Lock(), name="x")
        async with one, other, one:
            await sleep(2)
        await sleep(2)

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (3, 1.5, 3, 3, 0.0)
    assert limit_of(run)["kind"] == "mixed"


def test_runs_count_their_own_permits(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    lock: Any = opm.wrap_limit(asyncio.Lock(), name="x")

    async def main(seconds: float) -> None:
        async with lock:
            await sleep(seconds)

    with make_run() as first:
        play(clock, main(1))
    with make_run() as second:
        play(clock, main(3))
    with make_run() as third:
        pass
    assert numbers(first)[1:] == (1.0, 1, 1, 0.0)
    assert stages_of(second) == {None: (0.0, 3.0)}
    assert third.report.limits == []


def test_permits_that_were_acquired_before_it_was_wrapped_are_not_known(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    async def main() -> None:
        raw = asyncio.Semaphore(3)
        await raw.acquire()
        limit = opm.wrap_limit(raw, name="x")
        limit.release()
        async with limit:
            await sleep(1)

    with make_run() as run:
        play(clock, main())
    # its maximum is the value when it was wrapped
    assert numbers(run) == (2, 1.0, 1, 1, 0.0)


def test_releases_through_a_raw_reference_never_lead_above_the_maximum(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """A rate limit: a timer gives permits back."""

    async def main() -> None:
        raw = asyncio.Semaphore(2)
        limit = opm.wrap_limit(raw, name="x")
        for _ in range(10):
            await limit.acquire()
            raw.release()
            await sleep(1)

    with make_run() as run:
        play(clock, main())
    most, average, peak, acquired, _ = numbers(run)
    assert (most, peak, acquired) == (2, 2, 10)
    assert average == 1.9  # one from 0 to 1, then two


def test_a_semaphore_that_is_a_signal_holds_nothing(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    async def main() -> None:
        signal = opm.wrap_limit(asyncio.Semaphore(0), name="x")

        async def waiter() -> None:
            for _ in range(2):
                await signal.acquire()

        task = asyncio.ensure_future(waiter())
        await sleep(1)
        signal.release()
        await sleep(1)
        signal.release()
        await task

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (0, 0.0, 0, 2, 2.0)


class OwnLock(asyncio.Lock):
    """A lock that lets others run before it acquires."""

    async def acquire(self) -> Any:
        await asyncio.sleep(0)
        return await super().acquire()


def test_a_condition_with_a_lock_of_the_program(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    async def main() -> None:
        condition = opm.wrap_limit(asyncio.Condition(OwnLock()), name="x")
        async with condition:
            await sleep(1)
        await condition.acquire()
        await sleep(1)
        condition.release()
        await sleep(2)

    with make_run() as run:
        play(clock, main())
    assert numbers(run) == (1, 0.5, 1, 2, 0.0)


def test_a_permit_belongs_to_the_stage_before_though_a_thread_works_as_the_worker_of_its_task(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(asyncio.Lock(), name="x")
    gate = opm.wrap_limit(threading.Lock(), name="gate")
    queue = opm.wrap_queue(asyncio.Queue[int](), name="queue")

    async def main() -> None:
        with opm.stage("before"):
            pass
        with gate:
            thread = asyncio.ensure_future(asyncio.to_thread(gate.acquire))
            await asyncio.sleep(0)
            until(waiting)
            # a worker of its own from here on, since the thread's wait is not this task's
            queue.put_nowait(1)
            async with limit:
                clock.advance(2)
        await thread

    with make_run() as run:
        asyncio.run(main())
    assert stages_of(run) == {"before": (0.0, 2.0)}


class Interruption(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("how", ["acquire", "__aenter__"])
@pytest.mark.parametrize("make", [asyncio.Lock, lambda: asyncio.Semaphore(1), asyncio.Condition])
def test_who_is_interrupted_while_it_is_counted_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, make: Any, how: str
) -> None:
    def interrupts() -> float:
        raise Interruption

    async def main() -> None:
        limit = opm.wrap_limit(make(), name="x")
        with monkeypatch.context() as patch:
            patch.setattr(_clock, "now", interrupts)
            with pytest.raises(Interruption):
                await getattr(limit, how)()
        assert not limit.locked()
        assert registry.limits.sizes() == {"x": 0}
        async with limit:
            assert registry.limits.sizes() == {"x": 1}

    asyncio.run(main())
