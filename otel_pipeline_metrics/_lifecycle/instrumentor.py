"""Configure a decorated program by `opentelemetry-instrument`, as its plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # untyped
    BaseInstrumentor,
)

from otel_pipeline_metrics._core import errors, options
from otel_pipeline_metrics._lifecycle import configure

if TYPE_CHECKING:
    from collections.abc import Collection


_OPTIONS = frozenset(option.name for option in options.OPTIONS)
# not every version of the base class takes them out
_OF_THE_LOADER = frozenset({"skip_dep_check", "raise_exception_on_conflict"})


class PipelineMetricsInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped
    """An instrumentor that calls `configure()` on the providers of the process.

    `instrument()` takes the arguments of `configure()`; another keyword is a TypeError. No
    library is patched: decorated functions report. It raises nothing else, since an exception
    would keep every later instrumentation from loading.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return an empty collection: no library is patched, so none is required."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {key: value for key, value in kwargs.items() if key not in _OF_THE_LOADER}
        for key in options:
            if key not in _OPTIONS:
                raise TypeError(
                    f"instrument() has no argument {key!r}: it takes those of configure()"
                )
        try:
            configure.configure(**options)
        except Exception:  # it would keep later instrumentors from loading
            errors.logger.exception("otel_pipeline_metrics is not configured")

    def _uninstrument(self, **kwargs: Any) -> None:
        try:
            configure.shutdown()
        except Exception:
            errors.logger.exception("otel_pipeline_metrics did not shut down cleanly")
