"""Find and install OpenTelemetry's global providers.

The API lets a global be set once. That protects the user's provider from us, and it stays so;
but after a second `configure()` the global would be our first provider, shut down by then.
Only for that case the API's private set-once is opened, and only here.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.util._once import Once

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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
# by identity: the provider of another library may be unhashable, or compare as it likes
_ours: list[weakref.ref[Any]] = []
# kinds whose provider of the environment cannot be used: the API logs a traceback at each trial
_broken: set[str] = set()


def existing(signal: Signal) -> Any:
    """Return the global provider that the user or another library installed, or None."""
    provider = _current(_GLOBALS[signal])
    # the class of the meters' proxy is private, so only its name can be compared
    is_proxy = type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")
    return None if is_proxy or _is_ours(provider) else provider


def all_existing() -> tuple[Any, Any]:
    """Return those of spans and of metrics."""
    return existing("traces"), existing("metrics")


def _current(each: _Global) -> Any:
    """Return the global provider; None if OTEL_PYTHON_..._PROVIDER names none that loads."""
    if each.kind in _broken and getattr(each.module, each.attribute, None) is None:
        return None
    try:
        provider = each.get()
    except Exception as error:  # StopIteration, or whatever its constructor raises
        problem = repr(error)
    else:
        if hasattr(provider, f"get_{each.kind}"):
            return provider
        problem = f"a {type(provider).__name__} is no provider"
    _broken.add(each.kind)
    errors.warn_once(
        f"global {each.kind} provider",
        "the global %s provider (OTEL_PYTHON_%s_PROVIDER) cannot be used: %s",
        each.kind,
        each.kind.upper(),
        problem,
    )
    return None


def broken_variables() -> dict[str, None]:
    """Return the variables that name a provider which cannot be used: the SDK would load it too."""
    return {f"OTEL_PYTHON_{kind.upper()}_PROVIDER": None for kind in _broken}


def _is_ours(provider: Any) -> bool:
    _ours[:] = [one for one in _ours if one() is not None]
    return any(one() is provider for one in _ours)


def install(signal: Signal, provider: Any) -> None:
    """Make `provider` the global one, unless another library's provider is installed."""
    if existing(signal) is not None:
        return
    each = _GLOBALS[signal]
    is_ours = _is_ours(_current(each))
    _ours.append(weakref.ref(provider))
    if not is_ours or _reopen(each):
        each.set(provider)


def forget_ours() -> None:
    """Remove a global provider of ours."""
    for each in _GLOBALS.values():
        if _is_ours(getattr(each.module, each.attribute, None)):
            _reopen(each)


@contextmanager
def replaced(tracer_provider: Any, meter_provider: Any) -> Iterator[None]:
    """Make these the global providers for a while."""
    given: dict[Signal, Any] = {"traces": tracer_provider, "metrics": meter_provider}
    before = _state()
    for signal, each in _GLOBALS.items():
        if _reopen(each):
            # `set` would also bind the meters that the program made before, and for good
            setattr(each.module, each.attribute, given[signal])
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def restored_on_error() -> Iterator[None]:
    """Remove the global providers that are set inside of this if an exception leaves it."""
    before = _state()
    try:
        yield
    except BaseException:
        kept = [value for _, _, value in before]
        made = [value for _, _, value in _state() if all(value is not one for one in kept)]
        _restore(before)
        for provider in made:
            if hasattr(provider, "shutdown"):
                provider.shutdown()  # its threads would go on
        raise


def _state() -> list[tuple[Any, str, Any]]:
    """Return what holds the global providers: module, name and value."""
    return [
        (each.module, name, getattr(each.module, name))
        for each in _GLOBALS.values()
        for name in (each.attribute, f"{each.attribute}_SET_ONCE")
        if hasattr(each.module, name)
    ]


def _restore(state: Iterable[tuple[Any, str, Any]]) -> None:
    for module, name, value in state:
        setattr(module, name, value)


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
