"""Look closely at some calls: what of their time runs, what awaits, and what uses a CPU.

A coroutine is driven step by step, with a look at the clock before and after each: what lies
between is the time on the event loop. The thread's CPU clock costs as much as a whole call, so it
is read in fewer calls. How many calls pass until the next sample is drawn at random, so that no
pattern of the program's can hide from it.
"""

from __future__ import annotations

import random
import threading
import types
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks
from otel_pipeline_metrics._core.account import Sample
from otel_pipeline_metrics._core.drain import drain_series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.series import PENDING_BOUND
from otel_pipeline_metrics._core.stage_time import ALL_SAMPLED
from otel_pipeline_metrics._stages.workers.worker import owner_here

if TYPE_CHECKING:
    from collections.abc import Generator

    from otel_pipeline_metrics._core.series import Cell, Series


# One call in so many has its CPU time read.
CPU_READ: Final = 256

# Seconds. Of a slower stage every call is a sample: it costs less than a thousandth.
SLOW_COROUTINE_S: Final = 1e-3
# Two readings of the CPU clock take 1 to 3 µs, see `facts`: less than a hundredth of that.
SLOW_FUNCTION_S: Final = 250e-6

_STEPPED_FORMS: Final = ("coroutine", "async step", "async generator")

# An event loop needs this from one step to the next, if that is ready. Beside that, a tenth of a
# spell is taken to be no wait either.
BETWEEN_STEPS_S: Final = 100e-6

# Not the program's generator, whose sequence may be seeded.
_random = random.Random()  # noqa: S311 - draws samples, no secrets
# a child draws other numbers than its parent
forking.in_child(_random.seed)


class _Spell:
    """A time in which an event loop went from step to step, without waiting for one."""

    __slots__ = ("began", "ended", "held", "waited")

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        # seconds of its steps, and of longer times between them
        self.held = self.waited = 0.0

    def enter(self, now: float) -> None:
        """Begin a step, outside of all others."""
        gap = now - self.ended
        if gap > BETWEEN_STEPS_S:
            self.waited += gap
        if self.waited > self.held / 10 or gap < 0:
            # the loop waited in between, or its clock was set back
            self.began, self.held, self.waited = now, 0.0, 0.0

    def leave(self, began: float, now: float) -> None:
        """End a step."""
        self.held += now - began
        self.ended = now


class _Loop(threading.local):
    """The event loop of a thread."""

    def __init__(self) -> None:
        self.spell = _Spell()


_loop = _Loop()


class Watch:
    """A call in progress that is a sample."""

    __slots__ = (
        "cpu", "cpu_began", "in_flight", "is_outermost", "late", "left", "owner", "running",
        "spawned", "stepping", "weight",
    )  # fmt: skip

    def __init__(self, in_flight: int, owner: object, weight: float) -> None:
        self.in_flight = in_flight
        self.owner = owner
        self.weight = weight
        # of the steps that are over, when the last one ended, and when the one in progress began
        self.running: float | None = None
        self.left: float | None = None
        self.stepping: float | None = None
        # whether no other sample is around it in its task
        self.is_outermost = True
        # up to the steps that began, while others held the event loop
        self.late = 0.0
        self.cpu: float | None = None
        self.cpu_began: float | None = None
        self.spawned: bool | None = None

    def enter(self, spell: _Spell, began: float) -> None:
        """Begin a step."""
        self.stepping = began
        if self.is_outermost:
            spell.enter(began)
        if self.left is not None:
            self.late += max(0.0, began - max(spell.began, self.left))

    def leave(self, spell: _Spell, began: float, now: float) -> None:
        """End a step."""
        self.left = now
        self.running = (self.running or 0.0) + now - began
        if self.is_outermost:
            spell.leave(began, now)
        self.stepping = None


def wake(cell: Cell, *, known: bool = False) -> None:
    """Do what is due as a call begins: make it a sample, or have its end look for a flush."""
    series = cell[0]
    if next(series.due, None) is not None:
        # of a caller that another one's calls came before, see `MAX_PAIRS`, or another thread
        series.give_turns(cell[4][0])
    elif series.stage.form == "task block":
        # what of its time runs is unknown, so none is a sample; each looks for a flush at its end
        series.let_pass(PENDING_BOUND)
    elif series.until_due:
        arm(series)
    else:
        begin(cell, known=known)


def arm(series: Series) -> None:
    """Let calls report their duration only, until a batch is full or the next one is a sample."""
    plain = min(series.until_due, max(0, PENDING_BOUND - 1 - len(series.durations)))
    series.until_due -= plain
    series.let_pass(plain)


def begin(cell: Cell, *, known: bool = False) -> None:
    """Make a call that begins a sample, and draw the next one. Never raises.

    Args:
        cell: of the call.
        known: whether the calls in progress include it already.
    """
    try:
        series: Series = cell[0]
        stepped = series.stage.form in _STEPPED_FORMS
        everyone = series.sampled < ALL_SAMPLED or series.mean_s > (
            SLOW_COROUTINE_S if stepped else SLOW_FUNCTION_S
        )
        series.sampled += 1
        # drawn one in so many, unless all calls are samples now
        weight = 1.0
        if not everyone:
            weight = float(series.drawn_one_in)
            _draw(series, series.one_in if stepped else CPU_READ)
        watch = cell[6] = Watch(_in_flight(cell) + (not known), owner_here(), weight)
        around = cell[4][6]
        if around is not None:
            watch.spawned = around.owner != watch.owner
        above = cell[4]
        while above is not None and above[6] is None:
            above = above[4]
        watch.is_outermost = above is None or above[6].owner != watch.owner
        if everyone or not stepped or _random.random() * CPU_READ < series.one_in:
            watch.cpu = 0.0
            watch.cpu_began = None if stepped else clock.cpu()
    except Exception:
        errors.log_internal_error("beginning a sample")


def _in_flight(cell: Cell) -> int:
    """Return the calls of a stage in progress, but for one that is just about to begin."""
    parent, variants = cell[4], cell[0].variants
    if (parent[5] is None or parent[5] is cell) and parent[4] is None:
        # no call is open outside of those that are kept
        return sum([len(each.kept) for each in variants])
    return sum([each.active for each in variants])


def _draw(series: Series, one_in: int) -> None:
    """Draw how many calls or steps pass until the next sample."""
    gap = _gap(one_in)
    series.drawn_one_in = one_in
    series.until_sample = gap
    # one fewer, so that the intervals of a thousand calls are as narrow as is promised
    series.until_due = max(0, gap - 1)
    arm(series)


def end(cell: Cell, elapsed: float, now: float) -> None:
    """Keep what a sample showed.

    Args:
        cell: of the call, which is over.
        elapsed: its duration without waits.
        now: when it ended.
    """
    watch: Watch = cell[6]
    series: Series = cell[0]
    cell[6] = None
    if watch.cpu_began is not None:
        watch.cpu = clock.cpu() - watch.cpu_began
        if watch.owner is not None and watch.is_outermost:
            # a plain function on an event loop
            _loop.spell.enter(cell[2])
            _loop.spell.leave(cell[2], cell[2] + elapsed)
    if watch.running is not None and watch.left is not None:
        # what it takes to end a call is no suspension
        watch.running += now - watch.left
    series.mean_s += (elapsed - series.mean_s) / min(16, series.sampled)
    series.samples.append(
        Sample(
            elapsed,
            watch.running,
            watch.cpu,
            watch.in_flight,
            watch.spawned,
            watch.weight,
            CPU_READ,
            watch.owner if isinstance(watch.owner, int) else None,
            watch.late,
        )
    )
    if len(series.samples) >= PENDING_BOUND:
        # of a generator that goes on for long: no call of its series ends meanwhile
        drain_series(series.whole or series)


def _gap(mean: int) -> int:
    """Draw how many calls pass until the next sample, one in `mean` on average."""
    return int(_random.random() * (2 * mean - 1))


def driven(cell: Cell, coroutine: Any) -> Any:
    """Return an awaitable that drives the coroutine of a call and measures its steps."""
    if not hasattr(coroutine, "send"):
        return coroutine
    paused = coroutine if hooks.pausing is None else hooks.pausing(coroutine)
    return _steps(cell[6], paused, cell[2])


@types.coroutine
def _steps(watch: Watch, coroutine: Any, began: float) -> Generator[Any, Any, Any]:
    now, cpu = clock.now, clock.cpu
    reads_cpu = watch.cpu is not None
    watch.running = 0.0
    spell = _loop.spell
    step, given, began_cpu = coroutine.send, None, 0.0
    while True:
        if reads_cpu:
            began_cpu = cpu()
        # the first one is from the call's begin on, since what precedes it is no suspension
        if watch.left is not None:
            began = now()
        watch.enter(spell, began)
        try:
            awaited = step(given)
        except StopIteration as over:
            return over.value
        except BaseException:
            # avoids a cycle: the error's traceback holds this frame, and they hold the error
            coroutine = step = given = None
            raise
        finally:
            watch.leave(spell, began, now())
            if reads_cpu:
                watch.cpu += cpu() - began_cpu  # type: ignore[operator]
        try:
            step, given = coroutine.send, (yield awaited)
        except BaseException as error:  # the coroutine handles it, cancellation too
            step, given = coroutine.throw, error
        del awaited
