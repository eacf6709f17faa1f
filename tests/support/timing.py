"""How long a process took, without its waiting for a core of a busy machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

POLL_S = 0.005


def own_time(pid: int | str = "self") -> float:
    """Return the time of day less all that the process's main thread has waited for a core.

    The difference of two such times is what the program took; other programs do not lengthen it.
    Where the system does not tell, it is the time of day.
    """
    try:
        waited_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        waited_ns = 0
    return time.time() - waited_ns / 1e9


def own_time_at_end(process: subprocess.Popen[str], timeout_s: float) -> float:
    """Wait for the process to end; return its own time then. Its exit code is still to be read."""
    give_up_at = time.monotonic() + timeout_s
    how = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, process.pid, how) is None:
        if time.monotonic() > give_up_at:
            process.kill()
            raise TimeoutError(f"the process has not ended within {timeout_s:g} s")
        time.sleep(POLL_S)
    return own_time(process.pid)
