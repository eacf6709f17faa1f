"""The end of a process that multiprocessing started: there is no atexit in it.

Its children, forked or spawned, of a `Process`, a `Pool` or a `ProcessPoolExecutor`, run
multiprocessing's own finalizers and leave by `os._exit`. A finalizer counts only if it was made
in the child, after it began; `register_after_fork` is how to be called at that moment, in spawned
children too, whatever its name says.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics import _guard

if TYPE_CHECKING:
    from collections.abc import Callable

_EARLY: Final = 100
"""Before multiprocessing closes its queues and waits for children of the child."""

at_begin: list[Callable[[], None]] = []
"""Called as such a child begins, once `at_end_of_child()` has been called."""
_at_end: Callable[[], None] | None = None
_known = False


def at_end_of_child(call: Callable[[], None]) -> None:
    """Call this at the end of this process if multiprocessing started it, and of such children.

    To be called again in a forked child: multiprocessing may not have been imported before.
    """
    global _at_end, _known  # noqa: PLW0603 - the one place that holds them
    _at_end = call
    # Whoever starts children has it imported by then; nobody else is to pay for it.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    if not _known:
        _known = True
        util.register_after_fork(_finish, _begin)
    if process.parent_process() is not None:
        _begin(None)


def _begin(_: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _finish, exitpriority=_EARLY)
    for call in at_begin:
        with _guard.guarded("the beginning of a child process"):
            call()


def _finish() -> None:
    with _guard.guarded("the end of a child process"):
        if _at_end is not None:
            _at_end()
