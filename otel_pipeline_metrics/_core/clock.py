"""Read the time in one place that tests can patch to assert exact numbers.

Call it as `clock.now()`: a name bound to the function would miss the patch.
"""

from __future__ import annotations

import time
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

# `freezegun` replaces the functions of `time` in every module that has them, which would make
# durations negative or decades long. It recognises them by identity, so it leaves those of a
# second instance of the module, which are the same functions otherwise, and as fast.
_spec: ModuleSpec = time.__spec__
_time: Any = module_from_spec(_spec)
_spec.loader.exec_module(_time)  # type: ignore[union-attr]  # a built-in module has a loader

# Seconds on a monotonic clock; only differences are meaningful.
now: Callable[[], float] = _time.perf_counter

# Seconds on a monotonic clock for deadlines, which go on while a test holds `now`.
monotonic: Callable[[], float] = _time.monotonic

# Seconds of CPU that the calling thread has used; a reading takes as long as twenty of the others.
cpu: Callable[[], float] = _time.thread_time

# Seconds since the Unix epoch: the program's own, also where a test has frozen it.
unix = time.time
