"""The base of everything that stands in for a limit."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._probes.queues.instrumented import Instrumented, Slotted

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.limits.probe import LimitProbe


class Limited(Slotted):
    """A stand-in of a limit; every attribute that it does not count is the wrapped object's."""

    __slots__ = ()

    # a `LimitProbe`
    _opm_probe: Any

    def __init__(self, limit: Any, probe: LimitProbe) -> None:
        object.__setattr__(self, "_opm_queue", limit)
        object.__setattr__(self, "_opm_probe", probe)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the wrapped object, if that can be pickled; another process counts anew."""
        make, arguments = self._opm_probe.again
        return make, (self._opm_queue, *arguments)


class _OfInstance(property):
    """A special method that each object has its own function for, in a slot.

    Python looks for special methods in the class only. It asks a property for the function in C.
    """

    def __call__(self, stand_in: Any, /, *arguments: Any) -> Any:
        """Call it through the class, as `ExitStack` does."""
        return self.__get__(stand_in)(*arguments)


class LimitedOpen(Limited, Instrumented):
    """A stand-in of a limit that may have any other attribute."""

    __slots__ = ()


class _Slots(Limited):
    __slots__ = ("_opm_enter", "_opm_exit", "acquire", "release")


class LimitedBySlots(_Slots):
    """A stand-in with methods in its slots: the fastest to call in a class with `__getattr__`."""

    __slots__ = ()

    def _opm_set(self, acquire: Any, release: Any, enter: Any, leave: Any) -> None:
        for name, function in (
            ("acquire", acquire),
            ("release", release),
            ("_opm_enter", enter),
            ("_opm_exit", leave),
        ):
            object.__setattr__(self, name, function)


# for `__enter__` and `__exit__`, or `__aenter__` and `__aexit__`
ENTER: Final = _OfInstance(vars(_Slots)["_opm_enter"].__get__)
EXIT: Final = _OfInstance(vars(_Slots)["_opm_exit"].__get__)


def with_attributes_of(base: type[Limited], kind: type) -> type[Limited]:
    """Return the class of a stand-in whose other attributes are those of a class of C.

    A class with `__getattr__` makes every look-up slower, before Python 3.13.
    """
    names = [name for name in dir(kind) if not hasattr(base, name)]
    others = {name: property(attrgetter(f"_opm_queue.{name}")) for name in names}
    return type(base.__name__, (base,), {"__slots__": (), **others})
