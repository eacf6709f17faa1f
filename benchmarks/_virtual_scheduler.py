"""Let the threads of a program take turns on a clock that jumps to the next timer.

One thread runs at a time. A thread that sleeps, or waits for a lock, passes the turn on; when all
of them wait, the clock jumps to the first timer. So what runs takes exactly the time that it
asks for, in the same order each time. Computing takes no time at all: see `Scheduler.computed`.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# The real ones, whatever else is replaced.
allocate_lock: Final = _thread.allocate_lock
_thread_time: Final = time.thread_time
_real_now: Final = time.perf_counter

# A step of a program that takes this much CPU computes; less is what the library itself needs.
_STEP_S: Final = 0.0015

# So often may a program look at the clock, or come round, without time passing.
_PATIENCE: Final = 20_000

_DEADLOCK: Final = "nothing will ever wake a task of this loop: a deadlock"


class Waiter:
    """A thread that waits, once."""

    __slots__ = ("baton", "done", "woken")

    def __init__(self) -> None:
        self.baton = allocate_lock()
        self.baton.acquire()
        self.done = False
        self.woken = False


class Scheduler:
    """Who runs, and what time it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self._computed_s = 0.0
        # somebody waits for the time to pass by looking at the clock again and again
        self.spinning = False
        self._ready: deque[Waiter] = deque()
        self._timers: list[tuple[float, int, Waiter]] = []
        self._order = itertools.count()
        self._looks = 0
        self._spun_from = 0.0
        self._main = threading.get_ident()
        self._main_waiter: Waiter | None = None
        self._deadlock = False
        self._step_began = _thread_time()

    # --- what threads call ------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Pass the turn on until the waiter is woken; False where the time is up first."""
        return self.wait_until(waiter, None if timeout is None else self.now + max(timeout, 0.0))

    def wait_until(self, waiter: Waiter, when: float | None) -> bool:
        """Wait as `wait` does, until a time."""
        if when is not None:
            heapq.heappush(self._timers, (when, next(self._order), waiter))
        self._switch(waiter)
        return waiter.woken

    def wake(self, waiter: Waiter) -> None:
        """Let a thread that waits run, after those that may already."""
        if not waiter.done:
            waiter.done = waiter.woken = True
            self._ready.append(waiter)

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self.wait(Waiter(), seconds)

    def give_way(self) -> None:
        """Let the others that may run go first, if there are any."""
        if self._ready:
            waiter = Waiter()
            self.wake(waiter)
            self._switch(waiter)
        self._look()

    def leave(self) -> None:
        """Pass the turn on at the end of a thread."""
        self._end_step()
        if (following := self._next()) is not None:
            following.baton.release()

    def read(self) -> float:
        """Return the time, which a program looks at."""
        self._look()
        return self.now

    def computed(self) -> float:
        """Return the CPU seconds up to now of steps that compute: these took no virtual time."""
        self._end_step()
        self._step_began = _thread_time()
        return self._computed_s

    # --- whose turn it is -------------------------------------------------------------------------

    def _switch(self, waiter: Waiter) -> None:
        main = threading.get_ident() == self._main
        if main:
            self._main_waiter = waiter
        self._end_step()
        following = self._next()
        if following is not waiter:
            if following is not None:
                following.baton.release()
            waiter.baton.acquire()
        self._step_began = _thread_time()
        if main:
            self._main_waiter = None
            if self._deadlock:
                self._deadlock = False
                raise RuntimeError(_DEADLOCK)

    def _next(self) -> Waiter | None:
        """Return who runs now; the clock jumps if that takes a timer."""
        if self._ready:
            return self._ready.popleft()
        while self._timers:
            when, _, waiter = heapq.heappop(self._timers)
            if not waiter.done:
                waiter.done = True
                if when > self.now:
                    self.now = when
                    self._looks = 0
                return waiter
        self._deadlock = True
        if self._main_waiter is not None:
            self._main_waiter.done = True
        return self._main_waiter

    def _end_step(self) -> None:
        took = _thread_time() - self._step_began
        if took > _STEP_S:
            self._computed_s += took

    def _look(self) -> None:
        self._looks += 1
        if self._looks == _PATIENCE:
            self.spinning = True
            self._spun_from = _real_now()
        elif self._looks > _PATIENCE:
            # it goes on, in real time, so that it ends; nobody uses what comes of it
            real = _real_now()
            self.now += real - self._spun_from
            self._spun_from = real


current: Scheduler | None = None


class Lock:
    """A lock of threads that take turns: who waits longest gets it first."""

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[Waiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire as `threading.Lock` does."""
        if not self._held:
            self._held = True
            return True
        if not blocking or current is None:
            return False
        waiter = Waiter()
        self._waiters.append(waiter)
        if current.wait(waiter, None if timeout < 0 else timeout):
            return True
        self._waiters.remove(waiter)
        return False

    def release(self) -> None:
        """Release it, or hand it over."""
        if not self._held:
            raise RuntimeError("release unlocked lock")
        while self._waiters and current is not None:
            waiter = self._waiters.popleft()
            if not waiter.done:
                current.wake(waiter)
                return
        self._held = False

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


class _Started:
    """What `Thread.start` waits for: a real event, since both threads run for a moment."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._lock.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        with self._lock:
            return True

    def _at_fork_reinit(self) -> None:
        """Do nothing: nobody forks here."""


class Thread(threading.Thread):
    """A thread that runs when it is its turn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True  # one that waits for ever must not hold up the end of the process
        self._started: Any = _Started()
        self._turn = Waiter()
        self._over = False
        self._joining: list[Waiter] = []
        body = self.run
        self.run = lambda: self._in_turn(body)  # type: ignore[method-assign]

    def start(self) -> None:
        """Start it; it runs when the turn comes to it."""
        if current is None:
            raise RuntimeError("a thread of virtual time begins outside of it")
        super().start()
        current.wake(self._turn)

    def _in_turn(self, body: Callable[[], None]) -> None:
        self._turn.baton.acquire()
        assert current is not None
        current._step_began = _thread_time()
        try:
            body()
        finally:
            self._over = True
            for waiter in self._joining:
                current.wake(waiter)
            current.leave()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        if not self._over and current is not None:
            waiter = Waiter()
            self._joining.append(waiter)
            current.wait(waiter, timeout)

    def is_alive(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self._started.is_set() and not self._over
