"""Bring what the workers of joblib do into the report of the run that calls them.

from otel_pipeline_metrics.integrations.joblib import instrument_parallel

with opm.run("nightly"):
    results = instrument_parallel(n_jobs=4)(joblib.delayed(parse)(page) for page in pages)
"""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any

import joblib
from joblib._parallel_backends import LokyBackend, MultiprocessingBackend

from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._stages.parts import SentCall
from otel_pipeline_metrics._stages.propagate import Propagated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def instrument_parallel(**arguments: Any) -> joblib.Parallel:
    """Return a `joblib.Parallel` whose calls are part of the run, the stage and the trace here.

    With processes (loky, which is the default, or multiprocessing) what each call did comes back
    with its result and counts in the report of the run. With other backends, such as Dask's, calls
    are propagated, and what they do in other processes is at the Collector only.

    Args:
        arguments: those of `joblib.Parallel`.
    """
    return _Parallel(**arguments)


class _Parallel(joblib.Parallel):  # type: ignore[misc]  # joblib has no types
    def __call__(self, iterable: Iterable[Call]) -> Any:
        """Run the calls, as `joblib.Parallel` does."""
        parts = series.current_scope().parts
        # joblib takes most of the calls in a thread of its own
        here = contextvars.copy_context()
        by_pickle = isinstance(self._backend, (LokyBackend, MultiprocessingBackend))
        if parts is None or not by_pickle:

            @functools.cache
            def propagated(function: Any) -> Any:
                return here.run(Propagated, function)

            return super().__call__((propagated(f), args, kwargs) for f, args, kwargs in iterable)
        sent: list[dict[str, Any]] = []

        def calls() -> Iterator[Call]:
            for function, args, kwargs in iterable:
                call = here.run(SentCall, function, parts)
                sent.append(call.context)
                yield call, args, kwargs

        try:
            return super().__call__(calls())
        except BaseException:
            # what the aborted workers did not bring back does not come any more
            for context in sent:
                parts.give_up(context)
            raise
