"""Keep what background threads say out of notebook cells that did not ask for it.

A kernel shows whatever is written in the cell that runs at that moment. So what other threads
than the one of the cells have to say waits until a run ends there, or until `flush()`.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from typing import Any, Final

# texts that wait; of further ones only the number is known
MOST: Final = 200

_KERNEL: Final = "ipykernel.iostream"

# without a lock: `append` and `popleft` are atomic, and a signal handler may write too
_held: deque[str] = deque()
_dropped = itertools.count()


def is_running() -> bool:
    """Tell whether what the program writes is shown in a notebook."""
    return _is_of_kernel(sys.stderr)


def _is_of_kernel(stream: Any) -> bool:
    return type(stream).__module__ == _KERNEL


def holds(stream: Any) -> bool:
    """Tell whether this thread must not write to the stream now."""
    return _is_of_kernel(stream) and threading.get_ident() != threading.main_thread().ident


def hold(text: str) -> None:
    """Keep a text for `taken`."""
    if len(_held) < MOST:
        _held.append(text)
    else:
        next(_dropped)


def taken() -> list[str]:
    """Return the texts that wait, which wait no longer."""
    global _dropped
    found = []
    while _held:
        try:
            found.append(_held.popleft())
        except IndexError:  # another thread was quicker
            break
    dropped, _dropped = next(_dropped), itertools.count()
    if dropped:
        found.append(f"… and {dropped:,} more")
    return found
