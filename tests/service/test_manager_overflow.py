"""A full queue drops, waits or raises; a disk that fails or hangs loses nothing uncounted."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics.service import MetricsManager
from otel_pipeline_metrics.service.operation import checked_operation
from otel_pipeline_metrics.service.operation_files import OperationFiles
from otel_pipeline_metrics.service.operation_queue import OperationQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    Records = Callable[[], list[dict[str, Any]]]


class Disk:
    """A disk that a test fills, empties, holds and lets go."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.free = threading.Event()
        self.free.set()
        self.attempts = 0

    def before(self) -> None:
        self.attempts += 1
        assert self.free.wait(30)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    write = OperationFiles.write

    def slow(self: OperationFiles, *args: Any, **options: Any) -> str:
        found.before()
        return write(self, *args, **options)

    monkeypatch.setattr(OperationFiles, "write", slow)
    return found


async def attempts(disk: Disk, count: int) -> None:
    while disk.attempts < count:
        await asyncio.sleep(0.001)


async def test_drop_counts_the_newest(tmp_path: Path, records: Records) -> None:
    async with MetricsManager(tmp_path, 3600.0, max_queue_size=10) as manager:
        for number in range(15):
            await manager.record_operation("test", "one", number)
        stats = await manager.get_stats()
        assert (stats.total_recorded, stats.queue_size, stats.dropped) == (15, 10, 5)
    assert [each["duration_ms"] for each in records()] == list(range(10))
    stats = await manager.get_stats()
    assert (stats.total_recorded, stats.total_persisted, stats.dropped) == (15, 10, 5)


async def test_raise_raises(tmp_path: Path, records: Records) -> None:
    async with MetricsManager(tmp_path, 3600.0, max_queue_size=3, overflow="raise") as manager:
        for number in range(3):
            await manager.record_operation("test", "one", number)
        with pytest.raises(asyncio.QueueFull):
            await manager.record_operation("test", "one", 3)
        with pytest.raises(asyncio.QueueFull):
            manager.record_operation_nowait("test", "one", 3)
        assert (await manager.get_stats()).total_recorded == 3
    assert len(records()) == 3


async def test_block_waits_for_the_disk(tmp_path: Path, records: Records, disk: Disk) -> None:
    async with MetricsManager(tmp_path, 3600.0, 2, 2, overflow="block") as manager:
        disk.free.clear()
        for number in range(2):
            await manager.record_operation("test", "one", number)
        waiting = [
            asyncio.ensure_future(manager.record_operation("test", "one", number))
            for number in range(2, 10)
        ]
        with pytest.raises(asyncio.QueueFull):
            manager.record_operation_nowait("test", "one", 0)
        await attempts(disk, 1)
        assert not any(each.done() for each in waiting)
        waiting[3].cancel()
        disk.free.set()
        await asyncio.wait(waiting)
        assert [each.cancelled() for each in waiting] == [number == 3 for number in range(8)]
    assert sorted(each["duration_ms"] for each in records()) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert (await manager.get_stats()).dropped == 0
    assert manager._queue._rooms == {}


async def test_block_writes_early_for_those_who_wait(tmp_path: Path, records: Records) -> None:
    """The queue is smaller than a batch, and the interval is an hour."""
    async with MetricsManager(tmp_path, 3600.0, 1000, 4, overflow="block") as manager:
        for number in range(20):
            await manager.record_operation("test", "one", number)
    assert [each["duration_ms"] for each in records()] == list(range(20))


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (3, 3), (1, 1000), (3, 1000)])
async def test_those_who_wait_come_in_turn_though_some_give_up(
    tmp_path: Path, records: Records, size: int, batch: int
) -> None:
    """Every third is cancelled, some of them just as there is room for them."""
    async with MetricsManager(tmp_path, 3600.0, batch, size, overflow="block") as manager:
        waiting = [
            asyncio.ensure_future(manager.record_operation("test", "one", number))
            for number in range(90)
        ]
        for number in range(0, 90, 3):
            while manager._queue.counts().recorded + number // 3 < number // 2:
                await asyncio.sleep(0.001)
            waiting[number].cancel()
        done, _ = await asyncio.wait(waiting, timeout=60)
    assert len(done) == 90
    kept = [number for number, each in enumerate(waiting) if not each.cancelled()]
    assert len(kept) >= 60
    found = [each["duration_ms"] for each in records()]
    assert sorted(found) == kept
    assert manager._queue._rooms == {}


async def test_a_stop_ends_the_waiting(tmp_path: Path, disk: Disk) -> None:
    manager = MetricsManager(tmp_path, 3600.0, 1, 1, overflow="block")
    await manager.start()
    disk.free.clear()
    await manager.record_operation("test", "one", 0)
    waiting = asyncio.ensure_future(manager.record_operation("test", "one", 1))
    await attempts(disk, 1)
    stopping = asyncio.ensure_future(manager.stop())
    with pytest.raises(RuntimeError, match="not running"):
        await waiting
    disk.free.set()
    await stopping
    stats = await manager.get_stats()
    assert (stats.total_recorded, stats.total_persisted, stats.dropped) == (1, 1, 0)


async def test_one_warning_at_half_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with MetricsManager(tmp_path, 3600.0, max_queue_size=10) as manager:
        for number in range(4):
            await manager.record_operation("test", "one", number)
        assert caplog.records == []
        for number in range(20):
            await manager.record_operation("test", "one", number)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "half of the 10 operations" in warning.message
    assert "dropped and counted" in warning.message


async def test_a_full_disk_loses_nothing_that_there_is_room_for(
    tmp_path: Path, records: Records, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with MetricsManager(tmp_path, 0.01, 3, 7) as manager:
        disk.error = OSError(28, "No space left on device")
        for number in range(10):
            await manager.record_operation("test", "one", number)
        await attempts(disk, 3)
        stats = await manager.get_stats()
        assert (stats.total_recorded, stats.queue_size, stats.dropped) == (10, 7, 3)
        assert manager.failure == "No space left on device"
        disk.error = None
    assert [each["duration_ms"] for each in records()] == list(range(7))
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.dropped) == (7, 3)
    said = [each.message for each in caplog.records if "cannot be written" in each.message]
    assert len(said) == 1
    assert f"{tmp_path} (No space left on device)" in said[0]


async def test_a_disk_that_stays_full_is_counted_at_the_end(
    tmp_path: Path, records: Records, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.error = OSError(28, "No space left on device")
    async with MetricsManager(tmp_path) as manager:
        for number in range(10):
            await manager.record_operation("test", "one", number)
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.queue_size, stats.dropped) == (0, 0, 10)
    assert records() == []
    assert "10 operations could not be written" in caplog.text


async def test_a_stop_that_takes_too_long(tmp_path: Path, records: Records, disk: Disk) -> None:
    manager = MetricsManager(tmp_path, 3600.0, max_batch_size=4)
    await manager.start()
    disk.free.clear()
    for number in range(10):
        await manager.record_operation("test", "one", number)
    with pytest.raises(asyncio.TimeoutError):
        await manager.stop(timeout=0.01)
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.queue_size, stats.dropped) == (0, 0, 10)
    with pytest.raises(RuntimeError, match="still writing"):
        await manager.start()
    disk.free.set()
    while not manager._writer.wait(0):  # type: ignore[union-attr]
        await asyncio.sleep(0.001)
    # the file that was being written is there, and is counted as such
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.queue_size, stats.dropped) == (4, 0, 6)
    assert [each["duration_ms"] for each in records()] == [0, 1, 2, 3]
    await manager.start()
    await manager.stop()


async def test_an_internal_error_costs_one_batch(
    tmp_path: Path, records: Records, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "raise_faults", False)
    disk.error = RuntimeError("not an OSError")  # type: ignore[assignment]
    async with MetricsManager(tmp_path, 3600.0, max_batch_size=2) as manager:
        for number in range(2):
            await manager.record_operation("test", "one", number)
        await attempts(disk, 1)
        disk.error = None
        for number in range(2, 4):
            await manager.record_operation("test", "one", number)
    stats = await manager.get_stats()
    assert (stats.total_recorded, stats.total_persisted, stats.dropped) == (4, 2, 2)
    assert [each["duration_ms"] for each in records()] == [2, 3]


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="needs to be root")
@pytest.mark.processes
def test_a_folder_that_may_not_be_written_to() -> None:
    """A child that is not root runs a manager on a folder of root's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                code = asyncio.run(_unwritable(folder))
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(folder.iterdir()) == []


async def _unwritable(folder: Path) -> int:
    async with MetricsManager(folder, 3600.0, max_queue_size=3) as manager:
        for number in range(5):
            await manager.record_operation("test", "one", number)
    stats = await manager.get_stats()
    counts = (stats.total_recorded, stats.total_persisted, stats.queue_size, stats.dropped)
    return 0 if counts == (5, 0, 0, 5) and manager.failure == "Permission denied" else 2


async def test_an_exception_of_the_block_is_not_replaced(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MetricsManager(tmp_path, 3600.0)
    stop = manager.stop
    monkeypatch.setattr(manager, "stop", lambda: stop(timeout=0.01))
    for error, expected in ((KeyError("of the block"), KeyError), (None, asyncio.TimeoutError)):
        disk.free.clear()

        async def block(error: BaseException | None) -> None:
            async with manager:
                await manager.record_operation("test", "one", 1)
                if error is not None:
                    raise error

        with pytest.raises(expected):
            await block(error)
        disk.free.set()
        while not manager._writer.wait(0):  # type: ignore[union-attr]
            await asyncio.sleep(0.001)


async def test_room_for_one_who_gave_up_goes_to_the_next() -> None:
    loop = asyncio.get_running_loop()
    waiting = OperationQueue(1, "block", 10, "queue", lambda: None)
    waiting.open()
    operation = checked_operation("test", "one", 1)
    assert waiting.offer(operation)
    assert waiting.offer(operation) is False
    first, second, third = (waiting.wait_for_room(loop) for _ in range(3))
    waiting.forget(second)
    waiting.written(len(waiting.take()))
    await asyncio.sleep(0)
    assert [room.done() for room in (first, second, third)] == [True, False, False]
    waiting.forget(first)
    await asyncio.sleep(0)
    assert third.done()
    assert not second.done()
    assert waiting.offer(operation)
    # the queue is full again, so nobody else is told
    fourth = waiting.wait_for_room(loop)
    waiting.forget(third)
    await asyncio.sleep(0)
    assert not fourth.done()
    waiting.close()
    await asyncio.sleep(0)
    assert fourth.done()
