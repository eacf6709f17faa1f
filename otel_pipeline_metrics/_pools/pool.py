"""What pools of tasks and pools of threads share: what they work on, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.records import StageKey
from otel_pipeline_metrics._pools import registry
from otel_pipeline_metrics._pools.meters import Meters

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Never

    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._probes.queues.instrumented import Instrumented


@dataclass(frozen=True)
class Plan:
    """What the workers of a pool do."""

    function: Callable[[Any], Any]
    # whether a call gives several results
    generates: bool
    source: Instrumented
    sink: Instrumented | None
    low: int
    high: int
    name: str
    # that `function` is
    stage: StageId
    on_error: Literal["stop", "skip"]


Change = TypedDict("Change", {"at_s": float, "from": int, "to": int, "why": str})


class SinkError(Exception):
    """The sink refused a result: an error of its own, and of no item."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Pool:
    """Workers that take items from one queue and put results into another."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entered = False
        # the source has ended
        self._ended = False
        self._passed_on = False
        # workers finish at once: the block was left by an exception, or must be
        self._stopping = False
        self._error: BaseException | None = None
        self._skipped = 0
        self._dropped = 0
        # how many workers take items
        self._active = 0
        # of those, how many leave after the item in hand
        self._surplus = 0
        self._changes: list[Change] = []
        # of an elastic pool
        self._meters = Meters() if plan.low < plan.high else None
        self._size = registry.Size(self)

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self._plan.name

    @property
    def count(self) -> int:
        """How many workers there are, without those that leave after the item in hand."""
        return max(0, self._active - self._surplus)

    @property
    def changes(self) -> list[Change]:
        """Each change of their number: `at_s` since the start, `from`, `to`, and `why`."""
        return list(self._changes)

    @property
    def skipped(self) -> int:
        """How many items failed and were skipped, with `on_error="skip"`."""
        return self._skipped

    @property
    def dropped(self) -> int:
        """How many items were taken and not worked on, because another one had failed."""
        return self._dropped

    def __enter__(self) -> Any:
        """Start the workers, if they are threads.

        Raises:
            TypeError: they are tasks.
        """
        raise self._wrong("async with", "with")

    def __exit__(self, kind: object, error: BaseException | None, traceback: object, /) -> None:
        """Wait for the workers, if they are threads."""
        raise self._wrong("async with", "with")

    async def __aenter__(self) -> Any:
        """Start the workers, if they are tasks.

        Raises:
            TypeError: they are threads.
        """
        raise self._wrong("with", "async with")

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object, /
    ) -> None:
        """Wait for the workers, if they are tasks."""
        raise self._wrong("with", "async with")

    def _wrong(self, right: str, wrong: str) -> TypeError:
        return TypeError(f"the workers of {self.name!r} need `{right}`, not `{wrong}`")

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError(f"the workers of {self.name!r} were started before; make new ones")
        self._entered = True
        self._began = clock.now()
        registry.enter(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report's part about the pool."""
        return {
            "name": self.name,
            "stage": self._plan.stage.name,
            "low": self._plan.low,
            "high": self._plan.high,
            "workers": self.count,
            "skipped": self._skipped,
            "dropped": self._dropped,
            "changes": [dict(change) for change in self._changes],
        }

    def _stage_key(self, pipeline: str | None) -> StageKey:
        """Return what metrics of the stage are kept under."""
        stage = self._plan.stage
        return StageKey(pipeline, stage.name, stage.kind)

    def _note_change(self, before: int, after: int, why: str) -> None:
        at_s = clock.now() - self._began
        self._changes.append({"at_s": at_s, "from": before, "to": after, "why": why})

    def _is_end(self, item: Any) -> bool:
        probe = self._plan.source._opm_probe
        return probe.is_sentinel(item)

    def _checked(self, result: Any) -> Any:
        """Return a result.

        Raises:
            ValueError: it would end the sink.
        """
        sink = self._plan.sink
        if sink is not None and result is sink._opm_probe.sentinel:
            raise ValueError(
                f"a result of {self.name!r} is the sentinel of its sink, {result!r}: it would end "
                "who takes it"
            )
        return result

    def _may_pass_on(self) -> bool:
        """Tell once whether the source has ended."""
        if not self._ended or self._passed_on or self._plan.sink is None:
            return False
        self._passed_on = True
        return True

    def _end_of_sink(self) -> Any:
        """Return the sentinel of the sink; `NOTHING` if it has none."""
        probe = self._plan.sink._opm_probe  # type: ignore[union-attr]
        return probe.sentinel

    def _shut_down_sink(self) -> None:
        """Shut the sink down, which has no sentinel; queues can since Python 3.13."""
        shutdown = getattr(self._plan.sink, "shutdown", None)
        if shutdown is not None:
            shutdown()

    def _done(self) -> None:
        """Tell the source that an item is done, if it counts them."""
        task_done = getattr(self._plan.source, "task_done", None)
        if task_done is not None:
            # somebody who counted by hand as well has told it already
            with contextlib.suppress(ValueError):
                task_done()

    def _skips(self) -> bool:
        """Tell whether the worker goes on after an item failed, and count that."""
        if self._plan.on_error == "skip":
            self._skipped += 1
            return True
        return False

    def _tell_skipped(self) -> None:
        if self._skipped:
            errors.logger.warning(
                "%d item(s) of the workers of %r failed and were skipped", self._skipped, self.name
            )
        if self._dropped:
            errors.logger.warning(
                "%d item(s) for the workers of %r were dropped, since one before them failed",
                self._dropped,
                self.name,
            )

    def _outdoes(self, error: BaseException | None) -> bool:
        """Tell whether the workers' error is raised when the block is left by `error`."""
        # what ends the program, such as Ctrl-C in the body, goes first
        ends = isinstance(error, BaseException) and not isinstance(
            error, (Exception, asyncio.CancelledError)
        )
        return self._error is not None and not ends


def raise_as_itself(error: BaseException) -> Never:
    """Raise an error with the context that it had where it came from."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
