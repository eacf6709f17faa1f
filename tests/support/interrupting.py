"""Raise an exception at each line of chosen files in turn, as a signal handler may.

Python handles signals in the middle of a line too, as a call of C returns. Such places are struck
as well, but in 3.12, which tells a tracer of them not reliably. As a Python function returns, 3.10
alone handles signals, and that is not struck: what it returns may be lost there for good.
"""

from __future__ import annotations

import dis
import functools
import itertools
import linecache
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, ModuleType


class StrikeError(TimeoutError):
    """Raised by the handler; the program gets it, though it is an `OSError` as well."""


def handler(*_: object) -> None:
    """Raise: the library tells by this function's frame that the program raised it."""
    raise StrikeError


@contextmanager
def striking() -> Iterator[None]:
    """Install the handler."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def strike_at(n: int, call: Callable[[], object], *modules: ModuleType) -> bool:
    """Call, and raise `StrikeError` at the n-th place (from 0) that runs in `modules`.

    A place is the begin of a line, or the return of a call in the middle of one. Only the calling
    thread is struck. Returns False if there are fewer places.

    Raises:
        AssertionError: the exception did not reach the caller.
    """
    files = {module.__file__ for module in modules}
    places = itertools.count()
    caller: FrameType | None = None
    struck = False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal struck, caller
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = _IN_LINES
        if event == "opcode":
            is_place = frame.f_lasti in _after_calls(frame.f_code) and caller is not frame
            caller = None
        else:
            is_place = event == "line" and not _leaves_with(frame) and not _leaves_except(frame)
        if is_place and next(places) == n:
            struck = True
            sys.settrace(None)
            signal.raise_signal(signal.SIGUSR1)
        return trace

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal caller
        # C calls these
        if event == "return" and not frame.f_code.co_name.startswith("__"):
            caller = frame.f_back

    before = sys.gettrace(), sys.getprofile()
    sys.setprofile(note)
    sys.settrace(trace)
    try:
        call()
    except StrikeError:
        assert struck
        return True
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert not struck, "the program's exception was swallowed"
    return False


def strike_at_every_line(
    call: Callable[[], object], after: Callable[[int], object], *modules: ModuleType
) -> int:
    """Call again and again, strike one place later each time; return how often that was.

    Args:
        call: what is interrupted.
        after: called after each strike, with the number of strikes so far.
        modules: what is struck.
    """
    with striking():
        for n in itertools.count():
            if not strike_at(n, call, *modules):
                return n
            after(n + 1)
    raise AssertionError


def _leaves_with(frame: FrameType) -> bool:
    """Tell whether a `with` block is being left.

    A line event comes before `__exit__` is called, where Python handles no signal.
    """
    return frame.f_lasti not in _first_instructions(frame.f_code) and linecache.getline(
        frame.f_code.co_filename, frame.f_lineno
    ).lstrip().startswith(("with ", "async with "))


def _leaves_except(frame: FrameType) -> bool:
    """Tell whether a handler is being left, where Python handles no signal either.

    An exception there would leave the one that was handled in `sys.exc_info()` for good.
    """
    code = frame.f_code.co_code[frame.f_lasti :]
    return _OPERATIONS.get(code[0]) == "POP_EXCEPT" or (
        _OPERATIONS.get(code[0]) == "NOP" and _OPERATIONS.get(code[2]) == "POP_EXCEPT"
    )


_IN_LINES: Final = sys.version_info[:2] != (3, 12)


@functools.cache
def _after_calls(code: CodeType) -> frozenset[int]:
    """Return where calls return to, but for those that begin a line."""
    called, found = False, []
    for instruction in dis.get_instructions(code):
        if called and instruction.offset not in _first_instructions(code):
            found.append(instruction.offset)
        called = instruction.opname.startswith("CALL")
    return frozenset(found)


_OPERATIONS = {number: name for name, number in dis.opmap.items()}


@functools.cache
def _first_instructions(code: CodeType) -> set[int]:
    """Return where the code of each line begins."""
    first: dict[int, int] = {}
    for offset, line in dis.findlinestarts(code):
        if line is not None:
            first[line] = min(offset, first.get(line, offset))
    return set(first.values())
