"""Forget calls whose begin or end was interrupted: a signal handler may raise anywhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import clock, hooks, nesting
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN, active_cell

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Cell


# Stands for a cell's token until the call is current, or if it is measured without being so.
DETACHED: Final = True

# References to an object that one other object has, as `sys.getrefcount` counts them.
_ONE_OWNER: Final = 2


def abandon(cell: Cell | None, *, here: bool = True) -> None:
    """Forget a call that was interrupted as it began or ended; again does nothing.

    Args:
        cell: of the call.
        here: whether it was made in the current context.
    """
    if cell is None or cell[4] is None:
        return
    series, token, execution, now = cell[0], cell[1], cell[3], clock.now()
    cell[1] = cell[3] = None
    # first, and no Python call: at the recursion limit no other may be possible
    if (
        token is not None
        and token is not DETACHED
        and active_cell.get() is cell
        and not ("p" in gc_safety.extras and gc_safety.here())
    ):
        # not by `reset`, since the token may have been used just now
        active_cell.set(None if token.old_value is token.MISSING else token.old_value)
    series.remove(cell)
    nesting.close(cell, now)
    if hooks.workers is not None:
        hooks.workers.left(cell, now)
    # the step of a generator is not the whole call
    if execution is not None and (execution.entry is None or execution.entry is cell):
        execution.series = execution.block = None
    if len(cell) > CELL_WITHOUT_SPAN and hooks.tracing is not None:
        span = hooks.tracing.span_of(cell)
        if here:
            span.suspend()
        span.close(now - cell[2])


def was_left(cell: Cell) -> bool:
    """Tell whether a block is open although its `with` statement is over.

    An exception left the statement before `__exit__` could begin. Then only the execution still
    refers to the stage that the block was entered with.
    """
    execution = cell[3]
    return (
        execution is not None
        and execution.block is not None
        and sys.getrefcount(execution.block) <= _ONE_OWNER
    )
