"""Read the report's part about limits, and bring threads to where they wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import series

if TYPE_CHECKING:
    from collections.abc import Callable

    import otel_pipeline_metrics as opm


def limit_of(run: opm.Run, name: str = "x") -> dict[str, Any]:
    """Return the report's part about one limit."""
    (found,) = [limit for limit in run.report.to_dict()["limits"] if limit["name"] == name]
    return dict(found)


def stages_of(run: opm.Run, name: str = "x") -> dict[str | None, tuple[float | None, float | None]]:
    """Return the seconds waited and held of each stage at a limit."""
    return {one["stage"]: (one["waited_s"], one["held_s"]) for one in limit_of(run, name)["stages"]}


def numbers(run: opm.Run, name: str = "x") -> tuple[Any, ...]:
    """Return a limit's max, average and peak usage, permits and seconds waited."""
    found = limit_of(run, name)
    keys = ("max", "usage_avg", "usage_peak", "acquired")
    return (*(found[key] for key in keys), found["wait_s"]["total"])


def waiting() -> int:
    """Return how many workers of the current run wait."""
    workers = list(series.default_scope.workers.values())
    return sum(len(worker.waits) for worker in workers)


def until(true: Callable[[], object]) -> None:
    """Wait for something that another thread is about to do."""
    give_up_at = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.0005)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    """Run a function in a thread."""
    thread = threading.Thread(target=function)
    thread.start()
    return thread
