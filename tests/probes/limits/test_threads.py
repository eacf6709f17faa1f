"""Test limits of threading, with threads that are brought to where they wait."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._probes.limits import registry
from otel_pipeline_metrics._probes.limits.permits import Permits
from tests.probes.limits.support import (
    in_thread,
    limit_of,
    numbers,
    stages_of,
    until,
    waiting,
)
from tests.probes.queues.support import states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock


def semaphore() -> threading.Semaphore:
    return threading.Semaphore(1)


def bounded() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(1)


def plain_condition() -> threading.Condition:
    return threading.Condition(threading.Lock())


LIMITS = [
    (threading.Lock, "lock"),
    (threading.RLock, "rlock"),
    (threading._PyRLock, "rlock"),  # type: ignore[attr-defined]
    (semaphore, "semaphore"),
    (bounded, "semaphore"),
    (threading.Condition, "condition"),
    (plain_condition, "condition"),
]


def enter(limit: Any) -> Callable[[], object]:
    limit.__enter__()
    return lambda: limit.__exit__(None, None, None)


def acquire(limit: Any) -> Callable[[], object]:
    assert limit.acquire() is True
    release: Callable[[], object] = limit.release
    return release


def acquire_in_time(limit: Any) -> Callable[[], object]:
    assert limit.acquire(timeout=1000) is True
    release: Callable[[], object] = limit.release
    return release


def acquire_blocking(limit: Any) -> Callable[[], object]:
    assert limit.acquire(True) is True
    release: Callable[[], object] = limit.release
    return release


@pytest.mark.parametrize("how", [enter, acquire, acquire_in_time, acquire_blocking])
@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_a_wait_is_blocked_and_its_holder_is_named(
    clock: Clock,
    make_run: Callable[[], opm.Run],
    make: Callable[[], Any],
    kind: str,
    how: Callable[[Any], Callable[[], object]],
) -> None:
    limit = opm.wrap_limit(make(), name="x")

    @opm.stage
    def waits() -> None:
        leave = how(limit)
        clock.advance(2)
        leave()

    with make_run() as run:
        with opm.stage("holds"):
            leave = how(limit)
            thread = in_thread(waits)
            until(waiting)
            clock.advance(3)
            leave()
        thread.join()
    assert numbers(run) == (1, 1.0, 1, 2, 3.0)
    assert stages_of(run) == {"holds": (0.0, 3.0), "waits": (3.0, 2.0)}
    assert limit_of(run)["kind"] == kind
    assert states(run, "waits") == (2.0, 0.0, 3.0)


@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_what_does_not_get_a_permit_holds_nothing(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any], kind: str
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    got: list[object] = []

    def elsewhere() -> None:
        got.append(limit.acquire(False))
        got.append(limit.acquire(blocking=False))
        got.append(limit.acquire(timeout=0.001))
        got.append(limit.acquire(True, 0.001))

    with make_run() as run, limit:
        in_thread(elsewhere).join()
    assert got == [False] * 4
    assert numbers(run)[2:4] == (1, 1)
    assert limit_of(run)["wait_s"]["total"] == 0.0


@pytest.mark.parametrize("how", [enter, acquire])
@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_a_permit_around_a_stage_belongs_to_it(
    clock: Clock,
    make_run: Callable[[], opm.Run],
    make: Callable[[], Any],
    kind: str,
    how: Callable[[Any], Callable[[], object]],
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    with make_run() as run:
        leave = how(limit)
        with opm.stage("work"):
            clock.advance(2)
        leave()
    assert stages_of(run) == {"work": (0.0, 2.0)}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_a_permit_after_a_step_belongs_to_its_generator(
    clock: Clock,
    make_run: Callable[[], opm.Run],
    make: Callable[[], Any],
    kind: str,
    flushed: bool,
) -> None:
    limit = opm.wrap_limit(make(), name="x")

    @opm.stage
    def pages() -> Iterator[int]:
        yield from range(3)

    with make_run() as run:
        with opm.stage("before"), limit:
            clock.advance(5)
        for _ in pages():
            if flushed:
                drain.drain()
            with limit:
                clock.advance(1)
    assert stages_of(run) == {"before": (0.0, 5.0), "pages": (0.0, 3.0)}


@pytest.mark.parametrize(("make", "kind"), [*LIMITS, (multiprocessing.Lock, "lock")])
def test_a_wait_outside_of_stages_moves_to_its_stage_once(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any], kind: str
) -> None:
    limit = opm.wrap_limit(make(), name="x")

    def waits() -> None:
        with opm.stage("work"):
            clock.advance(1)
        for seconds in (2, 4):
            leave = acquire(limit)
            clock.advance(seconds)
            leave()

    with make_run() as run:
        with opm.stage("holds"):
            leave = acquire(limit)
            thread = in_thread(waits)
            until(waiting)
            clock.advance(3)
            leave()
        thread.join()
    assert stages_of(run) == {"holds": (0.0, 4.0), "work": (3.0, 6.0)}


def test_the_peak_is_the_most_that_locks_of_one_name_held_at_a_time(
    make_run: Callable[[], opm.Run],
) -> None:
    locks = [opm.wrap_limit(threading.Lock(), name="x") for _ in range(4)]
    with make_run() as run:
        for held in (1, 3, 2, 3, 1):
            for lock in locks[:held]:
                lock.acquire()
            for lock in locks[:held]:
                lock.release()
    assert numbers(run)[2:4] == (3, 10)


@pytest.mark.parametrize("make", [threading.RLock, threading.Condition])
def test_who_acquires_again_holds_one_permit(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    with make_run() as run:
        with limit:
            clock.advance(1)
            with limit:
                assert limit.acquire() is True
                clock.advance(1)
                limit.release()
            clock.advance(1)
        clock.advance(1)
    assert numbers(run) == (1, 0.75, 1, 1, 0.0)


@pytest.mark.parametrize("make", [threading.RLock, threading.Condition])
def test_who_does_not_hold_it_cannot_release_it(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    limit = opm.wrap_limit(make(), name="x")

    def elsewhere() -> None:
        with pytest.raises(RuntimeError):
            limit.release()

    with make_run() as run, limit:
        in_thread(elsewhere).join()
        clock.advance(1)
        assert limit_of(run)["usage_avg"] == 1.0


def test_a_semaphore_releases_several_permits(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(threading.Semaphore(3), name="x")
    with make_run() as run:
        for _ in range(3):
            limit.acquire()
        clock.advance(1)
        limit.release(2)
        clock.advance(1)
        limit.release(n=1)
        clock.advance(2)
        with pytest.raises(ValueError, match="n must be one or more"):
            limit.release(0)
    assert numbers(run) == (3, 1.0, 3, 3, 0.0)


def test_a_bounded_semaphore_refuses_a_permit_too_many(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(threading.BoundedSemaphore(1), name="x")
    with make_run() as run:
        with pytest.raises(ValueError, match="released too many times"):
            limit.release()
        with limit:
            clock.advance(1)
    assert numbers(run) == (1, 1.0, 1, 1, 0.0)


@pytest.mark.parametrize("refused", [2, 3, 0, "1"])
def test_a_refused_release_releases_nothing(
    clock: Clock, make_run: Callable[[], opm.Run], refused: Any
) -> None:
    with make_run() as run:
        limit = opm.wrap_limit(threading.BoundedSemaphore(2), name="x")
        assert limit.acquire()
        clock.advance(2)
        with pytest.raises((TypeError, ValueError)):
            limit.release(refused)
        clock.advance(1)
        limit.release()
        clock.advance(1)
    assert numbers(run) == (2, 3 / 4, 1, 1, 0.0)
    assert stages_of(run) == {None: (0.0, 3.0)}


@pytest.mark.parametrize("count", [2, 10**5])
def test_permits_beyond_those_that_are_held_take_no_time(
    make_run: Callable[[], opm.Run], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Permits, "take", lambda _: asked.append(1))
    with make_run() as run:
        limit = opm.wrap_limit(threading.Semaphore(1), name="x")
        limit.release(count)
        assert limit.acquire()
        limit.release(count)
    assert len(asked) == 1
    assert limit_of(run)["acquired"] == 1


@pytest.mark.parametrize("arguments", [("x",), (True, -2), (True, "1"), (False, 1)])
@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, semaphore])
def test_bad_arguments_are_the_users_own_error(
    make: Callable[[], Any], arguments: tuple[Any, ...]
) -> None:
    def outcome(limit: Any) -> object:
        try:
            return limit.acquire(*arguments)
        except (TypeError, ValueError, OverflowError) as error:
            return type(error), str(error)

    bare, limit = make(), opm.wrap_limit(make(), name="x")
    assert outcome(limit) == outcome(bare)
    assert limit.acquire(False) == bare.acquire(False)


@pytest.mark.parametrize("wait", ["wait", "wait_for"])
@pytest.mark.parametrize("make", [threading.Condition, plain_condition])
def test_waiting_in_a_condition_is_idle_and_holds_nothing(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any], wait: str
) -> None:
    condition = opm.wrap_limit(make(), name="x")
    items: list[int] = []

    @opm.stage
    def takes() -> None:
        with condition:
            clock.advance(1)
            if wait == "wait":
                assert condition.wait() is True
            else:
                assert condition.wait_for(lambda: items) == [7]
            clock.advance(2)

    with make_run() as run:
        thread = in_thread(takes)
        until(waiting)
        clock.advance(5)
        until(lambda: len(condition._waiters))
        with opm.stage("gives"), condition:
            items.append(7)
            clock.advance(1)
            condition.notify()
        thread.join()
    assert stages_of(run) == {"takes": (0.0, 3.0), "gives": (0.0, 1.0)}
    assert states(run, "takes") == (3.0, 6.0, 0.0)
    assert numbers(run)[2:] == (1, 2, 0.0)


def test_a_condition_that_is_entered_twice_releases_all_while_it_waits(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    condition = opm.wrap_limit(threading.Condition(), name="x")

    def takes() -> None:
        with condition, condition:
            assert condition.wait() is True
            clock.advance(1)
        clock.advance(1)

    with make_run() as run:
        thread = in_thread(takes)
        until(waiting)
        clock.advance(5)
        until(lambda: condition._waiters)  # type: ignore[attr-defined]
        with condition:
            clock.advance(1)
            condition.notify()
        thread.join()
    # held for one second by each of them, of eight
    assert numbers(run) == (1, 0.25, 1, 2, 0.0)


def test_a_condition_without_its_lock_cannot_wait() -> None:
    condition = opm.wrap_limit(threading.Condition(), name="x")
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        condition.wait()
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        condition.notify()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_wrapped_lock_serves_a_condition(
    clock: Clock, make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    lock = opm.wrap_limit(make(), name="x")
    condition = threading.Condition(lock)

    @opm.stage
    def takes() -> None:
        with condition:
            clock.advance(1)
            condition.wait()
            clock.advance(1)

    with make_run() as run:
        thread = in_thread(takes)
        until(lambda: condition._waiters)  # type: ignore[attr-defined]
        with opm.stage("gives"), condition:
            clock.advance(4)
            condition.notify()
        thread.join()
    assert stages_of(run)["takes"][1] == 2.0
    assert stages_of(run)["gives"][1] == 4.0
    assert limit_of(run)["usage_peak"] == 1


def test_threads_that_contend_lose_no_count() -> None:
    """Real threads and the real clock: the sums hold whatever the order."""
    limit = opm.wrap_limit(threading.Semaphore(2), name="x")
    inside = peak = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, peak
        for _ in range(200):
            with limit:
                with guard:
                    inside += 1
                    peak = max(peak, inside)
                time.sleep(0)
                with guard:
                    inside -= 1

    with opm.run("test", resources=False) as run:
        threads = [in_thread(work) for _ in range(6)]
        for thread in threads:
            thread.join()
    most, average, counted_peak, acquired, waited = numbers(run)
    assert (most, acquired) == (2, 1200)
    assert 0 < average <= 2
    assert peak <= 2
    assert 1 <= counted_peak <= 2
    ((waited_s, held_s),) = stages_of(run).values()
    assert waited_s == pytest.approx(waited)
    assert held_s == pytest.approx(average * run.report.run["wall_s"])


class Interruption(BaseException):
    """What a signal handler raises."""


class Interrupting:
    """A clock whose reading is interrupted once."""

    def __init__(self, at: int) -> None:
        self.left = at

    def now(self) -> float:
        self.left -= 1
        if self.left == 0:
            raise Interruption
        return 1000.0


def block(limit: Any) -> None:
    with limit:
        pass


def nested(limit: Any) -> None:
    with limit, limit:
        pass


def wait_and_leave(limit: Any) -> None:
    with limit:
        limit.wait(0.001)


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_who_is_interrupted_while_it_is_counted_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], kind: str, at: int
) -> None:
    """As by a signal handler that raises: nothing stays locked, and later counts are right."""
    limit = opm.wrap_limit(make(), name="x")
    uses = [block]
    if make in {threading.RLock, threading._PyRLock, threading.Condition}:  # type: ignore[attr-defined]
        uses.append(nested)
    if kind == "condition":
        uses.append(wait_and_leave)
    for use in uses:
        with monkeypatch.context() as patch, contextlib.suppress(Interruption):
            patch.setattr(_clock, "now", Interrupting(at).now)
            use(limit)
        assert taken_elsewhere(limit)
        with limit:
            assert registry.limits.sizes() == {"x": 1}
        assert registry.limits.sizes() == {"x": 0}


@pytest.mark.parametrize(("make", "kind"), LIMITS)
def test_who_is_interrupted_at_the_end_of_a_wait_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], kind: str
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    raised: list[BaseException] = []

    def now() -> float:
        if ended and not raised and threading.current_thread() is not threading.main_thread():
            raise Interruption
        return 1000.0

    def waits() -> None:
        try:
            limit.acquire()
        except Interruption as error:
            raised.append(error)

    ended = False
    monkeypatch.setattr(_clock, "now", now)
    with limit:
        thread = in_thread(waits)
        until(waiting)
        ended = True
    thread.join()
    assert len(raised) == 1
    assert taken_elsewhere(limit)


def taken_elsewhere(limit: Any) -> bool:
    """Tell whether another thread gets it; it releases it again."""
    got: list[bool] = []

    def try_it() -> None:
        got.append(limit.acquire(False))
        if got[0]:
            limit.release()

    in_thread(try_it).join()
    return got[0]
