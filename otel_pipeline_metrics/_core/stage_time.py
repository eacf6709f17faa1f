"""Derive the time of a stage in each state from what its series counted.

Only the holder of the drain lock calls `take` and `since_reported`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_pipeline_metrics._core import clock, nesting
from otel_pipeline_metrics._core.abandoned import abandon, was_left
from otel_pipeline_metrics._core.overlap import Overlap
from otel_pipeline_metrics._core.records import NOTHING, Progress, StageTime
from otel_pipeline_metrics._core.series import not_kept
from otel_pipeline_metrics._core.stage_id import RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_pipeline_metrics._core.account import Account
    from otel_pipeline_metrics._core.records import StageResult, TimeInStates, Times
    from otel_pipeline_metrics._core.series import Cell, RunScope, Series


T = TypeVar("T")

# The first calls of a series are all samples.
ALL_SAMPLED: Final = 100

# Of later ones, one in so many is driven step by step: few, while the parts of the stage's time
# are known to within this standard error, which is 5 % for two of them. But fewer only as there are
# more calls, one in this part of them: later calls may differ from all those before.
FEW: Final = 128
MANY: Final = 8
WELL_KNOWN: Final = 0.025
_LATER: Final = 1 / 32


def take(
    series: Series, count: int, seconds: float, finished: Sequence[tuple[StageResult, Any]]
) -> tuple[Sequence[StageResult], Sequence[Progress]]:
    """Add finished calls, and what was noted beside them, to the series' account.

    Args:
        series: whose calls.
        count: how many have only a duration.
        seconds: the sum of their durations.
        finished: the others.

    Returns:
        The results, and what calls in progress have counted, which is left out of theirs later.
    """
    account = series.account
    account.count += count + len(finished)
    account.ended += seconds
    results = [_taken(series, *each) for each in finished] if finished else ()
    both = (series, *series.pulled) if series.pulled else (series,)
    progress: Sequence[Progress] = ()
    if series.whole is None and (account.has_partial or series.kept or not_kept(series.scope)):
        in_progress = series.open
        if in_progress or account.has_partial:
            progress = _look_at_open(series, in_progress)
    for each in both:
        if each.samples:
            each.account.take(pop_front(each.samples))
        if each.account.running.count:
            _choose_rate(each)
    return results, progress


def _taken(series: Series, result: StageResult, details: Any) -> StageResult:
    """Add a finished call to the account; return what it has to report."""
    account = series.account
    if details is None or not details.pulls:
        account.ended += result.busy_s
        account.idle += result.idle_s
        account.blocked += result.blocked_s
    else:
        whole = result.busy_s, result.idle_s, result.blocked_s
        for each, ended, idle, blocked in _by_puller(series, details, *whole):
            each.account.ended += ended
            each.account.idle += idle
            each.account.blocked += blocked
    before = account.seen.pop(details, None) if account.seen else None
    return result if before is None else result._replace(reported=before)


def _by_puller(
    series: Series, details: Any, open_s: float, idle: float, blocked: float
) -> Iterator[tuple[Series, float, float, float]]:
    """Share out the time of a call of a series: that of a generator by who pulled its items."""
    pulls = {} if details is None else details.pulls
    if not pulls:
        yield series, open_s, idle, blocked
        return
    parts = list(pulls.items())
    waited = sum([part.waited_s for _, part in parts])
    for each, part in parts:
        share = part.waited_s / waited if waited else 1 / len(parts)
        yield each, part.open_s, idle * share, blocked * share


def saved(series: Series) -> tuple[Any, ...]:
    """Return the sums that a batch changes, for `restore`."""
    account, times = series.account, series.times
    return (
        account.count, account.ended, account.idle, account.blocked,
        dict(account.seen) if account.seen else None,
        times.reported, times.reported_cpu_s, series.exemplars, series.slowest,
        [(a, a.ended, a.idle, a.blocked) for a in [each.account for each in series.pulled]]
        if series.pulled else (),
    )  # fmt: skip


def restore(series: Series, before: tuple[Any, ...]) -> None:
    """Set the sums to what they were before a batch that was interrupted."""
    account, times = series.account, series.times
    (
        account.count, account.ended, account.idle, account.blocked, seen,
        times.reported, times.reported_cpu_s, series.exemplars, series.slowest, pulled,
    ) = before  # fmt: skip
    account.seen = seen or {}
    for each, *sums in pulled:
        each.ended, each.idle, each.blocked = sums


def _choose_rate(series: Series) -> None:
    """Take fewer samples while the parts of the stage's time are well known."""
    running = series.account.running
    whole = series.account.ended + series.account.partial - series.account.partial_sampled
    found = running.estimate(whole)
    is_known = found is not None and found[1] <= WELL_KNOWN * whole
    series.one_in = max(MANY, min(FEW, int(_LATER * running.calls))) if is_known else MANY


def _look_at_open(series: Series, in_progress: list[Cell]) -> list[Progress]:
    """Add what calls in progress have done so far."""
    account, now = series.account, clock.now()
    for each in (series, *series.pulled):
        each.account.forget_partial()
    account.has_partial = bool(in_progress)
    progress = []
    for entry in in_progress:
        if was_left(entry):
            abandon(entry, here=False)
            continue
        execution = entry[3]
        # of a generator that is not between two items, the step in progress
        step = entry if execution is None else execution.cell
        cell = entry if step[1] is None else step
        here = cell[0].account
        elapsed = step_so_far(cell, now)
        here.partial += elapsed
        here.excess += nesting.excess_so_far(cell, now)
        whole = now - cell[2] if cell[1] is not None and cell[2] else 0.0
        _look_at_sample(here, cell, now)
        if execution is None:
            here.partial_wait += max(0.0, whole - elapsed)
            continue
        waited = execution.idle + execution.blocked - execution.waited
        here.partial_wait += max(0.0, whole - waited - elapsed)
        details, before_s = execution.details, execution.before()
        for each, ended, idle, blocked in _by_puller(
            series, details, before_s, execution.idle, execution.blocked
        ):
            each.account.partial += ended
            each.account.partial_idle += idle
            each.account.partial_blocked += blocked
        if details is None:
            continue
        counts, before = details.totals(), account.seen.get(details, NOTHING)
        if counts != before:
            account.seen[details] = counts
            progress.append(Progress(counts.since(before), details.attributes))
    return progress


def _look_at_sample(account: Account, cell: Cell, now: float) -> None:
    """Add what a sample in progress has shown; of a generator, it is the current step."""
    watch = cell[6]
    if watch is None or watch.running is None or cell[1] is None:
        return
    elapsed = step_so_far(cell, now)
    stepping = watch.stepping
    running = watch.running
    if stepping is not None:
        running += max(0.0, _open_until(cell, now) - stepping)
    account.partial_sampled += elapsed
    account.partial_running += min(running, elapsed)


def pop_front(waiting: list[T]) -> list[T]:
    """Remove and return what a list holds.

    Nothing is lost: others append at the end, and only the holder of the lock deletes.
    """
    taken = waiting[:]
    del waiting[: len(taken)]
    return taken


def step_so_far(cell: Cell, now: float) -> float:
    """Return how long a call has been open since it began, or since a generator was resumed."""
    execution = cell[3]
    has_begun = cell[1] is not None and cell[2]
    seconds = _open_until(cell, now) - cell[2] if has_begun else 0.0
    if execution is not None:
        seconds -= execution.idle + execution.blocked - execution.waited
    return max(0.0, seconds)


def _open_until(cell: Cell, now: float) -> float:
    """Return when a call in progress began to wait, or the time now."""
    inside = cell[5]
    return inside.closed_at if isinstance(inside, Overlap) and not inside.is_open else now


def of_stage(series: Series, states: Iterable[TimeInStates] = ()) -> StageTime:
    """Return the time of a stage, of which this is one series, in its scope.

    Args:
        series: one of the stage's.
        states: the time of each of its workers, if their waits are known.
    """
    variants = series.variants
    running = awaiting = unknown = 0.0
    for each in variants:
        if _is_inside_itself(each):
            # its worker's time counts once
            continue
        whole = each.account.ended + each.account.partial
        found = running_of(each, whole)
        if found is None:
            unknown += whole
        else:
            running += found[0]
            awaiting += whole - found[0]
    if not states:
        accounts = [each.account for each in variants]
        idle = sum(account.idle + account.partial_idle for account in accounts)
        blocked = sum(account.blocked + account.partial_blocked for account in accounts)
        return StageTime(running, awaiting, unknown, idle, blocked)
    inside = between_thread = between_task = idle = blocked = 0.0
    for spent in states:
        inside += spent.busy - spent.between
        if spent.is_task:
            between_task += spent.between
        else:
            between_thread += spent.between
        idle += spent.idle
        blocked += spent.blocked
    calls = running + awaiting + unknown
    share = inside / calls if calls else 0.0
    if not calls:
        unknown, share = inside, 1.0
    return StageTime(
        running * share + between_thread, awaiting * share, unknown * share + between_task,
        idle, blocked,
    )  # fmt: skip


def _is_inside_itself(series: Series) -> bool:
    """Tell whether its calls are inside of a call of their own stage, in the same worker."""
    own, each = series.stage.identity, series
    if own not in series.inside_of:
        return False
    while each.around is not None and not each.account.is_spawned:
        each = each.around
        if each.stage.identity == own:
            return True
    return False


def running_of(series: Series, whole: float) -> tuple[float, float] | None:
    """Return the seconds of its calls that ran, and their standard error; None if unknown."""
    form = series.stage.form
    if form in RUNS:
        return whole, 0.0
    if form in ("task block", "by hand"):
        return None
    account = series.account
    rest = whole - account.partial_sampled
    found = account.running.estimate(0.0 if rest <= 1e-9 * whole else rest)
    return None if found is None else (found[0] + account.partial_running, found[1])


def since_reported(series: Series) -> Times:
    """Return what was added to the stage's time since the last batch.

    Estimates may change, but what was added to a counter cannot be taken back. So what was added
    to the whole is shared out to bring the states as close as possible to the estimates.
    """
    times, account = series.times, series.account
    before = times.reported
    if (
        len(times.variants) < 2
        and series.runs
        and not times.queued
        and not (before[1] or before[2])
    ):
        # for most stages the same as the general way
        now = (
            account.ended + account.partial, 0.0, 0.0,
            account.idle + account.partial_idle, account.blocked + account.partial_blocked,
        )  # fmt: skip
        if now[0] < before[0] or now[3] < before[3] or now[4] < before[4]:
            now = (max(before[0], now[0]), 0.0, 0.0, max(before[3], now[3]), max(before[4], now[4]))
        times.reported = now
        return now[0] - before[0], 0.0, 0.0, now[3] - before[3], now[4] - before[4]
    now = of_stage(series, list(times.states.values()) if times.queued else ())
    wanted = [max(0.0, new - old) for new, old in zip(now, before, strict=True)]
    added = max(0.0, sum(now[:3]) - sum(before[:3]))
    split = sum(wanted[:3])
    shares = [each * added / split if split else 0.0 for each in wanted[:3]]
    if added and not split:
        shares[2] = added
    delta = (shares[0], shares[1], shares[2], wanted[3], wanted[4])
    times.reported = StageTime(*[old + more for old, more in zip(before, delta, strict=True)])
    return delta


def cpu_since_reported(series: Series) -> float:
    """Return the CPU seconds that were added to the stage's since the last batch."""
    times, account = series.times, series.account
    # for most stages the same as the general way
    alone = len(times.variants) < 2 and not series.called
    now = account.cpu.part_of(account.ended + account.partial) if alone else own_cpu(series)
    if now is None or now <= times.reported_cpu_s:
        return 0.0
    added = now - times.reported_cpu_s
    times.reported_cpu_s += added
    return added


def cpu_of(series: Series) -> float | None:
    """Return the CPU seconds of its calls, with the stages inside; None if unknown."""
    account = series.account
    return account.cpu.part_of(account.ended + account.partial)


def own_cpu(series: Series) -> float | None:
    """Return the CPU seconds of a stage, less those of the stages inside; None if unknown."""
    variants = series.variants
    # of a generator, the time may all be in the series of its steps
    timed = [each for each in variants if each.account.ended or each.account.partial]
    found = [cpu_of(each) for each in timed or variants]
    known = [seconds for seconds in found if seconds is not None]
    if not known:
        return None
    inside = 0.0
    for each in _called(series):
        if not each.account.is_spawned:
            inside += cpu_of(each) or 0.0
    return max(0.0, sum(known) - inside)


def self_time(series: Series, now: float) -> float:
    """Return the seconds in which calls of a stage were open and no stage inside of them was."""
    own = 0.0
    for each in series.variants:
        account = each.account
        own += account.ended + account.partial + each.correction + account.excess
    for cell in list(series.scope.shares.outlived.values()):
        # of a call in progress it is in the account, but not of a generator between items
        if (
            cell[0] in series.variants
            and cell[1] is None
            and (cell[3] is None or cell[3].entry is not None)
        ):
            own += nesting.excess_so_far(cell, now)
    inside = sum(each.account.ended + each.account.partial for each in _called(series))
    return max(0.0, own - inside)


def open_time(scope: RunScope, root: Cell, now: float) -> float:
    """Return the seconds in which at least one stage was open in a run."""
    inside = sum(
        each.account.ended + each.account.partial
        for each in list(scope.called.values())
        if each.stage.form != "by hand"
    )
    return inside - scope.correction - nesting.excess_so_far(root, now)


def _called(series: Series) -> list[Series]:
    """Return the series of the stages called inside of a stage."""
    found = {id(each): each for own in series.variants for each in list(own.called.values())}
    return list(found.values())
