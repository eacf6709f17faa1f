"""Tell how much of a call's time went to the stages called or spawned inside of it.

While calls inside of a call come one after the other, the sum of their durations is the answer, and
nothing is kept but which one is open. Calls that overlap, outlive the outer one or go on while it
waits are kept in an `Overlap`. It counts by how much their sum of durations exceeds the time in
which the outer call was open with at least one of them: this excess is added back.

A closed call with others open inside, such as a task that outlives it, still covers the calls
around it. They keep it as a ghost: it tells that something is open inside, but not how long.

A call is open while it runs or awaits: not while it waits for input or for room, and not while a
generator's consumer works. A run is the outer call of those that no stage called.

The hot path opens and closes a call itself if nothing overlaps, which takes no call in between, so
threads cannot come in between either. Everything else is done here, under a lock that is held for
a few microseconds. A signal handler or destructor of the same thread may enter it again.

What the hot path opens is found here alone: while nothing overlaps, the calls in progress of a run
are one inside of the other. Once two overlap or one waits, their series keep them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.overlap import (
    Overlap,
    all_inside,
    has_inside,
    innermost,
    inside_of,
    root_of,
)
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.process.gc_safety import switch_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._core.shares import Shares


# Of a cell, see `series.Cell`; numbers, since names would cost the hot path.
_TOKEN, _PARENT, _CHILD = 1, 4, 5

# Of runs with calls that overlap: the hot path leaves all calls to this module meanwhile.
_dividing: set[Shares] = set()

_lock = threading.RLock()

# Makes the execution of a call, which the hot path then does not end; set by `_stages.execution`.
have_execution: Callable[[Cell], object] = id


def set_have_execution(found: Callable[[Cell], object]) -> None:
    """Set what makes the execution of a call."""
    global have_execution  # set once
    have_execution = found


def enter(cell: Cell, now: float) -> None:
    """Open a call inside of the one around it; again after `pause`."""
    _change(_open, cell, now)


def let_in(cell: Cell, now: float) -> None:
    """Have calls begin inside of a generator that works on no item now."""
    overlap = Overlap(now, is_open=False)
    # no call in between, since the generator may go on in another thread
    if cell[_TOKEN] is None and cell[_CHILD] is None:
        cell[_CHILD] = overlap


def close(cell: Cell, now: float) -> None:
    """End a call, in which others may still be open."""
    _change(_end, cell, now)


def pause(cell: Cell, now: float) -> None:
    """Close a call that waits."""
    _change(_pause, cell, now)


def _change(change: Callable[..., None], *given: Any) -> None:
    try:
        with _lock:
            change(*given)
    except BaseException:  # of a signal handler
        with _lock:
            _divide_anew(*given[-2:])
        raise


def _end(cell: Cell, now: float) -> None:
    _close(cell, now)
    found = cell[_CHILD]
    if not isinstance(found, Overlap):
        return
    if found.inside:
        cell[0].scope.shares.outlived[id(cell)] = cell
    else:
        cell[_CHILD] = None


def _pause(cell: Cell, now: float) -> None:
    _keep(cell)
    _close(cell, now)
    if cell[_CHILD] is None:
        # a call that another task begins meanwhile must find it closed
        cell[_CHILD] = Overlap(now, is_open=False)


def _open(cell: Cell, now: float) -> None:
    found: Any = cell[_CHILD]
    if isinstance(found, Overlap):
        found.account_until(now)
        found.is_open = True
        cell[0].scope.shares.outlived.pop(id(cell), None)
        holder, found.holder = found.holder, None
        _settle(cell, found, now)
        if holder is not None and holder is cell[_PARENT]:
            around: Any = holder[_CHILD]
            around.account_until(now)
            around.children[id(cell)] = around.ghosts.pop(id(cell))
            return
        if holder is not None:
            _leave(holder, cell, now)
    if cell[_PARENT] is not None:
        _enter(cell[_PARENT], cell, now)


def excess_so_far(cell: Cell, now: float) -> float:
    """Return what an open call's `Overlap` has not settled yet."""
    found: Any = cell[_CHILD]
    if not isinstance(found, Overlap):
        return 0.0
    return found.excess_until(now)


def settle_shares(shares: Shares, now: float) -> None:
    """Bring a run's shares up to date."""
    with _lock:
        if shares.concurrent:
            shares.settle(now)


def one_in_the_other(root: Cell) -> list[Cell]:
    """Return the calls open in a run while none overlap; none otherwise."""
    with _lock:
        if root[0].scope.shares.concurrent:
            return []
        return [each for each in all_inside(root) if each is not root and _is_whole(each)]


def _is_whole(cell: Cell) -> bool:
    """Tell whether a call is in progress, and is not a step of a generator."""
    execution = cell[3]
    return cell[_TOKEN] is not None and (execution is None or execution.entry is None)


def _keep(cell: Cell) -> None:
    """Have the series of a call keep it, and the hot path leave its end to others."""
    kept, key = cell[0].kept, id(cell)
    if key in kept or not _is_whole(cell):
        return
    have_execution(cell)
    kept[key] = cell
    found = cell[_PARENT][_CHILD]
    if found is not cell and not isinstance(found, Overlap):
        # the hot path of another thread had already begun to end it
        cell[0].remove(cell)
        cell[3] = None


def _keep_all_inside(root: Cell) -> None:
    for each in [*all_inside(root)]:
        if each is not root:
            _keep(each)


def _enter(parent: Cell, cell: Cell, now: float) -> None:
    _open_inside(parent, cell, now)
    if cell[0].scope.shares.concurrent:
        _keep(cell)


def _open_inside(parent: Cell, cell: Cell, now: float) -> None:
    shares: Shares = cell[0].scope.shares
    found: Any = parent[_CHILD]
    # `__class__`, since a call would let the hot path of another thread come in between;
    # a token of None: it was interrupted before it could leave
    none_inside = found is None or (found.__class__ is list and found[_TOKEN] is None)
    if none_inside and parent[_TOKEN] is not None:
        parent[_CHILD] = cell
        if shares.concurrent:
            _remove(parent, shares, now)
            _add_if_innermost(cell, shares, now)
        return
    overlap = _overlap_of(parent, now)
    overlap.account_until(now)
    if len(overlap.children) >= overlap.prune_at:
        _prune(overlap)
    before = overlap.inside
    overlap.children[id(cell)] = cell
    if before == 1:
        _begin_to_divide(cell, shares, now)
    elif shares.concurrent:
        if not before and overlap.is_open:
            _remove(parent, shares, now)
        _add_if_innermost(cell, shares, now)
    if not before and not overlap.is_open:
        _begin_to_haunt(parent, overlap, now)


def _overlap_of(cell: Cell, now: float) -> Overlap:
    """Return a call's `Overlap`, made if need be."""
    found: Any = cell[_CHILD]
    if isinstance(found, Overlap):
        return found
    # closed: it is over, or a generator between items, and a call inside of it has waited
    overlap = Overlap(now, is_open=cell[_TOKEN] is not None)
    if not overlap.is_open:
        cell[0].scope.shares.outlived[id(cell)] = cell
    if found is not None and found[_TOKEN] is not None:
        _keep(found)
        overlap.children[id(found)] = found
    if cell[_CHILD] is not found:
        # the hot path of another thread has opened or closed one
        return _overlap_of(cell, now)
    cell[_CHILD] = overlap
    return overlap


def _begin_to_haunt(cell: Cell, overlap: Overlap, now: float) -> None:
    """Have a closed call cover the one around it, since one inside of it has begun."""
    parent: Any = cell[_PARENT]
    if parent is None:
        return
    around = _overlap_of(parent, now)
    around.account_until(now)
    before = around.inside
    around.ghosts[id(cell)] = cell
    overlap.holder = parent
    shares: Shares = cell[0].scope.shares
    if cell[_TOKEN] is None:
        shares.outlived[id(cell)] = cell
    if before == 1:
        _begin_to_divide(cell, shares, now)
    elif shares.concurrent and not before and around.is_open:
        _remove(parent, shares, now)
    if not before and not around.is_open:
        _begin_to_haunt(parent, around, now)


def _leave(parent: Cell, cell: Cell, now: float) -> None:
    shares: Shares = cell[0].scope.shares
    found: Any = parent[_CHILD]
    if found is cell:
        parent[_CHILD] = None
        if shares.concurrent:
            _remove_if_innermost(cell, shares, now)
            _add_if_innermost(parent, shares, now)
    elif isinstance(found, Overlap):
        found.account_until(now)
        is_ghost = found.ghosts.pop(id(cell), None) is not None
        if not is_ghost and found.children.pop(id(cell), None) is None:
            return
        if shares.concurrent and not is_ghost:
            _remove_if_innermost(cell, shares, now)
        if found.inside == 1:
            _end_to_divide(shares, now)
        _settle(parent, found, now)
        if shares.concurrent and not found.inside and found.is_open:
            _add_if_innermost(parent, shares, now)


def _close(cell: Cell, now: float) -> None:
    parent, found = cell[_PARENT], cell[_CHILD]
    if found is None or (isinstance(found, Overlap) and not found.inside):
        if parent is not None:
            _leave(parent, cell, now)
    elif parent is not None:
        _stay_as_ghost(parent, cell, now)
    found = cell[_CHILD]
    if isinstance(found, list):
        _keep(found)
    found = cell[_CHILD]
    if isinstance(found, list):
        overlap = cell[_CHILD] = Overlap(now, is_open=False)
        overlap.children[id(found)] = found
        overlap.holder = parent
    elif found is not None:
        found.account_until(now)
        if found.is_open:
            found.holder = parent if found.inside else None
        found.is_open = False
        found.closed_at = now
        _settle(cell, found, now)


def _stay_as_ghost(parent: Cell, cell: Cell, now: float) -> None:
    """Close a call that has others open inside of it."""
    around: Any = parent[_CHILD]
    if around is cell:
        around = _overlap_of(parent, now)
    if isinstance(around, Overlap) and id(cell) in around.children:
        around.account_until(now)
        around.ghosts[id(cell)] = around.children.pop(id(cell))


def _settle(cell: Cell, overlap: Overlap, now: float) -> None:
    """Hand over the excess once no call is open inside any more."""
    if overlap.inside:
        return
    outer: Any = cell[0] if cell[_PARENT] is not None else cell[0].scope
    if overlap.excess:
        outer.correction += overlap.excess
        overlap.excess = 0.0
    if overlap.is_open:
        cell[_CHILD] = None
        return
    cell[0].scope.shares.outlived.pop(id(cell), None)
    holder, overlap.holder = overlap.holder, None
    if holder is not None:
        _leave(holder, cell, now)


def _prune(overlap: Overlap) -> None:
    """Drop calls that were interrupted before they could leave."""
    overlap.children = {key: c for key, c in overlap.children.items() if c[_TOKEN] is not None}
    overlap.prune_at = 2 * len(overlap.children) + 64


# --- shares of the run -------------------------------------------------------------------------


def _remove(cell: Cell, shares: Shares, now: float) -> None:
    """Count an open call no more as an innermost one, since another began inside of it."""
    if cell[_PARENT] is not None:
        shares.remove(cell[0].stage.identity, now)


def _remove_if_innermost(cell: Cell, shares: Shares, now: float) -> None:
    if not has_inside(cell):
        _remove(cell, shares, now)


def _add_if_innermost(cell: Cell, shares: Shares, now: float) -> None:
    if cell[_PARENT] is not None and not has_inside(cell):
        shares.add(cell[0].stage.identity, now)


def _begin_to_divide(cell: Cell, shares: Shares, now: float) -> None:
    shares.concurrent += 1
    if shares.concurrent > 1:
        _add_if_innermost(cell, shares, now)
        return
    # first, so that the hot path ends none of them meanwhile
    _tell_hot_path(shares)
    root = root_of(cell)
    _keep_all_inside(root)
    shares.begin((each[0].stage.identity for each in innermost(root)), now)


def _end_to_divide(shares: Shares, now: float) -> None:
    shares.concurrent -= 1
    if not shares.concurrent:
        _tell_hot_path(shares)
        shares.end(now)


def _tell_hot_path(shares: Shares) -> None:
    """Tell the hot path whether calls overlap, in any run."""
    (_dividing.add if shares.concurrent else _dividing.discard)(shares)
    switch_extra("overlapping", on=bool(_dividing))


def _divide_anew(cell: Cell, now: float) -> None:
    """Find out again what there is to divide, after a change was interrupted."""
    root, shares = root_of(cell), cell[0].scope.shares
    shares.concurrent = sum(len(inside_of(each)) > 1 for each in all_inside(root))
    shares.end(now)
    _tell_hot_path(shares)
    if shares.concurrent:
        _keep_all_inside(root)
        shares.begin((each[0].stage.identity for each in innermost(root)), now)


@forking.in_child
def _reset_after_fork() -> None:
    global _lock  # a thread that the child lacks may hold the lock
    _lock = threading.RLock()
    _dividing.clear()
    switch_extra("overlapping", on=False)
