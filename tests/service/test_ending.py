"""Processes that are killed, forked, or end without stop(): what is in the files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics.service import MetricsManager

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Records = Callable[[], list[dict[str, Any]]]

pytestmark = pytest.mark.processes

# Records as fast as it can, and prints each number once it is recorded.
PROGRAM = """
import asyncio, sys
from otel_pipeline_metrics.service import MetricsManager

async def main():
    manager = MetricsManager(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    await manager.start()
    number = 0
    while number < int(sys.argv[4]):
        await manager.record_operation("test", "one", number)
        print(number, flush=True)
        number += 1
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    {ending}

asyncio.run(main())
"""


def start(folder: Path, ending: str, *arguments: float) -> subprocess.Popen[str]:
    program = PROGRAM.format(ending=ending)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# 50 moments in benchmarks/operations.py, which also says how much may be missing
@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4))
def test_a_kill_leaves_whole_files(tmp_path: Path, moment: int) -> None:
    interval_s = 0.2
    process = start(tmp_path, "", interval_s, 50, 1_000_000)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == "0\n"
    time.sleep(0.25 * moment + 0.1)
    process.kill()
    printed = [first, *process.stdout]
    process.communicate()
    found = []
    for path in sorted(tmp_path.glob("metrics_*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["total_records"] == len(data["records"])
        found += [record["duration_ms"] for record in data["records"]]
    # each once, in order, without a gap: only the newest are missing
    assert found == list(range(len(found)))
    assert len(found) <= len(printed) + 1


def test_a_program_that_ends_without_stop_loses_nothing(tmp_path: Path, records: Records) -> None:
    process = start(tmp_path, "", 3600, 1000, 30)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert [each["duration_ms"] for each in records()] == list(range(30))


def test_sigterm_loses_nothing(tmp_path: Path, records: Records) -> None:
    process = start(tmp_path, "await asyncio.sleep(60)", 3600, 1000, 30)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "29\n":
            break
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGTERM
    assert [each["duration_ms"] for each in records()] == list(range(30))


async def test_a_forked_child_starts_stopped_and_empty(tmp_path: Path, records: Records) -> None:
    async with MetricsManager(tmp_path, 3600.0) as manager:
        for number in range(10):
            await manager.record_operation("test", "parent", number)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _in_child(manager)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = [(each["operation_name"], each["duration_ms"]) for each in records()]
    assert sorted(found) == [("child", 1.0), *[("parent", float(n)) for n in range(10)]]


def _in_child(manager: MetricsManager) -> int:
    # the loop that runs belongs to the parent
    asyncio._set_running_loop(None)

    async def work() -> int:
        before = await manager.get_stats()
        if manager.is_running or before.total_recorded or before.queue_size:
            return 2
        async with manager:
            await manager.record_operation("test", "child", 1)
        return 0 if (await manager.get_stats()).total_persisted == 1 else 3

    return asyncio.run(work())
