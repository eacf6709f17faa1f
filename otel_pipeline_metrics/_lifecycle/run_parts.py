"""What a run knows of its parts in other processes: those that came, and those that did not."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.lookup import number
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import check_wait
from otel_pipeline_metrics._lifecycle.part import TASK, WORKER, context_of
from otel_pipeline_metrics.report.parts import Parts

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.merge_rules import Data

# How often an `async with` looks whether all parts are there.
_POLL_S: Final = 0.01

# Parts whose longest stage is remembered until the call that they measured is over.
_MAX_LONGEST: Final = 10_000


def check_timeout(value: object) -> float:
    """Return `parts_timeout` as a number of seconds.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    return check_wait(value, "parts_timeout")


class Engine(Protocol):
    """An adapter that tells its workers which runs of this process are open."""

    def opened(self, parts: RunParts) -> None:
        """Have workers measure for a run that begins."""

    def ending(self, parts: RunParts, timeout_s: float) -> None:
        """Collect the parts of a run that ends, within some seconds."""


engines: list[Engine] = []


class RunParts:
    """The parts of one run."""

    def __init__(self, pipeline: str, run_id: str, timeout_s: float) -> None:
        self._pipeline = pipeline
        self.run_id = run_id
        self._timeout_s = timeout_s
        self._parts = Parts(run_id)
        self._sent = 0
        self.rejected = 0
        # by token: contexts whose part is not here; whether it may still come
        self._outstanding: dict[str, bool] = {}
        # by token: the stage that took most of a part, until `give_up` asks for it
        self._longest: dict[str, str] = {}
        # tasks that an engine was given
        self._tasks = 0
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Wait for no thread that the child lacks; parts come to the parent."""
        self._changed = threading.Condition(threading.RLock())

    @property
    def missing(self) -> int:
        """How many contexts and tasks of engines were given out and have no part yet."""
        return len(self._outstanding) + self._tasks_missing + self.unfinished_workers

    @property
    def _tasks_missing(self) -> int:
        return self._parts.missing(self._tasks)

    @property
    def unfinished_workers(self) -> int:
        """How many workers of `share()` have not said that they are done."""
        return self._parts.unfinished(WORKER)

    def expect(self) -> dict[str, Any]:
        """Return the context of one more part, as plain data."""
        token = os.urandom(8).hex()
        with self._changed:
            self._sent += 1
            self._outstanding[token] = True
        return self._context(token)

    def expect_task(self) -> dict[str, Any]:
        """Return the context of one more task of an engine, whose parts cover several."""
        with self._changed:
            self._sent += 1
            self._tasks += 1
        return self._context(TASK)

    def share(self) -> dict[str, Any]:
        """Return a context for all workers of an engine, each of which has one part."""
        return self._context(WORKER)

    def _context(self, token: str) -> dict[str, Any]:
        return context_of(self._pipeline, self.run_id, token)

    def give_up(self, context: dict[str, Any]) -> str | None:
        """Wait no longer for the part of a context: its work is over.

        Returns:
            The stage that took most of it; None if its part is not here.
        """
        with self._changed:
            if context["part"] in self._outstanding:
                self._outstanding[context["part"]] = False
                self._changed.notify_all()
            return self._longest.pop(context["part"], None)

    def withdraw(self, context: dict[str, Any]) -> None:
        """Expect no part of a context: its work never began."""
        with self._changed:
            if self._outstanding.pop(context["part"], None) is not None:
                self._sent -= 1
                self._changed.notify_all()

    def add(self, data: Any) -> bool:
        """Fold a part into the run; return whether it is in. Never raises an `Exception`."""
        try:
            token = self._parts.add(data)
        except ValueError as error:
            self._reject(error)
            return False
        except Exception:
            errors.log_internal_error("adding a part")
            return False
        with self._changed:
            if self._outstanding.pop(token, False) and len(self._longest) < _MAX_LONGEST:
                stages = [
                    (number(stage, "duration_s", "total") or 0.0, str(stage["name"]))
                    for stage in data["stages"]
                ]
                if stages:
                    self._longest[token] = max(stages)[1]
            self._changed.notify_all()
        return True

    def _reject(self, error: ValueError) -> None:
        with self._changed:
            self.rejected += 1
        errors.warn_once(
            f"part {self.run_id}",
            "a part that was given to run %r is dropped (%s); further ones are only counted",
            self._pipeline,
            error,
        )

    def opened(self) -> None:
        """Tell the engines that the run has begun."""
        for engine in engines.copy():
            with errors.suppress_errors("telling an engine of a run"):
                engine.opened(self)

    def ending(self) -> None:
        """Have the engines collect what their workers did."""
        for engine in engines.copy():
            with errors.suppress_errors("collecting the parts of an engine"):
                engine.ending(self, self._timeout_s)

    def wait(self) -> None:
        """Wait for the parts that may still come, for as long as the run was told to.

        Inside of an event loop it does not: nothing could come meanwhile.
        """
        if asyncio._get_running_loop() is not None:
            return
        deadline = clock.monotonic() + self._timeout_s
        with self._changed:
            while self._is_waiting and (left := deadline - clock.monotonic()) > 0:
                self._changed.wait(left)

    async def wait_async(self) -> None:
        """Do what `wait` does, and let other tasks work meanwhile."""
        deadline = clock.monotonic() + self._timeout_s
        while self._is_waiting and clock.monotonic() < deadline:
            await _sleep(_POLL_S)

    @property
    def _is_waiting(self) -> bool:
        return True in self._outstanding.values() or self._tasks_missing > 0

    def close(self) -> None:
        """Take no more parts: the report is made."""
        self._parts.close()

    def fold(self, data: Data) -> None:
        """Add everything to the data of the run's report, if there is or was to be anything."""
        if not (self._sent or len(self._parts) or self.rejected):
            return
        if len(self._parts):
            self._parts.fold(data)
        data["run"] |= {
            "parts": len(self._parts),
            "parts_missing": self.missing,
            "parts_rejected": self.rejected,
        }


async def _sleep(seconds: float) -> None:
    """Sleep in asyncio or trio, whichever runs this."""
    trio = sys.modules.get("trio")
    if trio is not None and asyncio._get_running_loop() is None:
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
