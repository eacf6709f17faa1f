"""Count the steps that the library's Python code takes, for tests of how work grows."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Python 3.12 sends no events of instructions to a function that asks for them in its first call.
_EVENT = "line" if sys.version_info[:2] == (3, 12) else "opcode"

_PACKAGE = str(Path(otel_pipeline_metrics.__file__).parent)


def steps_of(work: Callable[[], object]) -> int:
    """Return how many instructions, or lines, of the library `work` executes in this thread."""
    steps = 0

    def count(_: FrameType, event: str, __: Any) -> Any:
        nonlocal steps
        steps += event == _EVENT
        return count

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = _EVENT == "opcode"
        frame.f_trace_lines = _EVENT == "line"
        return count

    before = sys.gettrace()
    # finalizers of what earlier tests left behind are not part of the work
    gc.collect()
    gc.disable()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return steps


def growth(work: Callable[[int], Callable[[], object]], size: int = 40) -> float:
    """Return how often more steps are taken for four times the size: 4 is linear, 16 quadratic.

    Args:
        work: prepares for a size, and returns what is counted.
        size: the smaller of the two.
    """
    few, many = steps_of(work(size)), steps_of(work(4 * size))
    return many / few
