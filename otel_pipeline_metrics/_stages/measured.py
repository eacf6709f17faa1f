"""Measure a callable that is no Python function: a partial, a builtin, an object with `__call__`.

A function in its place would become a method as the attribute of a class, and would lack what the
callable has besides its call: `cache_info` of `lru_cache`, `delay` of a task. So the wrapper is an
object that passes on everything but the call: attributes, special methods, `isinstance`.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Special methods that it has itself, or that are looked up on classes.
_OWN: Final = frozenset({
    "__call__", "__class__", "__class_getitem__", "__copy__", "__deepcopy__", "__del__",
    "__delattr__", "__dict__", "__dir__", "__doc__", "__get__", "__getattr__", "__getattribute__",
    "__getnewargs__", "__getnewargs_ex__", "__getstate__", "__init__", "__init_subclass__",
    "__module__", "__new__", "__reduce__", "__reduce_ex__", "__set_name__", "__setattr__",
    "__setstate__", "__slots__", "__subclasshook__", "__weakref__",
})  # fmt: skip

# What decorators set on the wrapper, and is not meant for what it wraps.
_ABOUT_IT: Final = frozenset({*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__opm_stage__"})


class Measured:
    """The wrapper of a callable that is no Python function."""

    def __init__(
        self, function: Callable[..., Any], call: Callable[..., Any], begun: bool, how: Any
    ) -> None:
        own = vars(self)
        own["_opm_call"] = call
        own["_opm_begun"] = begun
        if isinstance(type(function).__call__, types.FunctionType):
            # for who looks what it is: a coroutine function, for instance
            own["__call__"] = call
        own["_opm_how"] = how
        functools.update_wrapper(self, function, updated=())

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it, and measure that."""
        own = vars(self)
        if own["_opm_begun"]:
            # raises what is wrong with the arguments; nothing of it runs yet
            begun = own["__wrapped__"](*args, **kwargs)
            if isinstance(begun, types.CoroutineType):
                begun.close()
            del begun
        return own["_opm_call"](*args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The class of what it wraps, so that `isinstance` is the same."""
        return vars(self)["__wrapped__"].__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["__wrapped__"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ABOUT_IT:
            vars(self)[name] = value
        else:
            setattr(vars(self)["__wrapped__"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(vars(self)["__wrapped__"], name)

    def __dir__(self) -> list[str]:
        return dir(vars(self)["__wrapped__"])

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle as its name if it has one, or with what it wraps."""
        name = str(getattr(self, "__qualname__", ""))
        found: Any = sys.modules.get(str(getattr(self, "__module__", None)))
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        wrap, stage, items = vars(self)["_opm_how"]
        return wrap, (vars(self)["__wrapped__"], stage, items)

    def __reduce_ex__(self, _: Any) -> str | tuple[Any, ...]:
        return self.__reduce__()


def measured(
    function: Callable[..., Any], call: Callable[..., Any], begun: bool, how: Any
) -> Callable[..., Any]:
    """Return the wrapper of a callable.

    Args:
        function: the callable.
        call: a function that measures a call of it.
        begun: whether calling it only begins it, as with a coroutine function.
        how: `wrap`, the stage and the counter of items, to make it anew from a pickle.
    """
    kind = type(function)
    special = {
        name: _passed_on(name)
        for name in dir(kind)
        if name.startswith("__")
        and name not in _OWN
        and callable(getattr(kind, name, None))
        and getattr(kind, name) is not getattr(object, name, None)
    }
    if getattr(kind, "__hash__", None) is None:
        special["__hash__"] = None
    if hasattr(kind, "__get__"):
        special["__get__"] = _get
    made: type[Measured] = types.new_class(
        kind.__name__, (Measured,), exec_body=lambda body: body.update(special)
    )
    return made(function, call, begun, how)


def is_measured(function: Any) -> bool:
    """Tell whether it is such a wrapper; `isinstance` asks for `__class__` too."""
    return issubclass(type(function), Measured)


def _passed_on(name: str) -> Any:
    def special(self: Measured, /, *args: Any, **kwargs: Any) -> Any:
        function = vars(self)["__wrapped__"]
        return getattr(type(function), name)(function, *args, **kwargs)

    special.__name__ = name
    return special


def _get(self: Any, instance: Any, owner: type | None = None) -> Any:
    """Return what an attribute of a class gives: the wrapper as a method if it binds."""
    own = vars(self)
    function = own["__wrapped__"]
    bound = type(function).__get__(function, instance, owner)
    if bound is function:
        return self
    if isinstance(bound, types.MethodType) and bound.__func__ is function:
        return types.MethodType(self, bound.__self__)
    if not callable(bound):
        return bound
    wrap, stage, items = own["_opm_how"]
    return wrap(bound, stage, items)
