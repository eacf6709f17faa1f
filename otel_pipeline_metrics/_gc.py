"""Tells code that runs inside the garbage collector, where Python before 3.12 needs care.

Before 3.12 a collection may begin in the middle of `ContextVar.set` or `reset`, whenever they
allocate. A gc callback, finalizer or weakref callback that sets a context variable then frees
the very structure that the interrupted call is working on: variables get lost, and the
interpreter may crash. From 3.12 on, collections begin between bytecodes. A stage that is
entered from such a callback is therefore measured without being made current.
"""

from __future__ import annotations

import gc
import sys
from threading import get_ident

running_in = 0
"""The thread in which a collection runs; 0 for none, and always 0 from Python 3.12 on."""


def here() -> bool:
    """Tell whether this code was called by the garbage collector."""
    return running_in == get_ident()


def _first(phase: str, info: dict[str, int]) -> None:  # noqa: ARG001 - gc's signature
    global running_in  # noqa: PLW0603 - read on the hot path
    if phase == "start":
        running_in = get_ident()
        # callbacks that were added since belong between these two
        if gc.callbacks[-1] is not _last:
            gc.callbacks.remove(_last)
            gc.callbacks.append(_last)


def _last(phase: str, info: dict[str, int]) -> None:  # noqa: ARG001 - gc's signature
    global running_in  # noqa: PLW0603 - as above
    if phase == "stop":
        running_in = 0


if sys.version_info < (3, 12):
    gc.callbacks.insert(0, _first)
    gc.callbacks.append(_last)
