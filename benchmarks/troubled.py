"""Record operations on a full disk, a read-only one, with a clock that jumps, and side by side.

    python -m benchmarks.troubled [--operations 20000]

The disks are real: a file system of one mebibyte in memory, which needs the right to mount (root).
In each case every operation must be in the files exactly once or be counted as dropped, no file may
be partial, and the log must say what is wrong, in one line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from benchmarks.operations import numbers_in
from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics.service import MetricsManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline_metrics.service import MetricsStats

INTERVAL_S = 0.1
# what the small file system holds
SIZE = "1m"
# operations in a file, where files must be many
BATCH = 100


class TroubleError(Exception):
    """Something was lost, or not told."""


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def one(self, *parts: str) -> str:
        """Return the one line that has all these parts."""
        found = [line for line in self.lines if all(part in line for part in parts)]
        if len(found) != 1:
            raise TroubleError(f"{len(found)} lines in the log have {parts}: {self.lines}")
        return found[0]


def main() -> None:
    """Print what became of the operations; exit 1 if something is lost, or not told."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        asyncio.run(share(options.folder, options.child, options.operations))
        return
    wrong = 0
    for case in (full_disk, read_only, clock_back, two_managers):
        with tempfile.TemporaryDirectory() as folder:
            try:
                told = case(Path(folder), options.operations)
            except TroubleError as trouble:
                wrong, told = 1, f"FAILED: {trouble}"
        print(f"{case.__name__.replace('_', ' ')}: {told}", flush=True)
    sys.exit(wrong)


# --- a small file system --------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[str], None]]:
    """Mount a small file system at a folder; yield what changes its options."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)  # noqa: S607 - that of the machine

    mount(f"size={SIZE}")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607


def full_disk(folder: Path, count: int) -> str:
    return _on_small_disk(folder, count, "No space left", lambda _: None, "size=64m")


def read_only(folder: Path, count: int) -> str:
    def refuse(change: Callable[[str], None]) -> None:
        change("ro")
        try:
            MetricsManager(folder / "new")
        except OSError as error:
            if "storage_path cannot be made: Read-only file system" not in str(error):
                raise TroubleError(f"the error says: {error}") from None
        else:
            raise TroubleError("a folder on a read-only disk was made")

    return _on_small_disk(folder, count, "Read-only file system", refuse, "rw,size=64m")


def _on_small_disk(
    folder: Path,
    count: int,
    reason: str,
    harm: Callable[[Callable[[str], None]], None],
    cure: str,
) -> str:
    """Record until operations are dropped, mend the disk, and record a few more."""
    with _log() as log, small_disk(folder) as change:
        harm(change)
        stats, harmed = asyncio.run(_harmed(folder, count, lambda: change(cure)))
        found = _checked(folder, stats, count + BATCH)
        log.one(str(folder), reason, "tried again at each interval")
        log.one("operations are written to", "again")
    if not harmed.dropped or harmed.total_persisted + harmed.queue_size == count:
        raise TroubleError("the disk was not harmed")
    return (
        f"{harmed.total_persisted:,} were written before, {harmed.queue_size:,} waited and were "
        f"written after; {stats.dropped:,} of {stats.total_recorded:,} were dropped and counted, "
        f"{found:,} are in the files, once"
    )


async def _harmed(
    folder: Path, count: int, mend: Callable[[], None]
) -> tuple[MetricsStats, MetricsStats]:
    manager = MetricsManager(folder, INTERVAL_S)
    await manager.start()
    for number in range(count):
        manager.record_operation_nowait("bench", "operation", number)
        if number % BATCH == 0:
            await asyncio.sleep(INTERVAL_S / 20)
    harmed = await manager.get_stats()
    mend()
    until = time.monotonic() + 60
    while (await manager.get_stats()).queue_size:
        if time.monotonic() > until:
            raise TroubleError("what waited is not written although the disk is mended")
        await asyncio.sleep(INTERVAL_S)
    for number in range(count, count + BATCH):
        await manager.record_operation("bench", "operation", number)
    await manager.stop()
    return await manager.get_stats(), harmed


# --- a clock, and a folder that is shared ---------------------------------------------------------


def clock_back(folder: Path, count: int) -> str:
    """Let the clock jump back by an hour, ten times, so that names come again."""
    real, back = clock.unix, [0.0]

    async def record() -> MetricsStats:
        async with MetricsManager(folder, INTERVAL_S, BATCH, overflow="block") as manager:
            for number in range(count):
                if number % max(1, count // 10) == 0:
                    back[0] += 3600
                await manager.record_operation("bench", "operation", number)
        return await manager.get_stats()

    def unix() -> float:
        return real() - back[0]

    with mock.patch.object(clock, "unix", unix):
        stats = asyncio.run(record())
    found = _checked(folder, stats, count)
    if stats.dropped:
        raise TroubleError(f"{stats.dropped} were dropped")
    return f"{found:,} are in {stats.batches_written:,} files, once"


def two_managers(folder: Path, count: int) -> str:
    """Let two processes with two managers each write to one folder at the same time."""
    command = [sys.executable, "-m", "benchmarks.troubled", "--folder", str(folder)]
    command += [f"--operations={count}"]
    children = [subprocess.Popen([*command, f"--child={first}"]) for first in (0, 1)]
    if any([child.wait() for child in children]):  # noqa: C419 - wait for both
        raise TroubleError("a process failed")
    found = sorted(numbers_in(folder))
    if found != list(range(4 * count)):
        raise TroubleError(f"{len(found):,} of {4 * count:,} are in the files")
    files = len(list(folder.iterdir()))
    return f"{len(found):,} of four managers are in {files:,} files, once"


async def share(folder: Path, process: int, count: int) -> None:
    """Record with two managers, each a part of the numbers of its own."""

    async def record(first: int) -> None:
        async with MetricsManager(folder, INTERVAL_S, BATCH, overflow="block") as manager:
            for number in range(first * count, (first + 1) * count):
                await manager.record_operation("bench", "operation", number)

    await asyncio.gather(record(2 * process), record(2 * process + 1))


# --- checks ---------------------------------------------------------------------------------------


@contextmanager
def _log() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("otel_pipeline_metrics")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        logger.propagate = propagates


def _checked(folder: Path, stats: MetricsStats, recorded: int) -> int:
    """Return how many operations are in the files, if they are what the manager counted."""
    try:
        found = numbers_in(folder)
    except (ValueError, json.JSONDecodeError) as error:
        raise TroubleError(str(error)) from None
    if len(found) != len(set(found)):
        raise TroubleError(f"{len(found) - len(set(found)):,} are in the files twice")
    if len(found) != stats.total_persisted:
        raise TroubleError(
            f"{len(found):,} are in the files, but {stats.total_persisted:,} counted"
        )
    if stats.total_recorded != recorded or stats.queue_size:
        raise TroubleError(f"{recorded:,} were recorded: {stats}")
    if stats.total_persisted + stats.dropped != recorded:
        raise TroubleError(f"the counts do not add up: {stats}")
    left = [path.name for path in folder.iterdir() if path.suffix != ".json"]
    if left:
        raise TroubleError(f"left behind: {left}")
    return len(found)


if __name__ == "__main__":
    main()
