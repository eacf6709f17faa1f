"""Find how many workers a pool should have: one change at a time, kept if it gained.

Nothing here reads a clock or moves a worker: `Tuner` takes what was measured, tick by tick, and
returns how many there should be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# A share of the workers' time that is spent waiting at a queue, from which on the queue's other
# side limits them.
WAITING: Final = 0.25

# How many standard errors of a difference are noise, and the least gain that is worth a worker.
_ERRORS: Final = 2.0
_LEAST_GAIN: Final = 0.03

# A measurement has at least so many ticks and items, unless they take too long.
_MIN_TICKS: Final = 5
_MIN_ITEMS: Final = 24
_WELL: Final = 30
_MAX_TICKS: Final = 60
_MAX_S: Final = 3.0

# Numbers that are this close to each other need no further trial between them.
_CLOSE: Final = 0.1

# Seconds to leave a number alone once nothing gains, and the most of it: it doubles each time.
_HOLD_S: Final = 15.0
_MAX_HOLD_S: Final = 120.0

# A change of throughput that no trial made, at which everything is measured again: a part of it,
# and standard errors. So many ticks are compared with those before.
_CHANGED: Final = 0.25
_CHANGED_ERRORS: Final = 4.0
_COMPARED: Final = 12


@dataclass(frozen=True)
class Tick:
    """What a pool did in a short time."""

    seconds: float
    # items that were done, failed ones too
    done: int
    # parts of all workers' time that they waited for input, and for room; 0 to 1
    idle: float
    blocked: float
    # seconds of work for each item; None if none was done
    service_s: float | None
    # why more workers cannot help, such as the GIL
    bound: str | None = None


class Rate:
    """The throughput of several ticks, and its standard error."""

    def __init__(self) -> None:
        self._ticks: list[Tick] = []

    def add(self, tick: Tick) -> None:
        """Add a tick, and forget what is long ago."""
        self._ticks.append(tick)
        del self._ticks[:-_MAX_TICKS]

    @property
    def seconds(self) -> float:
        """How long it was measured."""
        return sum(tick.seconds for tick in self._ticks)

    @property
    def value(self) -> float:
        """Items a second."""
        return sum(tick.done for tick in self._ticks) / self.seconds if self._ticks else 0.0

    def __str__(self) -> str:
        value = self.value
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    @property
    def error(self) -> float:
        """Return the standard error of `value`, from how much the ticks differ."""
        count, value = len(self._ticks), self.value
        if count < 2:
            return math.inf
        off = sum((tick.done - value * tick.seconds) ** 2 for tick in self._ticks)
        found = math.sqrt(off / (count - 1) * count) / self.seconds
        # a few ticks may be alike by chance; what arrives at random has twice this error
        return max(found, 0.5 * math.sqrt(value / self.seconds))

    @property
    def service_s(self) -> float | None:
        """Seconds of work for each item; None if none was done."""
        done = [(t.done, t.service_s) for t in self._ticks if t.service_s is not None]
        count = sum(n for n, _ in done)
        return sum(n * s for n, s in done) / count if count else None

    def waiting(self) -> tuple[float, float]:
        """Return the parts of the latest time spent waiting for input and for room."""
        latest = self._ticks[-2 * _MIN_TICKS :]
        seconds = sum(tick.seconds for tick in latest)
        return (
            sum(t.idle * t.seconds for t in latest) / seconds,
            sum(t.blocked * t.seconds for t in latest) / seconds,
        )

    def split(self, count: int) -> tuple[Rate, Rate] | None:
        """Return the rates of the last ticks and of those before; None if there are too few."""
        if len(self._ticks) < 2 * count:
            return None
        before, latest = Rate(), Rate()
        for number, tick in enumerate(self._ticks, start=1):
            (latest if number > len(self._ticks) - count else before).add(tick)
        return before, latest

    def is_enough(self, ticks: int = _MIN_TICKS) -> bool:
        """Tell whether it was measured for long enough to be judged."""
        if self.is_long():
            return True
        return len(self._ticks) >= ticks and self.value * self.seconds >= _MIN_ITEMS

    def is_long(self) -> bool:
        """Tell whether measuring for longer would take too long."""
        # items that take long need longer
        most = max(_MAX_S, 6 * (self.service_s or 0.0))
        return len(self._ticks) >= _MAX_TICKS or (
            len(self._ticks) >= _MIN_TICKS and self.seconds >= most
        )


class Tuner:
    """Decide how many workers there are, from what they get done."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        # the number that is kept, and the one that is there now
        self._kept = self.count = low
        self._rates: dict[int, Rate] = {low: Rate()}
        # what the last change told; for the report
        self.why = "the lowest number"
        # numbers to try next to the kept one lie between these, which did not gain
        self._below, self._above = low - 1, high + 1
        # whether more workers than the kept number were worse, and not only no better
        self._fell = False
        # throughput fell while nothing was changed: there may be too many now
        self._down_first = False
        # only one number is tried
        self._once = False
        # ticks since the last look for a change
        self._unseen = 0
        self._hold_s = _HOLD_S
        self._held_s: float | None = None
        self._skip_s = 0.0

    def tick(self, tick: Tick) -> int:
        """Take what was measured; return how many workers there should be from now on."""
        if self._skip_s > 0:
            # what those before the change had begun is done
            self._skip_s -= tick.seconds
            return self.count
        rate = self._rates[self.count]
        rate.add(tick)
        if self.count != self._kept:
            self._judge(rate, tick)
        elif self._held_s is None:
            # to find a small gain, after a large one was not found, takes a better measurement
            if rate.is_enough(_WELL if self._above <= self._high else _MIN_TICKS):
                self._try_next(rate, tick)
        else:
            self._held_s += tick.seconds
            self._watch(rate)
        return self.count

    def _judge(self, rate: Rate, tick: Tick) -> None:
        """Keep the number on trial, go back, or go on measuring."""
        before = self._rates[self._kept]
        gain = rate.value - before.value
        noise = _ERRORS * math.hypot(rate.error, before.error)
        told = f"{rate} items/s with {self.count}, {before} with {self._kept}"
        if tick.bound is not None and self.count > self._kept:
            self._go_back(tick.bound, fell=False)
        elif not rate.is_enough():
            return
        elif gain > max(noise, _LEAST_GAIN * before.value):
            if self.count > self._kept:
                self._below, self._fell = max(self._below, self._kept), False
            else:
                self._above, self._fell = min(self._above, self._kept), True
            self._kept, self._once = self.count, False
            self._hold_s = _HOLD_S
            self._try_next(rate, tick)
        elif -gain > noise:
            self._go_back(f"worse: {told}", fell=True)
        elif rate.is_long():
            self._go_back(f"no gain: {told}", fell=False)

    def _go_back(self, why: str, *, fell: bool) -> None:
        if self.count > self._kept:
            self._above = min(self._above, self.count)
            self._fell = self._fell or fell
        else:
            self._below = max(self._below, self.count)
        if self._once:
            self._held_s = 0.0
        self._change(self._kept, why)

    def _try_next(self, rate: Rate, tick: Tick) -> None:
        """Try another number, if the evidence allows it and one is left."""
        self._held_s = None
        free = self._may_widen(rate, tick)
        wanted = self._fewer() if self._down_first else None
        self._down_first = False
        if wanted is None and free:
            wanted = self._more()
        if wanted is None and self._fell:
            wanted = self._fewer()
        if wanted is None:
            # where only the evidence forbids it, what comes next is looked at
            self._held_s = 0.0 if free else None
            return
        idle, blocked = rate.waiting()
        waits = f"they wait for {100 * (idle + blocked):.0f} % of the time"
        self._change(wanted, f"a trial: {rate} items/s with {self._kept}, {waits}")

    def _fewer(self) -> int | None:
        """Return a smaller number to try: half way to one that did not gain."""
        if self._kept - self._below <= self._close():
            return None
        wanted = max(self._low, (self._kept + self._below) // 2)
        return wanted if wanted < self._kept else None

    def _more(self) -> int | None:
        """Return a larger number to try: twice as many, or half way to one that did not gain."""
        wanted = min(2 * self._kept, self._high)
        if self._above <= self._high:
            if self._above - self._kept <= self._close():
                return None
            wanted = min(wanted, (self._kept + self._above) // 2)
        return wanted if wanted > self._kept else None

    def _close(self) -> float:
        return max(1.0, _CLOSE * self._kept)

    def _may_widen(self, rate: Rate, tick: Tick) -> bool:
        return tick.bound is None and max(rate.waiting()) < WAITING

    def _change(self, count: int, why: str) -> None:
        service_s = self._rates[self.count].service_s or 0.0
        self.count, self.why = count, why
        if count not in self._rates or count != self._kept:
            self._rates[count] = Rate()
        self._skip_s = min(2 * service_s, _MAX_S)

    def _watch(self, rate: Rate) -> None:
        """Begin again after a while, or once something else has changed."""
        if self._held_s is not None and self._held_s >= self._hold_s:
            self._hold_s = min(2 * self._hold_s, _MAX_HOLD_S)
            # one trial, which may be for nothing, and no search
            self._begin_again()
            self._once = True
            return
        self._unseen += 1
        if self._unseen < _COMPARED or (parts := rate.split(_COMPARED)) is None:
            return
        self._unseen = 0
        before, latest = parts
        change = latest.value - before.value
        noise = _CHANGED_ERRORS * math.hypot(latest.error, before.error)
        if abs(change) > max(noise, _CHANGED * before.value):
            self._hold_s = _HOLD_S
            self._rates[self._kept] = latest
            self._begin_again()
            self._down_first = change < 0

    def _begin_again(self) -> None:
        self._below, self._above = self._low - 1, self._high + 1
        self._fell = self._once = False
        self._unseen = 0
        self._held_s = None
