"""Make a run current, in its context and, while it is the only one, for work without a context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import (
    ScopeRef,
    active_cell,
    process_scope,
    root_cell,
    scopes,
)

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Cell, RunScope


def open_scope(scope: RunScope) -> None:
    """Make a run's scope current, and the default one while it is the only run.

    It is not made current if the garbage collector runs this code.
    """
    cell = scopes[scope] = root_cell(scope, _outside_ended(active_cell.get()))
    _update_default_scope()
    if not (gc_safety.here()):
        active_cell.set(cell)


def open_for_process(scope: RunScope) -> None:
    """Make a scope the default one while it is the only run; it becomes current nowhere."""
    scopes[scope] = root_cell(scope)
    _update_default_scope()


def close_scope(scope: RunScope) -> None:
    """End a run's scope, in any context.

    Calls in progress are flushed when they end. A run that began in this one stays current. When
    it ends, the innermost run that still goes on becomes current, so no token is kept: resetting
    one would bring back what was current when the run began.
    """
    scope.ended = True
    _update_default_scope()
    if gc_safety.here():
        return
    found = active_cell.get()
    going_on = _outside_ended(found)
    if going_on is not found:
        active_cell.set(going_on)


def _outside_ended(cell: Cell | None) -> Cell | None:
    """Return the first cell, from `cell` outwards, that is not of an ended run."""
    while cell is not None and isinstance(cell[0], ScopeRef) and cell[0].scope.ended:
        cell = cell[0].outer
    return cell


def _update_default_scope() -> None:
    ours = [s for s in list(scopes) if s is not process_scope and not s.remote]
    running = [s for s in ours if not s.ended]
    # of a forked child, what it began itself goes first
    running = [s for s in running if not s.inherited] or running
    default = running[0] if len(running) == 1 else process_scope
    # read on the hot path, written here only
    series.default_scope, series.default_cell = default, scopes[default]
