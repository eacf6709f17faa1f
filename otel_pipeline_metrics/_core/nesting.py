"""Tell how much of a call's time went to the stages called or spawned inside of it.

While calls inside of a call come one after the other, the sum of their durations is the answer, and
nothing is kept but which one is open. Calls that overlap, outlive the outer one or go on while it
waits are kept in an `Overlap`. It counts by how much their sum of durations exceeds the time in
which the outer call was open with at least one of them: this excess is added back.

A call is open while it runs or awaits: not while it waits for input or for room, and not while a
generator's consumer works. A run is the outer call of those that no stage called.

The hot path opens and closes a call itself if nothing overlaps, which takes no call in between, so
threads cannot come in between either. Everything else is done here, under a lock that is held for
a few microseconds. A signal handler or destructor of the same thread may enter it again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._core.shares import Shares


# Of a cell, see `series.Cell`; numbers, since names would cost the hot path.
_TOKEN, _PARENT, _CHILD = 1, 4, 5

# How many runs have calls that overlap: the hot path leaves all calls to this module meanwhile.
overlapping = 0

_lock = threading.RLock()


class Overlap:
    """The calls open inside of one that is closed, or that has several of them."""

    __slots__ = ("children", "closed_at", "excess", "is_open", "prune_at", "since")

    def __init__(self, now: float, *, is_open: bool) -> None:
        # by identity
        self.children: dict[int, Cell] = {}
        self.is_open = is_open
        # when it was last closed
        self.closed_at = now
        self.since = now
        self.excess = 0.0
        self.prune_at = 64

    def account_until(self, now: float) -> None:
        """Add the excess since the last change."""
        inside = len(self.children)
        if inside and now > self.since:
            self.excess += (now - self.since) * (inside - 1 if self.is_open else inside)
        self.since = max(now, self.since)


def enter(parent: Cell, cell: Cell, now: float) -> None:
    """Open a call inside of another."""
    with _lock:
        _enter(parent, cell, now)


def leave(parent: Cell, cell: Cell, now: float) -> None:
    """Close a call inside of another; it is not over."""
    with _lock:
        _leave(parent, cell, now)


def close(cell: Cell, now: float) -> None:
    """End a call, in which others may still be open."""
    with _lock:
        _close(cell, now)
        found = cell[_CHILD]
        if isinstance(found, Overlap) and not found.children:
            cell[_CHILD] = None


def pause(cell: Cell, now: float) -> None:
    """Close a call that waits."""
    with _lock:
        _close(cell, now)
        if cell[_CHILD] is None:
            # a call that another task begins meanwhile must find it closed
            cell[_CHILD] = Overlap(now, is_open=False)


def resume(cell: Cell, now: float) -> None:
    """Open a call again after `pause`."""
    with _lock:
        found: Any = cell[_CHILD]
        if isinstance(found, Overlap):
            found.account_until(now)
            found.is_open = True
            _settle(cell, found)
        if cell[_PARENT] is not None:
            _enter(cell[_PARENT], cell, now)


def excess_so_far(cell: Cell, now: float) -> float:
    """Return what an open call's `Overlap` has not settled yet."""
    found: Any = cell[_CHILD]
    if not isinstance(found, Overlap):
        return 0.0
    inside = len(found.children)
    more = inside - 1 if found.is_open and inside else inside
    return found.excess + max(0.0, now - found.since) * more


def settle_shares(shares: Shares, now: float) -> None:
    """Bring a run's shares up to date."""
    with _lock:
        if shares.concurrent:
            shares.settle(now)


def _enter(parent: Cell, cell: Cell, now: float) -> None:
    shares: Shares = cell[0].scope.shares
    overlap: Any = parent[_CHILD]
    # `__class__`, since a call would let the hot path of another thread come in between
    if overlap is None or (overlap.__class__ is list and overlap[_TOKEN] is None):
        # a token of None: it was interrupted before it could leave
        parent[_CHILD] = cell
        if shares.concurrent:
            _remove(parent, shares, now)
            _add_if_innermost(cell, shares, now)
        return
    if overlap.__class__ is list:
        only = overlap
        overlap = Overlap(now, is_open=True)
        overlap.children[id(only)] = only
        if parent[_CHILD] is not only:
            # the hot path of another thread has closed it
            _enter(parent, cell, now)
            return
        parent[_CHILD] = overlap
    overlap.account_until(now)
    if len(overlap.children) >= overlap.prune_at:
        _prune(overlap)
    before = len(overlap.children)
    overlap.children[id(cell)] = cell
    if before == 1:
        _begin_to_divide(cell, shares, now)
    elif shares.concurrent:
        if not before and overlap.is_open:
            _remove(parent, shares, now)
        _add_if_innermost(cell, shares, now)


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
        if found.children.pop(id(cell), None) is None:
            return
        if shares.concurrent:
            _remove_if_innermost(cell, shares, now)
        if len(found.children) == 1:
            _end_to_divide(shares, now)
        _settle(parent, found)
        if shares.concurrent and not found.children and found.is_open:
            _add_if_innermost(parent, shares, now)


def _close(cell: Cell, now: float) -> None:
    parent: Any = cell[_PARENT]
    if parent is not None:
        _leave(parent, cell, now)
    found: Any = cell[_CHILD]
    if isinstance(found, list):
        overlap = cell[_CHILD] = Overlap(now, is_open=False)
        overlap.children[id(found)] = found
    elif found is not None:
        found.account_until(now)
        found.is_open = False
        found.closed_at = now
        _settle(cell, found)


def _settle(cell: Cell, overlap: Overlap) -> None:
    """Hand over the excess once no call is open inside any more."""
    if overlap.children:
        return
    if overlap.excess:
        outer: Any = cell[0] if cell[_PARENT] is not None else cell[0].scope
        outer.correction += overlap.excess
        overlap.excess = 0.0
    if overlap.is_open:
        cell[_CHILD] = None


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
    if not _has_inside(cell):
        _remove(cell, shares, now)


def _add_if_innermost(cell: Cell, shares: Shares, now: float) -> None:
    if cell[_PARENT] is not None and not _has_inside(cell):
        shares.add(cell[0].stage.identity, now)


def _has_inside(cell: Cell) -> bool:
    found: Any = cell[_CHILD]
    return bool(found.children) if isinstance(found, Overlap) else found is not None


def _begin_to_divide(cell: Cell, shares: Shares, now: float) -> None:
    global overlapping  # changed under the lock
    shares.concurrent += 1
    if shares.concurrent > 1:
        _add_if_innermost(cell, shares, now)
        return
    overlapping += 1
    root = cell
    while root[_PARENT] is not None:
        root = root[_PARENT]
    shares.begin((each[0].stage.identity for each in _innermost(root)), now)


def _end_to_divide(shares: Shares, now: float) -> None:
    global overlapping  # changed under the lock
    shares.concurrent -= 1
    if not shares.concurrent:
        overlapping -= 1
        shares.end(now)


def _innermost(cell: Cell) -> Iterator[Cell]:
    """Yield the open calls with none open inside of them."""
    left = [cell]
    while left:
        each = left.pop()
        found: Any = each[_CHILD]
        if isinstance(found, Overlap):
            inside = list(found.children.values())
        else:
            inside = [] if found is None else [found]
        left += inside
        if not inside and each is not cell:
            yield each


@forking.in_child
def _reset_after_fork() -> None:
    global _lock, overlapping  # a thread that the child lacks may hold the lock
    _lock = threading.RLock()
    overlapping = 0
