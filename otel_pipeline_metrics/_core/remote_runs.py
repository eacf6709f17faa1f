"""Know the runs of other processes whose work is done in this one."""

from __future__ import annotations

from typing import Final

from otel_pipeline_metrics._core.series import RunScope, scopes

# Runs of other processes that are remembered at a time.
MAX_REMOTE_SCOPES: Final = 16

# By run id: the scopes of runs in other processes whose work is done here.
_remote_scopes: dict[str, RunScope] = {}


def remote_run_scope(pipeline: str, run_id: str) -> RunScope:
    """Return the scope in this process of a run that another process started.

    A child that was forked during the run has it; otherwise it is made. It never becomes the
    default, and the oldest is forgotten when there are too many.
    """
    for scope in list(scopes):
        if scope.run_id == run_id:
            return scope
    found = _remote_scopes.get(run_id)
    if found is None:
        found = RunScope(pipeline, run_id)
        found.remote = True
        found = _remote_scopes.setdefault(run_id, found)
        while len(_remote_scopes) > MAX_REMOTE_SCOPES:
            oldest = _remote_scopes.pop(next(iter(_remote_scopes)), None)
            if oldest is not None:
                oldest.released = True
    return found
