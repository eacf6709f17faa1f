"""OpenTelemetry's global providers: whose they are, and how ours replaces an earlier one of ours.

The API lets a global be set once. That protects the user's provider from us, and it stays so;
but after a second `configure()` the global would be our first provider, shut down by then.
Only for that case the API's private set-once is opened, and only here.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.util._once import Once

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from types import ModuleType


_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def tracer_provider() -> trace.TracerProvider | None:
    """Return the global tracer provider if there is one and it is not ours."""
    try:
        provider = trace.get_tracer_provider()
    except Exception:  # OTEL_PYTHON_TRACER_PROVIDER names what cannot be loaded
        errors.warn_once("global tracer provider", "the global tracer provider cannot be loaded")
        return None
    if isinstance(provider, trace.ProxyTracerProvider) or provider in _ours:
        return None
    return provider


def meter_provider() -> metrics.MeterProvider | None:
    """Return the global meter provider if there is one and it is not ours."""
    try:
        provider = metrics.get_meter_provider()
    except Exception:  # OTEL_PYTHON_METER_PROVIDER names what cannot be loaded
        errors.warn_once("global meter provider", "the global meter provider cannot be loaded")
        return None
    # The proxy's class is private; only its name tells.
    if type(provider).__name__ == "_ProxyMeterProvider" or provider in _ours:
        return None
    return provider


def install_tracer_provider(provider: trace.TracerProvider) -> bool:
    """Make `provider` the global one unless there is one of somebody else's."""
    if tracer_provider() is not None:
        return False
    _ours.add(provider)
    if trace.get_tracer_provider() in _ours and not _reopen(trace, "_TRACER_PROVIDER"):
        return False
    trace.set_tracer_provider(provider)
    return trace.get_tracer_provider() is provider


def install_meter_provider(provider: metrics.MeterProvider) -> bool:
    """Make `provider` the global one unless there is one of somebody else's."""
    if meter_provider() is not None:
        return False
    _ours.add(provider)
    if metrics.get_meter_provider() in _ours and not _reopen(_metrics_module(), "_METER_PROVIDER"):
        return False
    metrics.set_meter_provider(provider)
    return metrics.get_meter_provider() is provider


def forget_ours() -> None:
    """Leave no provider of ours behind as the global one."""
    for module, name in ((trace, "_TRACER_PROVIDER"), (_metrics_module(), "_METER_PROVIDER")):
        if getattr(module, name, None) in _ours:
            _reopen(module, name)


def _metrics_module() -> ModuleType | None:
    # `opentelemetry.metrics` re-exports the functions, the state is one level down.
    return getattr(metrics, "_internal", None)


def _reopen(module: ModuleType | None, name: str) -> bool:
    """Let a global of ours be set again; say whether it can be."""
    once = f"{name}_SET_ONCE"
    if not (hasattr(module, name) and hasattr(module, once)):
        errors.warn_once(
            f"reopen {name}",
            "this version of opentelemetry-api does not let the global provider of an earlier "
            "configure() be replaced: spans and metrics of other libraries keep going to it",
        )
        return False
    setattr(module, name, None)
    setattr(module, once, Once())
    return True
