"""Who owes which pause while one stage is virtually faster, or really slower.

A stage is virtually faster if all others pause for a share of each of its calls (Curtsinger and
Berger, "Coz: finding code that counts with causal profiling", SOSP 2015). `total` is by how much
the stage is ahead so far. Each worker has to fall back by as much:

- The stage's own calls count as a pause for the worker that makes them. Of calls that overlap,
  the worker that is furthest ahead counts: `total` is a maximum, not a sum.
- A worker that waited for another one falls back during the wait, and as far as the other one is.
  Who waits at a wrapped queue or limit is seen; of other waits outside of stages, those that end as
  another worker's call begins or ends.
- A worker that is new was made by another one, and is as far as that.

Times are given, so all of this is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Cell

Mode = Literal["as it is", "faster", "slower"]

# The part of a call that is saved: the stage is twice as fast.
SAVED: Final = 0.5

# Seconds. Events of two workers that are closer belong together: one woke the other.
TOGETHER_S: Final = 1e-3
# So many of them are remembered.
REMEMBERED: Final = 500


class Payer:
    """A worker, and by how much it has fallen back."""

    __slots__ = ("ahead", "debt", "last", "open")

    def __init__(self, ahead: float, now: float) -> None:
        # seconds, to be compared with the ledger's `total`
        self.ahead = ahead
        # seconds to pause because its own stage is made slower
        self.debt = 0.0
        # when it began or ended a call last, and how many are in progress
        self.last = now
        self.open = 0


class _Progress:
    """A call in progress of the stage that the ledger is about."""

    __slots__ = ("cell", "inside", "mark", "payer", "waited")

    def __init__(self, cell: Cell, payer: Payer, now: float) -> None:
        self.cell = cell
        self.payer = payer
        # its own time is counted until then, and so are its waits
        self.mark = now
        self.waited = waits_of(cell)
        # calls of other stages in progress inside of it
        self.inside = 0


class Ledger:
    """The pauses that are owed during one window.

    Args:
        mode: what is done to the stage.
        began: `clock.now()` when the window began.
        added_s: by how many seconds each call of the stage gets longer, if it is made slower.
    """

    def __init__(self, mode: Mode, began: float, added_s: float = 0.0) -> None:
        self.mode = mode
        self.total = 0.0
        # the stage's calls that ended, and seconds that workers paused
        self.invocations = 0
        self.paused_s = 0.0
        self._added_s = added_s
        self._began = began
        # the calls that began and ended: when, by which worker, and how far that was
        self._event_times: list[float] = []
        self._events: list[tuple[int, float]] = []
        self._payers: dict[int, Payer] = {}
        self._progress: dict[int, _Progress] = {}

    def numbers(self) -> list[int]:
        """Return the numbers of the workers that came."""
        return list(self._payers)

    def owed(self, number: int) -> float:
        """Return the seconds that a worker should pause now."""
        payer = self._payers.get(number)
        if payer is None or self.mode == "as it is":
            return 0.0
        return payer.debt if self.mode == "slower" else max(0.0, self.total - payer.ahead)

    def paid(self, number: int, seconds: float, now: float) -> None:
        """Take a pause of a worker, which is over, into account."""
        payer = self._payers.get(number)
        if payer is None:
            return
        payer.ahead += seconds
        payer.last = now
        self.paused_s += seconds
        if self.mode == "slower":
            payer.debt = max(0.0, payer.debt - seconds)
            self.total = max(self.total, payer.ahead)

    def came(
        self, number: int, *, known: bool, waited_until: float, now: float, in_target: bool = False
    ) -> Payer:
        """Return the account of a worker that begins or ends a call.

        Args:
            number: of the worker.
            known: whether it was there before this window.
            waited_until: when its last wait at a wrapped queue or limit ended.
            now: the time.
            in_target: whether a call of the stage ends, whose waits `ends` takes into account.
        """
        payer = self._payers.get(number)
        if payer is None:
            payer = self._payers[number] = self._new(number, now, known=known)
        if self.mode == "faster" and not in_target:
            if waited_until > payer.last:
                self._woken(payer, waited_until - payer.last, self._waker(number, waited_until))
            elif not payer.open and now - payer.last > TOGETHER_S:
                waker = self._waker(number, now)
                if waker is not None:
                    self._woken(payer, now - payer.last, waker)
        payer.last = now
        return payer

    def _new(self, number: int, now: float, *, known: bool) -> Payer:
        if self.mode != "faster":
            return Payer(self.total, now)
        if known:
            return Payer(0.0, self._began)
        maker = self._waker(number, now)
        return Payer(self.total if maker is None else maker, now)

    def _waker(self, number: int, at: float) -> float | None:
        """Return how far another worker was that began or ended a call then; None without one."""
        index = bisect_left(self._event_times, at - TOGETHER_S)
        found, nearest = None, TOGETHER_S
        # of several at once, the first one is the cause and the others are woken too
        while index < len(self._events) and self._event_times[index] <= at + TOGETHER_S:
            (who, ahead), apart = self._events[index], abs(self._event_times[index] - at)
            if who != number and (found is None or apart < nearest):
                found, nearest = ahead, apart
            index += 1
        return found

    def _woken(self, payer: Payer, waited_s: float, waker: float | None) -> None:
        """Let a worker fall back during a wait: to where the one is that woke it, if it is seen."""
        payer.ahead = min(payer.ahead + waited_s, self.total if waker is None else waker)

    def _note(self, number: int, payer: Payer, now: float) -> None:
        """Remember an event, for those that it wakes."""
        self._event_times.append(now)
        self._events.append((number, payer.ahead))
        if len(self._events) > 2 * REMEMBERED:
            del self._event_times[:REMEMBERED], self._events[:REMEMBERED]

    def begins(self, cell: Cell, number: int, payer: Payer, now: float, *, is_target: bool) -> None:
        """Note a call that begins, before it pauses."""
        self._note(number, payer, now)
        payer.open += 1
        around = self._progress.get(id(cell[4]))
        if around is not None:
            if not around.inside:
                self._count(around, now)
            around.inside += 1
        if is_target:
            if self.mode == "slower":
                payer.debt += self._added_s
            self._progress[id(cell)] = _Progress(cell, payer, now)

    def ends(
        self,
        cell: Cell,
        number: int,
        payer: Payer,
        waited_until: float,
        now: float,
        *,
        is_target: bool,
    ) -> None:
        """Note a call that ends or pauses."""
        payer.open = max(0, payer.open - 1)
        around = self._progress.get(id(cell[4]))
        if around is not None and around.inside:
            around.inside -= 1
            if not around.inside:
                around.mark, around.waited = now, waits_of(around.cell)
        if is_target:
            self.invocations += 1
            found = self._progress.pop(id(cell), None)
            if found is None:
                # it began before the window
                found = _Progress(cell, payer, max(cell[2], self._began))
            if not found.inside:
                self._count(found, now, number, waited_until)
        self._note(number, payer, now)

    def mark(self, now: float) -> float:
        """Count what calls in progress have done until now; return `total`."""
        for found in list(self._progress.values()):
            worker = found.cell[7]
            # a wait in progress is not counted yet, so neither is what went before it
            if not found.inside and (worker is None or not worker.waits):
                self._count(found, now)
        return self.total

    def _count(
        self, found: _Progress, now: float, number: int = -1, waited_until: float = 0.0
    ) -> None:
        """Count the own time of a call since its mark: its worker is ahead by a share of it."""
        waits = waits_of(found.cell)
        # a thread pauses before the call begins
        since = max(found.mark, found.cell[2])
        waited_s = max(0.0, waits - found.waited)
        own_s = max(0.0, now - since - waited_s)
        found.mark, found.waited = now, waits
        if self.mode != "faster":
            return
        payer, after_s = found.payer, own_s
        if number >= 0 and waited_until > since:
            after_s = min(own_s, max(0.0, now - waited_until))
            payer.ahead += SAVED * (own_s - after_s)
            self._woken(payer, waited_s, self._waker(number, waited_until))
        payer.ahead += SAVED * after_s
        self.total = max(self.total, payer.ahead)


def waits_of(cell: Cell) -> float:
    """Return the seconds that a call has waited at queues and limits so far."""
    execution = cell[3]
    return 0.0 if execution is None else float(execution.idle + execution.blocked)
