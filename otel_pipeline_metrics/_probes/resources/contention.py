"""Sample at random moments whether the GIL is held, and whether a thread must wait for a CPU.

A thread sleeps for random times and looks at what happens when it wakes. The times between its
moments are exponentially distributed, so the share of the moments at which something holds is the
share of the time (Wolff 1982, "Poisson arrivals see time averages").

- The GIL: a thread that wakes needs it. A sleep is one voluntary context switch. If another thread
  holds the GIL, the waking one blocks again, which is at least one more. The kernel counts them for
  each thread, so nothing depends on how late a timer, a virtual machine or a busy CPU was.
- The machine: the second number of `/proc/thread-self/schedstat` is the time in nanoseconds that
  the thread was ready to run and had no CPU.

Both are read of the sampling thread alone.
"""

from __future__ import annotations

import os
import sys
from time import thread_time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


MEAN_PAUSE_S: Final = 0.1

# The share of a core that the moments may take. One costs 0.05 to 0.15 ms of CPU time, depending on
# what the machine's caches lost during the sleep; if that is too much, there are fewer of them.
BUDGET: Final = 0.0008

# Reading schedstat costs more than the rest of a moment.
_SCHEDSTAT_EVERY: Final = 2

# A share of fewer moments is unknown: its standard error may be more than 0.07.
MINIMUM_SAMPLES: Final = 50

# A thread that finds a free CPU waits for a few microseconds; one that does not, for milliseconds.
_WAITED_NS: Final = 100_000

_SCHEDSTAT: Final = "/proc/thread-self/schedstat"


class Contention(NamedTuple):
    """Counts of moments; they only rise."""

    gil_samples: int = 0
    gil_held: int = 0
    cpu_samples: int = 0
    cpu_waited: int = 0

    def since(self, before: Contention) -> Contention:
        """Return the counts since earlier ones of the same sampler."""
        return Contention(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def gil_held_share(self) -> float | None:
        """The share of time in which another thread holds the GIL, 0 to 1; None is unknown."""
        return _share(self.gil_held, self.gil_samples)

    @property
    def run_delay_share(self) -> float | None:
        """The share of moments at which a ready thread has no CPU, 0 to 1; None is unknown."""
        return _share(self.cpu_waited, self.cpu_samples)


def _share(part: int, of: int) -> float | None:
    return part / of if of >= MINIMUM_SAMPLES else None


class ContentionSampler:
    """The random moments of one thread, and what it found at them."""

    def __init__(self) -> None:
        from random import Random

        # replaced as a whole, so that other threads read counts that belong together
        self.counts = Contention()
        # not the module's own generator, whose sequence is the program's
        self._random = Random()  # noqa: S311 - keeps no secrets
        self._moments = 0
        # CPU seconds of this thread for its moments
        self._spent_s = 0.0

    def pause(self) -> float:
        """Return how many seconds to sleep before the next moment."""
        each_s = self._spent_s / self._moments if self._moments else 0.0
        return self._random.expovariate(1 / max(MEAN_PAUSE_S, each_s / BUDGET))

    def sample(self, sleep: Callable[[], bool]) -> bool:
        """Sleep until a moment, and count what the calling thread finds when it wakes.

        Args:
            sleep: sleeps without the GIL, for as long as `pause()` said. It returns True if it
                was woken earlier: that is no random moment.

        Returns:
            What `sleep` returned.
        """
        began = thread_time()
        self._moments += 1
        delay = None if self._moments % _SCHEDSTAT_EVERY else run_delay_ns()
        # last before the sleep and first after it, since reading a file releases the GIL too
        switches = voluntary_switches() if gil_enabled() else None
        if sleep():
            return True
        held = gil_samples = waited = cpu_samples = 0
        if switches is not None and (now := voluntary_switches()) is not None:
            # a kernel that does not count switches has none for the sleep either
            gil_samples = now > switches
            held = now > switches + 1
        if delay is not None and (now := run_delay_ns()) is not None:
            cpu_samples = 1
            waited = now - delay > _WAITED_NS
        before = self.counts
        self.counts = Contention(
            before.gil_samples + gil_samples,
            before.gil_held + held,
            before.cpu_samples + cpu_samples,
            before.cpu_waited + waited,
        )
        self._spent_s += thread_time() - began
        return False


def gil_enabled() -> bool:
    """Tell whether this interpreter has a GIL now."""
    enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or enabled()


def voluntary_switches() -> int | None:
    """Return how often the calling thread blocked so far; None where that is not counted."""
    try:
        from resource import RUSAGE_THREAD, getrusage
    except ImportError:  # macOS counts only whole processes, and Windows nothing
        return None
    return getrusage(RUSAGE_THREAD).ru_nvcsw


def run_delay_ns() -> int | None:
    """Return how long the calling thread was ready without a CPU; None where that is unknown."""
    try:
        # Opened each time: a kept descriptor would show a forked child its parent, and another
        # file in a program that closes all of them. `open()` costs twice as much.
        file = os.open(_SCHEDSTAT, os.O_RDONLY)
        try:
            ran, waited = map(int, os.read(file, 100).split()[:2])
        finally:
            os.close(file)
    except (OSError, ValueError):  # not Linux, or its /proc is hidden
        return None
    # a kernel that does not count them shows zeros
    return waited if ran else None
