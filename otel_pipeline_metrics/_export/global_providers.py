"""Find and install OpenTelemetry's global providers.

The API lets a global be set once. That protects the user's provider from us, and it stays so;
but after a second `configure()` the global would be our first provider, shut down by then.
Only for that case the API's private set-once is opened, and only here.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.util._once import Once

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from otel_pipeline_metrics._export.environment import Signal


class _Global(NamedTuple):
    """The global provider of one signal in the API."""

    kind: str
    get: Callable[[], Any]
    set: Callable[[Any], None]
    # the module and the private attribute that hold it
    module: ModuleType | None
    attribute: str


_GLOBALS: Final[dict[Signal, _Global]] = {
    "traces": _Global(
        "tracer", trace.get_tracer_provider, trace.set_tracer_provider, trace, "_TRACER_PROVIDER"
    ),
    "metrics": _Global(
        "meter",
        metrics.get_meter_provider,
        metrics.set_meter_provider,
        # `opentelemetry.metrics` re-exports the functions, the state is one level down
        getattr(metrics, "_internal", None),
        "_METER_PROVIDER",
    ),
}
_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def existing(signal: Signal) -> Any:
    """Return the global provider that the user or another library installed, or None."""
    kind = _GLOBALS[signal].kind
    try:
        provider = _GLOBALS[signal].get()
    except Exception:  # OTEL_PYTHON_..._PROVIDER names a provider that cannot be loaded
        errors.warn_once(f"global {kind} provider", f"the global {kind} provider cannot be loaded")
        return None
    # the class of the meters' proxy is private, so only its name can be compared
    is_proxy = type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")
    return None if is_proxy or provider in _ours else provider


def install(signal: Signal, provider: Any) -> None:
    """Make `provider` the global one, unless another library's provider is installed."""
    if existing(signal) is not None:
        return
    _ours.add(provider)
    if _GLOBALS[signal].get() not in _ours or _reopen(_GLOBALS[signal]):
        _GLOBALS[signal].set(provider)


def forget_ours() -> None:
    """Remove a global provider of ours."""
    for each in _GLOBALS.values():
        if getattr(each.module, each.attribute, None) in _ours:
            _reopen(each)


def _reopen(each: _Global) -> bool:
    """Let a global of ours be set again; return whether that is possible."""
    once = f"{each.attribute}_SET_ONCE"
    if not (hasattr(each.module, each.attribute) and hasattr(each.module, once)):
        errors.warn_once(
            f"reopen {each.attribute}",
            "this version of opentelemetry-api does not let the global provider of an earlier "
            "configure() be replaced: spans and metrics of other libraries still go to it",
        )
        return False
    setattr(each.module, each.attribute, None)
    setattr(each.module, once, Once())
    return True
