"""Count the retries of tenacity, and its back-off as a wait and not as work.

from otel_pipeline_metrics.integrations.tenacity import instrument_retrying

@instrument_retrying
@opm.fetch
@tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(1))
def download(url): ...
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import tenacity

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.limits.permits import Permits
from otel_pipeline_metrics._probes.limits.probe import PermitWait
from otel_pipeline_metrics._probes.limits.registry import watch
from otel_pipeline_metrics._stages import hints
from otel_pipeline_metrics._stages.stage import current_stage, stage

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

# What the back-off is in a report: a wait of the stage at a limit of this name and kind.
REASON: Final = "retry"


def instrument_retrying(retrying: R) -> R:
    """Count the retries of a function or of a `Retrying` object; return what to call.

    Each attempt after the first is a retry of the stage around, by the type of the error before it;
    the sleep in between is `blocked`, at the limit "retry". Where `tenacity.retry` decorates a
    function that is a stage, a call of what this returns is one call of the stage, with attempts;
    in all other cases this returns what it is given.

    Args:
        retrying: a function that `tenacity.retry` decorated, above or below a decorator of ours, or
            a `tenacity.Retrying` or `AsyncRetrying`. Calling this again changes nothing.

    Raises:
        TypeError: it is neither.
    """
    found: Any = retrying
    while not isinstance(found, tenacity.BaseRetrying):
        inner = getattr(found, "retry", None)
        found = inner if inner is not None else getattr(found, "__wrapped__", None)
        if found is None:
            raise TypeError(
                "retrying must be a Retrying of tenacity, or a function that it decorated, not "
                f"{type(retrying).__name__}"
            )
    if not isinstance(found.sleep, _Sleep):
        changed: Any = found
        kind: Any = _AsyncSleep if isinstance(found, tenacity.AsyncRetrying) else _Sleep
        changed.sleep = kind(found.sleep)
        # tenacity awaits what is a coroutine function
        is_async = inspect.iscoroutinefunction(found.before_sleep)
        changed.before_sleep = (_AsyncBeforeSleep if is_async else _BeforeSleep)(found.before_sleep)
    return cast("R", _as_one_call(retrying, found))


def _as_one_call(retrying: Any, found: tenacity.BaseRetrying) -> Any:
    staged: Any = getattr(retrying, "__wrapped__", None)
    function: Any = getattr(staged, "__wrapped__", None)
    inner = hints.stage_of(staged)
    # a decorator in between copies what the stage's left on its function
    if inner is None or hints.stage_of(function) is inner or not hasattr(staged, "__opm_items__"):
        return retrying
    whole = stage(
        inner.name, kind=inner.kind, items=staged.__opm_items__, attributes=inner.attributes
    )
    called: Any = whole(found.wraps(function))
    called.retry_with = lambda *args, **more: instrument_retrying(
        retrying.retry_with(*args, **more)
    )
    return called


def _count(state: tenacity.RetryCallState) -> None:
    with errors.suppress_errors("a retry of tenacity"):
        outcome = state.outcome
        current_stage().retry(None if outcome is None else outcome.exception())


class _BeforeSleep:
    """Counts a retry, and calls what the program had here."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def __call__(self, state: tenacity.RetryCallState) -> Any:
        _count(state)
        return None if self._given is None else self._given(state)


class _AsyncBeforeSleep(_BeforeSleep):
    """The same around a coroutine function."""

    async def __call__(self, state: tenacity.RetryCallState) -> Any:
        _count(state)
        return await self._given(state)


class _Sleep:
    """The program's sleep, as a wait of the stage."""

    def __init__(self, sleep: Callable[[float], Any]) -> None:
        functools.update_wrapper(self, sleep, updated=())
        self._sleep = sleep

    def __call__(self, seconds: float) -> Any:
        with PermitWait(_probe()):
            return self._sleep(seconds)


class _AsyncSleep(_Sleep):
    """The same of an `AsyncRetrying`."""

    async def __call__(self, seconds: float) -> Any:
        with PermitWait(_probe()):
            return await self._sleep(seconds)


@functools.cache
def _probe() -> Permits:
    probe = Permits(REASON, REASON, None)
    watch(probe)
    return probe
