"""Tell how a run ended, from the exception that left it."""

from __future__ import annotations

import sys
from typing import Literal

from otel_pipeline_metrics._core.records import leaves_of

Result = Literal["success", "failure", "cancellation", "timeout"]


def result_of(error: BaseException | None) -> Result:
    """Return `pipeline.run.result` for the exception that left the run, or for None."""
    if error is None or (type(error) is SystemExit and error.code in (None, 0)):
        return "success"
    kind = type(error)  # `isinstance` would ask the program's class for `__class__`
    if issubclass(kind, Exception):
        late = any(issubclass(type(one), _timeouts()) for one in leaves_of(error))
        return "timeout" if late else "failure"
    # KeyboardInterrupt, and the cancellations of asyncio, trio and anyio
    return "failure" if issubclass(kind, SystemExit) else "cancellation"


def _timeouts() -> tuple[type[BaseException], ...]:  # before Python 3.11 asyncio had its own
    return TimeoutError, getattr(sys.modules.get("asyncio"), "TimeoutError", TimeoutError)
