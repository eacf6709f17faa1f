"""Sample at random moments whether the GIL is held, and whether a thread must wait for a CPU.

A thread sleeps for random times and looks at what happens when it wakes. The times between its
moments are exponentially distributed, so the share of the moments at which something holds is the
share of the time (Wolff 1982, "Poisson arrivals see time averages").

- The GIL: a thread that wakes needs it. A sleep is one voluntary context switch. If another thread
  holds the GIL, the waking one blocks again, which is at least one more. The kernel counts them for
  each thread, so nothing depends on how late a timer, a virtual machine or a busy CPU was.
- The machine: the second number of `/proc/thread-self/schedstat` is the time in nanoseconds that
  the thread was ready to run and had no CPU.

Both are facts about this thread. On Linux they are read from the thread alone, never from others.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable


# A moment costs 0.05 to 0.1 ms of CPU time: this is under a thousandth of a core.
MEAN_PAUSE_S: Final = 0.1

# Reading schedstat is half of that, so it is read at every second moment.
_SCHEDSTAT_EVERY: Final = 2

# A share of fewer moments is unknown: its standard error may be more than 0.07.
MINIMUM_SAMPLES: Final = 50

# A thread that finds a free CPU waits for a few microseconds; one that does not, for milliseconds.
_WAITED_NS: Final = 100_000

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class Contention:
    """Counts of moments; they only rise."""

    gil_samples: int = 0
    gil_held: int = 0
    cpu_samples: int = 0
    cpu_waited: int = 0

    def since(self, before: Contention) -> Contention:
        """Return the counts since earlier ones of the same sampler."""
        return Contention(
            self.gil_samples - before.gil_samples,
            self.gil_held - before.gil_held,
            self.cpu_samples - before.cpu_samples,
            self.cpu_waited - before.cpu_waited,
        )

    @property
    def gil_held_share(self) -> float | None:
        """The share of time in which another thread holds the GIL, 0 to 1; None is unknown."""
        return _share(self.gil_held, self.gil_samples)

    @property
    def run_delay_share(self) -> float | None:
        """The share of moments at which a ready thread has no CPU, 0 to 1; None is unknown."""
        return _share(self.cpu_waited, self.cpu_samples)


class ContentionSampler:
    """The moments of one thread, and what it found at them."""

    def __init__(self) -> None:
        # replaced as a whole, so that other threads read counts that belong together
        self.counts = Contention()
        self._moments = 0

    @staticmethod
    def pause() -> float:
        """Return how many seconds to sleep before the next moment."""
        # not from `random`, whose import takes milliseconds and whose sequence is the program's
        uniform = int.from_bytes(os.urandom(6), "big") / 2**48
        return -MEAN_PAUSE_S * math.log(1 - uniform)

    def sample(self, sleep: Callable[[], bool]) -> bool:
        """Sleep until a moment, and count what the calling thread finds when it wakes.

        Args:
            sleep: sleeps without the GIL, for as long as `pause()` said. It returns True if it
                was woken earlier: that is no random moment.

        Returns:
            What `sleep` returned.
        """
        self._moments += 1
        delay = switches = None
        with errors.suppress_errors("sampling the GIL and the machine"):
            delay = run_delay_ns() if self._moments % _SCHEDSTAT_EVERY == 0 else None
            # last, since reading a file releases the GIL too
            switches = voluntary_switches() if gil_enabled() else None
        if sleep():
            return True
        with errors.suppress_errors("sampling the GIL and the machine"):
            # first, for the same reason
            slept = None if switches is None else _since(switches, voluntary_switches())
            waited = None if delay is None else _since(delay, run_delay_ns())
            self._count(slept, waited)
        return False

    def _count(self, switches: int | None, waited_ns: int | None) -> None:
        before = self.counts
        # a kernel that does not count switches tells of none, not even of the sleep
        known, waits = bool(switches), waited_ns is not None
        self.counts = Contention(
            before.gil_samples + known,
            before.gil_held + (known and (switches or 0) > 1),
            before.cpu_samples + waits,
            before.cpu_waited + (waits and (waited_ns or 0) > _WAITED_NS),
        )


def gil_enabled() -> bool:
    """Tell whether this interpreter has a GIL now."""
    enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or enabled()


def voluntary_switches() -> int | None:
    """Return how often the calling thread blocked so far; None where it is not counted."""
    try:
        import resource

        # not on macOS, nor on Windows, which has no such module
        which = resource.RUSAGE_THREAD
    except (ImportError, AttributeError):
        return None
    return resource.getrusage(which).ru_nvcsw


def run_delay_ns() -> int | None:
    """Return how long the calling thread was ready without a CPU; None where that is unknown."""
    try:
        with _SCHEDSTAT.open("rb", buffering=0) as file:
            ran, waited = file.read().split()[:2]
    except OSError:  # not Linux, or its /proc is hidden
        return None
    # a kernel without these counts shows zeros
    return int(waited) if int(ran) else None


def _since(before: int, now: int | None) -> int | None:
    return None if now is None else now - before


def _share(part: int, of: int) -> float | None:
    return part / of if of >= MINIMUM_SAMPLES else None
