"""The plugin: `opentelemetry-instrument python app.py` configures a decorated program."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # untyped
    BaseInstrumentor,
)

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._lifecycle import configure

if TYPE_CHECKING:
    from collections.abc import Collection


_OPTIONS = frozenset(inspect.signature(configure.configure).parameters)


class PipelineMetricsInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it is untyped
    """Configures otel_pipeline_metrics on the providers that the process has.

    `instrument()` takes the arguments of `configure()`. Nothing is patched: it is decorated
    functions that report. It never raises, since an exception here would keep every later
    instrumentation from loading.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: no library is patched, so none has to be there."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {key: value for key, value in kwargs.items() if key in _OPTIONS}
        try:
            configure.configure(**options)
        except Exception:  # an exception would abort every later instrumentor
            errors.logger.exception("otel_pipeline_metrics is not configured")

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base class's signature
        try:
            configure.shutdown()
        except Exception:
            errors.logger.exception("otel_pipeline_metrics did not shut down cleanly")
