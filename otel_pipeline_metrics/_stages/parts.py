"""Bring the part of a call in another process back with its result.

Only where the way back is ours alone: what the call returns is an envelope, which unpickles as the
value itself and folds the part into the run as it does. A failing call's exception stays the same
object, and pickles as it would have, with the part beside it.
"""

from __future__ import annotations

import contextlib
import contextvars
import copyreg
import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import errors, hooks, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._stages.propagate import (
    FromOtherProcess,
    Propagated,
    SentWork,
    attach_carried,
    run_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.hooks import PartsOfRun


def reduce_with_part(
    function: Callable[..., Any], headers: dict[str, str], context: dict[str, Any]
) -> tuple[Any, ...]:
    """Return how a call for another process pickles.

    Args:
        function: what is called there.
        headers: of the trace and the baggage around it.
        context: of the part, see `Run.context()`.
    """
    return PartCall, (function, headers, context, forking.this_process())


class PartCall:
    """A function that another process sent, and the context of its part."""

    def __init__(
        self,
        function: Callable[..., Any],
        headers: dict[str, str],
        context: dict[str, Any],
        sender: str,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._carried = headers, context, sender

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for yet another process."""
        return PartCall, (self._function, *self._carried)

    @SentWork.inside
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as a part of the run in the process that sent it."""
        headers, sent, sender = self._carried
        if sender == forking.this_process() or hooks.open_part is None:
            # its stages belong to the run without a part, and nothing pickles the result
            run = sent["pipeline"], sent["run"]
            here = FromOtherProcess(self._function, headers, *run, sender)
            return here(*args, **kwargs)
        with SentWork():
            context = contextvars.copy_context()
            part: Any = None
            with errors.suppress_errors("the part of a call"):
                context.run(attach_carried, headers)
                part = hooks.open_part(sent)
                context.run(part.__enter__)
            try:
                result = run_in(context, self._function, *args, **kwargs)
            except BaseException as error:
                with errors.suppress_errors("the part of a call"):
                    context.run(part.__exit__, type(error), error, error.__traceback__)
                    _attach_part(error, part.data)
                raise
            with errors.suppress_errors("the part of a call"):
                context.run(part.__exit__, None, None, None)
                return Envelope(result, part.data)
            return result


class SentCall:
    """A function that an engine may call here, or send to another process with a part to bring.

    Args:
        function: what is called; it runs in the current context.
        parts: of the run that it belongs to.
    """

    def __init__(self, function: Callable[..., Any], parts: PartsOfRun) -> None:
        self._call = Propagated(function)
        functools.update_wrapper(self, function, updated=())
        self._parts = parts
        self.context = parts.expect()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in this process, where the run sees it by itself."""
        self._parts.withdraw(self.context)
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process."""
        headers, _, _ = self._call.carried()
        return reduce_with_part(self._call.function, headers, self.context)


class Envelope:
    """A result on its way back, which unpickles as the value alone."""

    __slots__ = ("_part", "_value")

    def __init__(self, value: Any, part: dict[str, Any]) -> None:
        self._value = value
        self._part = part
        _unsent.append(part)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a call that gives the value and folds the part."""
        with contextlib.suppress(ValueError):  # another call's exception took it along
            _unsent.remove(self._part)
        left = [_left.popleft() for _ in range(len(_left))]
        return _opened, (self._value, [self._part, *left])


# The parts in envelopes that were not pickled yet: results of one batch come back together, and
# if one of its calls fails, only the exception does. The run counts each part once.
_unsent: deque[dict[str, Any]] = deque(maxlen=1000)


# The parts of failed calls whose exceptions could not take them along; the next result does.
_left: deque[dict[str, Any]] = deque(maxlen=1000)

for _kept in (_unsent, _left):
    forking.in_child(_kept.clear)


def _opened(value: Any, parts: list[dict[str, Any]]) -> Any:
    for part in parts:
        fold(part)
    return value


def fold(part: Any) -> None:
    """Fold a part into its run, if that is open in this process. Never raises."""
    try:
        for scope in list(series.scopes):
            if scope.parts is not None and scope.run_id == part.get("run"):
                scope.parts.add(part)
                return
    except Exception:  # the value arrives all the same
        errors.log_internal_error("folding the part of a call")


class _Reducing:
    """The `__reduce_ex__` of one exception, which adds the part to how it pickles."""

    def __init__(self, error: BaseException, part: dict[str, Any]) -> None:
        self._error = error
        self._part = part

    def __call__(self, protocol: Any) -> Any:
        error = self._error
        # its own way must not see this
        error.__dict__.pop("__reduce_ex__", None)
        try:
            reduced = error.__reduce_ex__(protocol)
        finally:
            error.__dict__["__reduce_ex__"] = self
        if not isinstance(reduced, tuple):
            return reduced
        if len(reduced) > 2 and isinstance(reduced[2], dict):
            state = {key: value for key, value in reduced[2].items() if key != "__reduce_ex__"}
            reduced = (*reduced[:2], state or None, *reduced[3:])
        return _opened_error, (reduced, [self._part, *_unsent])


def _attach_part(error: BaseException, part: dict[str, Any]) -> None:
    if type(error) in copyreg.dispatch_table:
        # a library, such as tblib, pickles it in a way of its own
        _left.append(part)
    else:
        error.__dict__["__reduce_ex__"] = _Reducing(error, part)


def _opened_error(reduced: tuple[Any, ...], parts: list[dict[str, Any]]) -> Any:
    for part in parts:
        fold(part)
    make, arguments, *more = reduced
    found = make(*arguments)
    if more and more[0] is not None:
        # what pickle does with a state
        if hasattr(found, "__setstate__"):
            found.__setstate__(more[0])
        else:
            found.__dict__.update(more[0])
    return found
