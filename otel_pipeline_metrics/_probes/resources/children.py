"""Read the CPU time of child processes, and of theirs: those that ended, and those that live."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

# Of the fields behind the name in `/proc/PID/stat`: user and system time of the process, and of its
# children that it waited for.
_TIMES: Final = slice(11, 15)
# What reading of a thread, or of a process, raises that has ended meanwhile.
_ENDED: Final = (FileNotFoundError, ProcessLookupError)


def cpu_s() -> float | None:
    """Return the CPU seconds of all child processes so far; None where that cannot be read.

    It may fall for a moment, while a child that has ended is not waited for.
    """
    if sys.platform != "linux":
        return None
    from resource import RUSAGE_CHILDREN, getrusage

    ended = getrusage(RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    try:
        # tells whether there is a child, and leaves its end to the program
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return seconds
    if not os.access("/proc/thread-self/children", os.R_OK):  # a kernel or a sandbox without it
        return None
    return seconds + _ticks_below("self") / os.sysconf("SC_CLK_TCK")


def _ticks_below(process: str) -> int:
    """Return the CPU ticks of the living children of a process, and of all below them."""
    ticks = 0
    tasks = f"/proc/{process}/task"
    with os.scandir(tasks) as threads:
        names = [thread.name for thread in threads]
    for name in names:
        with suppress(*_ENDED):
            for child in _read(f"{tasks}/{name}/children").split():
                with suppress(*_ENDED):
                    fields = _read(f"/proc/{child}/stat").rpartition(")")[2].split()
                    ticks += sum(map(int, fields[_TIMES])) + _ticks_below(child)
    return ticks


def _read(path: str) -> str:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 1 << 16).decode("ascii", "replace")
    finally:
        os.close(file)
