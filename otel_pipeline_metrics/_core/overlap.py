"""`Overlap`: the calls that are open at once inside of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.series import Cell


class Overlap:
    """The calls open inside of one that is closed, or that has several of them."""

    __slots__ = (
        "children", "closed_at", "excess", "ghosts", "holder", "is_open", "prune_at", "since",
    )  # fmt: skip

    def __init__(self, now: float, *, is_open: bool) -> None:
        # by identity
        self.children: dict[int, Cell] = {}
        # closed calls with others open inside of them
        self.ghosts: dict[int, Cell] = {}
        # the call that has this closed one as a ghost
        self.holder: Cell | None = None
        self.is_open = is_open
        # when it was last closed
        self.closed_at = now
        self.since = now
        self.excess = 0.0
        self.prune_at = 64

    @property
    def inside(self) -> int:
        """How many calls inside are open, or have others open inside of them."""
        return len(self.children) + len(self.ghosts)

    def excess_until(self, now: float) -> float:
        """Return the excess so far."""
        covered = self.is_open and self.inside > 0
        return self.excess + max(0.0, now - self.since) * (len(self.children) - covered)

    def account_until(self, now: float) -> None:
        """Add the excess since the last change."""
        # at once: a signal handler may raise between two statements
        self.excess, self.since = self.excess_until(now), max(now, self.since)


def has_inside(cell: Cell) -> bool:
    """Tell whether a call has others open inside of it."""
    found: Any = cell[5]
    return found.inside > 0 if isinstance(found, Overlap) else found is not None


def innermost(cell: Cell) -> Iterator[Cell]:
    """Yield the open calls with none open inside of them."""
    for each in all_inside(cell):
        if each is not cell and not inside_of(each):
            yield each


def all_inside(cell: Cell) -> Iterator[Cell]:
    """Yield a call and all that are open inside of it, at any depth."""
    left = [cell]
    while left:
        each = left.pop()
        left += inside_of(each)
        yield each


def inside_of(cell: Cell) -> list[Cell]:
    """Return the calls that are open directly inside of a call, and its ghosts."""
    found: Any = cell[5]
    if isinstance(found, Overlap):
        return [*found.children.values(), *found.ghosts.values()]
    return [] if found is None else [found]


def root_of(cell: Cell) -> Cell:
    """Return the cell of the run that a call belongs to."""
    while cell[4] is not None:
        cell = cell[4]
    return cell
