"""Test how many permits are held at a time: of one lock, of several of one name, in any order."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.limits import registry
from otel_pipeline_metrics._probes.limits.permits import Permits
from tests.probes.limits.support import in_thread, limit_of

if TYPE_CHECKING:
    from collections.abc import Callable

LOCKS = [
    threading.Lock,
    threading.RLock,
    threading._PyRLock,  # type: ignore[attr-defined]
    threading.Condition,
    asyncio.Lock,
]


def peak(run: opm.Run) -> object:
    return limit_of(run)["usage_peak"]


def acquire(limit: Any) -> None:
    acquired = limit.acquire()
    if acquired is not True:
        with pytest.raises(StopIteration):
            acquired.send(None)


@pytest.mark.parametrize("make", LOCKS)
def test_a_lock_that_is_held_counts_once_there_is_another_of_its_name(
    make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    with make_run() as run:
        first = opm.wrap_limit(make(), name="x")
        acquire(first)
        second = opm.wrap_limit(make(), name="x")
        acquire(second)
        assert peak(run) == 2
        for _ in range(3):
            first.release()
            second.release()
            acquire(first)
            acquire(second)
        assert peak(run) == 2
        first.release()
        third = opm.wrap_limit(make(), name="x")
        acquire(third)
        assert peak(run) == 2
        acquire(first)
        assert peak(run) == 3
        for lock in (first, second, third):
            lock.release()
    assert limit_of(run)["acquired"] == 10


@pytest.mark.parametrize("make", LOCKS)
def test_a_lock_that_is_free_counts_from_its_next_permit_on(
    make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    with make_run() as run:
        first = opm.wrap_limit(make(), name="x")
        acquire(first)
        first.release()
        second = opm.wrap_limit(make(), name="x")
        acquire(second)
        second.release()
        assert peak(run) == 1
        acquire(first)
        acquire(second)
        assert peak(run) == 2
        first.release()
        second.release()


def test_a_lock_and_a_semaphore_of_one_name_are_counted_together(
    make_run: Callable[[], opm.Run],
) -> None:
    with make_run() as run:
        lock = opm.wrap_limit(threading.Lock(), name="x")
        with lock:
            pass
        semaphore = opm.wrap_limit(threading.Semaphore(3), name="x")
        with semaphore, semaphore, lock:
            pass
    assert peak(run) == 3


def test_locks_that_are_gone_hold_nothing(make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run:
        for _ in range(3):
            lock = opm.wrap_limit(threading.Lock(), name="x")
            lock.acquire()
            del lock
        both = [opm.wrap_limit(threading.Lock(), name="x") for _ in range(2)]
        for lock in both:
            lock.acquire()
        del both, lock
        with opm.wrap_limit(threading.Lock(), name="x"):
            assert peak(run) == 2


def test_semaphores_that_are_gone_hold_nothing(make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run:
        for _ in range(3):
            semaphore = opm.wrap_limit(threading.Semaphore(2), name="x")
            semaphore.acquire()
            del semaphore
    assert peak(run) == 1


def test_two_threads_that_find_a_second_lock_count_a_held_one_once(
    make_run: Callable[[], opm.Run],
) -> None:
    locks = [opm.wrap_limit(threading.Lock(), name="x") for _ in range(2)]
    with make_run() as run:
        locks[0].acquire()
        registry.shared.clear()
        third = opm.wrap_limit(threading.Lock(), name="x")
        with third:
            assert peak(run) == 2


def test_a_lock_for_each_request_does_not_look_at_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    alive = registry.limits.alive
    monkeypatch.setattr(registry.limits, "alive", lambda name: looked.append(name) or alive(name))
    locks = [opm.wrap_limit(threading.Lock(), name="x") for _ in range(9)]
    assert looked == ["x"]
    assert all(lock._opm_probe.shared for lock in locks)  # type: ignore[attr-defined]


def test_a_lock_has_a_peak_though_its_first_wait_was_in_vain(
    make_run: Callable[[], opm.Run],
) -> None:
    lock = opm.wrap_limit(threading.Lock(), name="x")
    with lock, make_run() as run:
        in_thread(lambda: lock.acquire(timeout=0.001)).join()
        assert peak(run) == 0
        lock.release()
        assert lock.acquire()
    assert peak(run) == 1


def test_a_condition_that_goes_on_holds_its_lock_beside_others(
    make_run: Callable[[], opm.Run],
) -> None:
    condition = opm.wrap_limit(threading.Condition(), name="x")
    lock = opm.wrap_limit(threading.Lock(), name="x")

    def holds() -> None:
        with condition:
            # only once the other one waits
            pass
        lock.acquire()
        with condition._lock:  # type: ignore[attr-defined]  # raw: it is not counted
            condition._waiters[0].release()  # type: ignore[attr-defined]

    with make_run() as run:
        with condition:
            thread = in_thread(holds)
            assert condition.wait(30)
        thread.join()
        lock.release()
    assert peak(run) == 2


def test_a_release_that_is_refused_may_be_the_most_that_was_held(
    make_run: Callable[[], opm.Run],
) -> None:
    with make_run() as run:
        permits = Permits("x", "semaphore", 2)
        permits.acquired()
        hold = permits.take()
        permits.acquired()
        permits.give_back(hold)
    assert peak(run) == 2
