"""Test what a signal handler of the program does to permits that are just being counted."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.limits import permits, registry
from otel_pipeline_metrics._probes.limits.probe import interrupted, use_here
from otel_pipeline_metrics._probes.limits.single import SinglePermit
from tests.probes.limits.support import numbers
from tests.probes.limits.test_threads import Interrupting, Interruption, taken_elsewhere
from tests.support.interrupting import StrikeError, strike_at_every_line, striking

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.conftest import Clock

SEMAPHORES = [
    lambda: threading.Semaphore(2),
    lambda: threading.BoundedSemaphore(2),
    lambda: asyncio.Semaphore(2),
]


def acquire(limit: Any) -> None:
    acquired = limit.acquire()
    if acquired is not True:
        with pytest.raises(StopIteration):
            acquired.send(None)


class Interrupted(list[Any]):
    """A list that is interrupted when it has appended."""

    def append(self, item: Any) -> None:
        super().append(item)
        raise Interruption


def strike() -> None:
    raise Interruption


class Releasing:
    """A block that does what those who acquire do when they are interrupted."""

    def __init__(self, *of: Any) -> None:
        self.of = of

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, *_: object) -> bool:
        interrupted(*self.of)
        return kind is Interruption


@pytest.mark.parametrize("make", SEMAPHORES)
def test_a_semaphore_that_is_interrupted_while_it_is_counted_holds_nothing(
    make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    limit = opm.wrap_limit(make(), name="x")
    with make_run() as run:
        acquire(limit)
        limit._opm_probe._holds = Interrupted(limit._opm_probe._holds)
        with pytest.raises(Interruption):
            acquire(limit)
        assert registry.limits.sizes() == {"x": 1}
        assert limit._value == 1
        limit._opm_probe._holds = list(limit._opm_probe._holds)
        acquire(limit)
        assert registry.limits.sizes() == {"x": 2}
    assert numbers(run)[2:4] == (2, 2)


@pytest.mark.parametrize(
    "make", [*SEMAPHORES, threading.Lock, threading.RLock, threading.Condition]
)
def test_who_is_interrupted_once_it_is_counted_holds_nothing(
    make_run: Callable[[], opm.Run], make: Callable[[], Any]
) -> None:
    limit, _other = (opm.wrap_limit(make(), name="x") for _ in range(2))
    lock, probe = limit._opm_queue, limit._opm_probe
    with make_run() as run:
        for _ in range(3):
            if asyncio.iscoroutinefunction(lock.acquire):
                lock._value -= 1
            else:
                lock.acquire()
            with Releasing(lock, probe):
                probe.acquired()
                strike()
            assert registry.limits.sizes() == {"x": 0}
        acquire(limit)
    assert numbers(run)[2] == 1


@pytest.mark.parametrize("make", [threading.Semaphore, threading.BoundedSemaphore])
def test_a_semaphore_that_is_interrupted_as_it_is_released_holds_nothing(
    make_run: Callable[[], opm.Run], make: Callable[[int], Any]
) -> None:
    """What the handler raises is no refusal, though it is an `Exception`."""
    limit = opm.wrap_limit(make(2), name="x")
    limit._cond.notify = lambda *_: signal.raise_signal(signal.SIGUSR1)
    with make_run() as run, striking():
        for _ in range(3):
            limit.acquire()
            with pytest.raises(StrikeError):
                limit.release()
            assert (limit._value, registry.limits.sizes()) == (2, {"x": 0})
    assert numbers(run)[2] == 1


def test_what_is_counted_as_released_at_once_counts_once_if_that_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(threading.Semaphore(0), name="x")
    with make_run() as run:
        limit.release()
        with monkeypatch.context() as patch:
            # the second time that it is read, when the permit has ended
            patch.setattr(_clock, "now", Interrupting(2).now)
            with pytest.raises(Interruption):
                limit.acquire()
        limit._opm_probe._maximum = 2
        limit._opm_queue.release()
        for _ in range(2):
            limit.acquire()
    assert numbers(run)[2] == 2


def test_who_holds_it_already_does_so_if_the_second_permit_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run]
) -> None:
    def interrupt(frame: FrameType, event: str, _: object) -> None:
        if frame.f_code is SinglePermit.acquired.__code__ and event == "call":
            sys.setprofile(None)
            raise Interruption

    limit = opm.wrap_limit(threading.RLock(), name="x")
    for depth in (1, 2):
        for _ in range(depth):
            limit.acquire()
        sys.setprofile(interrupt)
        with pytest.raises(Interruption):
            limit.acquire()
        for _ in range(depth):
            assert registry.limits.sizes() == {"x": 1}
            assert not taken_elsewhere(limit)
            limit.release()
        assert registry.limits.sizes() == {"x": 0}
        assert taken_elsewhere(limit)


def test_a_handler_that_uses_the_lock_takes_no_time_from_who_releases_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(threading.RLock(), name="x")
    now = _clock.now

    def with_handler() -> float:
        monkeypatch.setattr(_clock, "now", now)
        with limit:
            clock.advance(1)
        return now()

    with make_run() as run:
        limit.acquire()
        clock.advance(2)
        monkeypatch.setattr(_clock, "now", with_handler)
        limit.release()
    assert numbers(run) == (1, 4 / 3, 1, 2, 0.0)


def test_a_key_error_of_a_signal_handler_is_the_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = opm.wrap_limit(threading.Lock(), name="x")
    with limit:
        pass
    now = _clock.now

    def handler(_number: int, _frame: object) -> None:
        raise KeyError("theirs")

    def struck() -> float:
        signal.raise_signal(signal.SIGUSR1)
        return now()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(errors, "raise_faults", False)
        monkeypatch.setattr(_clock, "now", struck)
        with pytest.raises(KeyError, match="theirs"):
            limit.acquire()
    finally:
        signal.signal(signal.SIGUSR1, before)
    monkeypatch.setattr(_clock, "now", now)
    assert registry.limits.sizes() == {"x": 0}
    assert taken_elsewhere(limit)


@pytest.mark.parametrize("given", [(True, 1), (False,)])
@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Semaphore])
def test_a_permit_is_not_kept_where_the_first_call_after_it_is_interrupted(
    make: Any, given: tuple[Any, ...]
) -> None:
    raw = make()
    limit = opm.wrap_limit(raw, name="x")
    taken: list[bool] = []

    class Watched:
        """The raw limit, which tells when a permit is taken."""

        def acquire(self, *arguments: Any) -> Any:
            got = raw.acquire(*arguments)
            taken[:] = [True] if got else []
            return got

        def __getattr__(self, name: str) -> Any:
            return getattr(raw, name)

    def strike(frame: Any, event: str, _: object) -> None:
        if event == "call" and taken and "_probes" in frame.f_code.co_filename:
            sys.setprofile(None)
            raise KeyboardInterrupt

    object.__setattr__(limit, "_opm_queue", Watched())
    sys.setprofile(strike)
    try:
        # where nothing is called, nothing can be struck
        limit.acquire(*given)
    except KeyboardInterrupt:
        assert raw.acquire(blocking=False)
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("kind", ["its own", "of another stage"])
@pytest.mark.parametrize("make", SEMAPHORES)
def test_a_release_that_is_interrupted_while_it_is_counted_is_counted_once(
    make: Callable[[], Any], kind: str
) -> None:
    """The permits that are known and their number never differ; what was counted is released."""
    limit = opm.wrap_limit(make(), name="x")
    probe = limit._opm_probe

    @opm.stage("holds")
    def hold() -> None:
        acquire(limit)

    holds = hold if kind == "of another stage" else lambda: acquire(limit)
    level = use_here("x").limit
    before = level.level
    wrong: list[int] = []

    def after(strikes: int) -> None:
        assert probe.depth() == level.level - before, strikes
        wrong.append(probe.depth() - (2 - limit._value))
        if wrong[-1] == 1:
            probe.take()
        elif wrong[-1]:
            limit._opm_queue.release()
        while limit._value:
            holds()

    holds()
    holds()
    struck = strike_at_every_line(limit.release, after, permits)
    # as it begins to be counted, it is released all the same; as asyncio begins to release it, not
    assert wrong.count(1) <= 4 < struck
    assert wrong.count(-1) <= 1
    assert wrong.count(0) == struck - wrong.count(1) - wrong.count(-1)


def test_a_handler_of_its_kind_of_errors_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asyncio lock keeps no KeyError of a signal handler, nor gives it one of ours."""

    def struck() -> float:
        _clock.now = now
        signal.raise_signal(signal.SIGUSR1)
        return now()

    def handler(*_: object) -> None:
        raise KeyError("theirs")

    now = _clock.now
    monkeypatch.setattr(errors, "raise_faults", False)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for make in (asyncio.Lock, threading.Lock):
            # the first permit of its stage, and another one
            limit = opm.wrap_limit(make(), name=f"kept {make.__module__}")
            for _ in range(2):
                with monkeypatch.context() as patch:
                    patch.setattr(_clock, "now", struck)
                    with pytest.raises(KeyError, match="theirs") as raised:
                        acquire(limit)
                assert raised.value.__context__ is None
                assert not limit.locked()
                acquire(limit)
                limit.release()
    finally:
        signal.signal(signal.SIGUSR1, before)
