"""Measure the time that a worker waits, with `waiting`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin

if TYPE_CHECKING:
    from types import TracebackType

    from otel_pipeline_metrics._core.records import WaitState


class waiting(AsyncContextMixin):  # noqa: N801 - reads as a word in `with waiting():`
    """A block in which the current worker waits; for `with` and `async with`.

    In a stage or between stages, the time counts as `blocked` and not as `busy`: use it
    around acquiring a permit, a rate limit or a slow receiver. Queues that `wrap_queue`
    instruments do this themselves.

    Args:
        state: "blocked", or "idle" for a wait for input.

    Raises:
        ValueError: `state` is neither.
    """

    __slots__ = ("_state", "_wait", "began", "seconds")

    def __init__(self, state: WaitState = "blocked") -> None:
        if state not in ("idle", "blocked"):
            raise ValueError(f'state must be "idle" or "blocked", not {state!r}')
        self._state: WaitState = state
        self._wait: Any = None
        self.began = 0.0  # by `clock.now()`
        self.seconds = 0.0  # its duration, once it is over

    def __enter__(self) -> waiting:
        """Begin to wait. Never raises."""
        self._wait = None
        try:
            self.began = clock.now()
            found = hooks.workers
            if hooks.watch is not None and (found is None or not found.accounts):
                hooks.watch()
            if hooks.workers is not None:
                self._wait = hooks.workers.wait_begins(self._state, self.began)
        except Exception:  # an internal error must not stop the program
            errors.log_internal_error("beginning to wait")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop waiting. Never raises."""
        try:
            now = clock.now()
            self.seconds = now - self.began
            if self._wait is not None and hooks.workers is not None:
                hooks.workers.wait_ends(self._wait, now)
        except Exception:
            errors.log_internal_error("ending a wait")
