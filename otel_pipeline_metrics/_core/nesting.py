"""Tell how much of a call's time went to the stages called or spawned inside of it.

While calls inside of a call come one after the other, the sum of their durations is the answer, and
nothing is kept but which one is open. Calls that overlap, outlive the outer one or go on while it
waits are kept in an `Overlap`. It counts by how much their sum of durations exceeds the time in
which the outer call was open with at least one of them: this excess is added back.

A call is open while it runs or awaits: not while it waits for input or for room, and not while a
generator's consumer works. A run is the outer call of those that no stage called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Cell


# Of a cell, see `series.Cell`; numbers, since names would cost the hot path.
_TOKEN, _PARENT, _CHILD = 1, 4, 5


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
        if inside:
            self.excess += (now - self.since) * (inside - 1 if self.is_open else inside)
        self.since = now

    def prune(self) -> None:
        """Drop calls that were interrupted before they could leave."""
        self.children = {key: c for key, c in self.children.items() if c[_TOKEN] is not None}
        self.prune_at = 2 * len(self.children) + 64


def enter(parent: Cell, cell: Cell, now: float) -> None:
    """Open a call inside of one that has another open, or is closed itself."""
    found: Any = parent[_CHILD]
    if isinstance(found, list):
        if found[_TOKEN] is None:
            # it was interrupted before it could leave
            parent[_CHILD] = cell
            return
        overlap = Overlap(now, is_open=True)
        overlap.children[id(found)] = found
        parent[_CHILD] = overlap
    elif found is None:
        parent[_CHILD] = cell
        return
    else:
        overlap = found
        overlap.account_until(now)
        if len(overlap.children) >= overlap.prune_at:
            overlap.prune()
    overlap.children[id(cell)] = cell


def leave(parent: Cell, cell: Cell, now: float) -> None:
    """Close a call inside of one."""
    found: Any = parent[_CHILD]
    if found is cell:
        parent[_CHILD] = None
    elif isinstance(found, Overlap):
        found.account_until(now)
        found.children.pop(id(cell), None)
        _settle(parent, found)


def pause(cell: Cell, now: float) -> None:
    """Close a call that waits, ends, or has yielded."""
    parent, found = cell[_PARENT], cell[_CHILD]
    if parent is not None:
        leave(parent, cell, now)
    if isinstance(found, Overlap):
        found.account_until(now)
        found.is_open = False
        found.closed_at = now
        return
    # a call that begins in another task meanwhile must find it closed
    overlap = cell[_CHILD] = Overlap(now, is_open=False)
    if found is not None:
        overlap.children[id(found)] = found


def resume(cell: Cell, now: float) -> None:
    """Open a call again after `pause`."""
    parent, found = cell[_PARENT], cell[_CHILD]
    if parent is not None:
        enter(parent, cell, now)
    if isinstance(found, Overlap):
        found.account_until(now)
        found.is_open = True
        _settle(cell, found)


def close(cell: Cell, now: float) -> None:
    """End a call, in which others may still be open."""
    parent, found = cell[_PARENT], cell[_CHILD]
    if parent is not None:
        if parent[_CHILD] is cell:
            parent[_CHILD] = None
        else:
            leave(parent, cell, now)
    if isinstance(found, list):
        overlap = cell[_CHILD] = Overlap(now, is_open=False)
        overlap.children[id(found)] = found
    elif found is not None:
        found.account_until(now)
        found.is_open = False
        _settle(cell, found)


def excess_so_far(cell: Cell, now: float) -> float:
    """Return what an open call's `Overlap` has not settled yet."""
    found: Any = cell[_CHILD]
    if not isinstance(found, Overlap):
        return 0.0
    inside = len(found.children)
    more = inside - 1 if found.is_open and inside else inside
    return found.excess + (now - found.since) * more


def _settle(cell: Cell, overlap: Overlap) -> None:
    """Hand over the excess once no call is open inside any more."""
    if overlap.children:
        return
    if overlap.excess:
        outer: Any = cell[0] if cell[_PARENT] is not None else cell[0].scope
        # threads share it, so there is no call between reading and writing
        outer.correction += overlap.excess
        overlap.excess = 0.0
    if overlap.is_open:
        cell[_CHILD] = None
