"""Tells code that runs inside the garbage collector, where Python before 3.12 needs care.

Before 3.12 a collection may begin in the middle of `ContextVar.set` or `reset`, whenever they
allocate. A gc callback, finalizer or weakref callback that sets a context variable then frees
the very structure that the interrupted call is working on: variables get lost, and the
interpreter may crash. From 3.12 on, collections begin between bytecodes. A stage or a run that is
entered from such a callback is therefore measured without being made current.

What is called here by the collector is C, every bit of it. A Python function would let signal
handlers in, of which nobody would know yet that they run inside of a collection, and whose
exceptions the collector would swallow.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from typing import Any

running_in: set[str] = set()
"""Not empty while a collection runs in some thread; always empty from Python 3.12 on."""

_latest: dict[str, object] = {}
_here = threading.local()


def here() -> bool:
    """Tell, while a collection runs, whether this code was called by it."""
    return getattr(_here, "start", None) is _latest.get("start")


# Each callback gets the phase, "start" or "stop", and a dictionary of that very collection. The
# set's own methods tell the phases apart: "start" leaves the letters "op", "stop" takes them out.
# The thread that is collecting is the one whose latest dictionary is the latest of all.
_first: list[Any] = [
    functools.partial(running_in.update, "op"),
    _latest.__setitem__,
    _here.__setattr__,
]
_last = running_in.difference_update


def stay_last() -> None:
    """Let callbacks that were added since come before the last of ours; asked now and then."""
    if sys.version_info < (3, 12) and gc.callbacks[-1] is not _last:
        gc.callbacks.remove(_last)
        gc.callbacks.append(_last)


if sys.version_info < (3, 12):
    gc.callbacks[:0] = _first
    gc.callbacks.append(_last)
