"""Share helpers of these tests."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from otel_pipeline_metrics import current_stage
from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._stages import execution, sampling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROOT = Path(__file__).resolve().parents[2]


def nothing_current() -> bool:
    """Tell whether neither a span nor an execution is current."""
    return (
        trace.get_current_span() is trace.INVALID_SPAN
        and current_stage() is execution.NOOP_EXECUTION
    )


def in_flight(stage: str) -> int:
    """Return how many executions of `stage` are open."""
    return sum(s.active for s in series.all_series() if s.key.stage == stage)


def sample_no_more() -> None:
    """Have the calls of the known stages end on the hot path, which samples do not."""
    for each in series.all_series():
        each.until_due = 10**9
        sampling.arm(each)


def outcomes(results: Any, stage: str) -> list[str]:
    """Return the outcomes of the calls of `stage` that report more than a duration."""
    return [r.outcome for r in results.of(stage)]


def run_script(text: str, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script from a file of its own, with the package importable."""
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of any kind to its end; return what it returned or yielded."""

    async def collect(values: Any) -> list[Any]:
        return [value async for value in values]

    returned = function(*args, **kwargs)
    if inspect.iscoroutine(returned):
        return asyncio.run(returned)
    if inspect.isgenerator(returned):
        return next(iter(list(returned)))
    if inspect.isasyncgen(returned):
        return asyncio.run(collect(returned))[0]
    return returned


async def anext_of(generator: AsyncIterator[Any]) -> Any:
    return await generator.__anext__()


async def turn() -> None:
    """Let the event loop run everything else once."""
    await asyncio.sleep(0)


def run_debugging(main: Awaitable[Any]) -> Any:
    """Run a coroutine with asyncio's debug mode on."""

    async def patient() -> Any:
        # collecting the heap of a long session takes longer than asyncio's tenth of a second
        asyncio.get_running_loop().slow_callback_duration = 60
        return await main

    return asyncio.run(patient(), debug=True)
