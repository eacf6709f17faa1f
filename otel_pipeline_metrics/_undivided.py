"""Work that a signal must not end half-way: what it asks for meanwhile is done right after.

Signal handlers run on the main thread, in the middle of whatever it does. A batch that has left
its series and not reached its sinks, a report half written, a flush half done: a handler of ours
that ended the process there would lose them, and one that waited for them would wait for ever.

Whether such work is in progress is seen on the stack, and noted nowhere: an exception that another
handler raises may skip a note, and cannot leave anything on the stack.
"""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")

_afterwards: list[Callable[[], None]] = []


def undivided(work: Callable[[], T]) -> T:
    """Do `work`, then what was put off meanwhile."""
    try:
        return _do(work)
    finally:
        if _afterwards and threading.current_thread() is threading.main_thread():
            _make_up()


def put_off(call: Callable[[], None], frame: FrameType | None) -> bool:
    """Have `call` made after the work that `frame`, which a signal interrupted, is part of.

    False where it is part of none.
    """
    while frame is not None:
        if frame.f_code is _do.__code__:
            _afterwards.append(call)
            return True
        frame = frame.f_back
    return False


def _do(work: Callable[[], T]) -> T:
    return work()


def _make_up() -> None:
    calls = _afterwards[:]
    _afterwards.clear()
    for call in calls:
        if not put_off(call, inspect.currentframe()):
            call()
