"""Tell whether the garbage collector runs this code.

Before 3.12 a collection may begin in the middle of `ContextVar.set` or `reset`, whenever they
allocate. A gc callback, finalizer or weakref callback that sets a context variable then frees the
structure that the interrupted call is working on: variables get lost, and the interpreter may
crash. From 3.12 on, collections begin between bytecodes. A stage or a run that such a callback
enters is therefore measured without being made current.

The callbacks of this module are all C functions. A Python function would let signal handlers run
before this module knows that a collection runs, and the collector would swallow their exceptions.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from typing import Any

# Not empty while a call has more to do than the least: while there are spans, workers or calls that
# overlap (see `hooks`), and before Python 3.12 while a thread runs a collection. One look at it
# tells the hot path that there is nothing of all that.
extras: set[str] = set()

# The same without workers: steps of generators may have nothing to tell theirs one by one.
others: set[str] = set()

_latest: dict[str, object] = {}


def _native_local() -> Any:
    """Return a `threading.local` of the interpreter's own.

    That of gevent or eventlet asks for the current greenlet, which fails in the collections at the
    interpreter's end, after greenlets: "greenlet is being finalized".
    """
    native = (kind for kind in object.__subclasses__() if kind.__module__ == "_thread")
    found = {kind.__name__: kind for kind in native}
    return found.get("_local", threading.local)()


_here = _native_local()


def here() -> bool:
    """Tell whether the collection that runs now called this code."""
    return "p" in extras and getattr(_here, "start", None) is _latest.get("start")


# Each callback gets the phase, "start" or "stop", and a new dictionary for each collection. The
# set's methods tell the phases apart: "start" leaves the letters "op", "stop" removes them. The
# thread that collects is the one whose last dictionary is the last of all threads.
_first: list[Any] = [
    functools.partial(others.update, "op"),
    functools.partial(extras.update, "op"),
    _latest.__setitem__,
    _here.__setattr__,
]
_last: list[Any] = [others.difference_update, extras.difference_update]


def stay_last() -> None:
    """Move our last callbacks behind callbacks that were added since."""
    if sys.version_info < (3, 12) and gc.callbacks[-1] is not _last[-1]:
        for ours in _last:
            gc.callbacks.remove(ours)
            gc.callbacks.append(ours)


def switch_extra(name: str, *, on: bool) -> None:
    """Tell calls that there is more to do, or no more of that."""
    for each in (extras,) if name == "workers" else (others, extras):
        (each.add if on else each.discard)(name)


if sys.version_info < (3, 12):
    gc.callbacks[:0] = _first
    gc.callbacks += _last
