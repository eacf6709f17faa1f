"""MetricsManager: what is recorded is in a file once, or counted."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core.attribute_keys import LAST, PERSONAL, SECRETS
from otel_pipeline_metrics.service import MetricsManager, MetricsStats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Clock

    Records = Callable[[], list[dict[str, Any]]]


async def test_a_record_has_what_was_given(tmp_path: Path, records: Records, clock: Clock) -> None:
    async with MetricsManager(tmp_path) as manager:
        await manager.record_operation("database", "insert", 12.5, metadata={"n": 3, "to": ["a"]})
        clock.advance(0.25)
        await manager.record_operation("http", "get", 3, success=False, error_message="refused")
    first, second = records()
    assert first == {
        "operation_type": "database",
        "operation_name": "insert",
        "duration_ms": 12.5,
        "timestamp": "2023-11-14T22:30:00.000000+00:00",
        "success": True,
        "error_message": None,
        "metadata": {"n": 3, "to": ["a"]},
    }
    assert second == {
        "operation_type": "http",
        "operation_name": "get",
        "duration_ms": 3.0,
        "timestamp": "2023-11-14T22:30:00.250000+00:00",
        "success": False,
        "error_message": "refused",
        "metadata": {},
    }
    (path,) = tmp_path.iterdir()
    assert path.name == "metrics_20231114_223000_250000.json"
    assert json.loads(path.read_text())["batch_timestamp"] == "2023-11-14T22:30:00.250000+00:00"
    assert await manager.get_stats() == MetricsStats(
        total_recorded=2,
        total_persisted=2,
        queue_size=0,
        batches_written=1,
        last_flush_timestamp="2023-11-14T22:30:00.250000+00:00",
        avg_batch_size=2.0,
        is_running=False,
        dropped=0,
    )


async def test_a_full_batch_is_written_at_once(tmp_path: Path, records: Records) -> None:
    manager = MetricsManager(tmp_path / "made" / "too", 3600.0, max_batch_size=10)
    await manager.start()
    for number in range(25):
        await manager.record_operation("test", "count", number)
    while (await manager.get_stats()).batches_written < 2:
        await asyncio.sleep(0.001)
    stats = await manager.get_stats()
    assert (stats.total_recorded, stats.total_persisted, stats.queue_size) == (25, 20, 5)
    assert stats.is_running
    await manager.stop()
    sizes = [
        json.loads(path.read_text())["total_records"]
        for path in sorted((tmp_path / "made" / "too").iterdir())
    ]
    assert sizes == [10, 10, 5]


async def test_a_file_is_written_at_each_interval(tmp_path: Path) -> None:
    async with MetricsManager(tmp_path, 0.01) as manager:
        for _ in range(2):
            await manager.record_operation("test", "one", 1)
            before = len(list(tmp_path.glob("metrics_*.json")))
            while len(list(tmp_path.glob("metrics_*.json"))) == before:
                await asyncio.sleep(0.001)
    assert (await manager.get_stats()).batches_written == 2


async def test_it_starts_once_and_again_after_a_stop(tmp_path: Path, records: Records) -> None:
    manager = MetricsManager(tmp_path)
    with pytest.raises(RuntimeError, match="not running"):
        await manager.record_operation("test", "early", 1)
    with pytest.raises(RuntimeError, match="not running"):
        manager.record_operation_nowait("test", "early", 1)
    await manager.stop()
    for number in (1, 2):
        await manager.start()
        with pytest.raises(RuntimeError, match="running already"):
            await manager.start()
        await manager.record_operation("test", "one", number)
        await manager.stop()
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.batches_written, stats.avg_batch_size) == (2, 2, 1.0)
    assert [each["duration_ms"] for each in records()] == [1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operation_type": ""}, "operation_type must not be empty"),
        ({"operation_name": None}, "operation_name must be a string"),
        ({"operation_name": "n" * 129}, "operation_name must be at most 128"),
        ({"duration_ms": -1}, "duration_ms must not be negative"),
        ({"duration_ms": float("nan")}, "duration_ms must be finite"),
        ({"duration_ms": float("inf")}, "duration_ms must be finite"),
        ({"duration_ms": "fast"}, "duration_ms must be a number"),
        ({"duration_ms": True}, "duration_ms must be a number"),
        ({"success": "yes"}, "success must be True or False"),
        ({"error_message": KeyError()}, "error_message must be a string"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {1: 2}}, "keys must be strings"),
        ({"metadata": {"": 2}}, "keys must be strings"),
        ({"metadata": {"when": object()}}, "must be a value that JSON has"),
        ({"metadata": {"data": b"bytes"}}, "must be a value that JSON has"),
        ({"metadata": {"ratio": float("nan")}}, "must be finite"),
        ({"metadata": {"deep": [[[[[[[[[[1]]]]]]]]]]}}, "levels deep"),
        ({"metadata": {"big": 1 << 5000}}, "1024 bits"),
        ({"metadata": {"pipeline.name": "a"}}, "own"),
    ],
)
async def test_a_bad_value_is_refused(tmp_path: Path, given: Any, message: str) -> None:
    async with MetricsManager(tmp_path) as manager:
        values = {"operation_type": "test", "operation_name": "one", "duration_ms": 1, **given}
        with pytest.raises(ValueError, match=message):
            await manager.record_operation(**values)
        with pytest.raises(ValueError, match=message):
            manager.record_operation_nowait(**values)
    assert (await manager.get_stats()).total_recorded == 0


@pytest.mark.parametrize("key", sorted(PERSONAL | SECRETS | LAST))
async def test_a_forbidden_key_is_refused_at_any_depth(tmp_path: Path, key: str) -> None:
    async with MetricsManager(tmp_path) as manager:
        for metadata in (
            {key: 1}, {key.upper(): 1}, {f"http.{key}": 1}, {"in": {key: 1}}, {"in": [{key: 1}]},
        ):  # fmt: skip
            with pytest.raises(ValueError, match="forbidden"):
                await manager.record_operation("test", "one", 1, metadata=metadata)
            with pytest.raises(ValueError, match="forbidden"):
                manager.track_operation("test", "one", metadata)


async def test_a_circle_is_refused(tmp_path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    async with MetricsManager(tmp_path) as manager:
        with pytest.raises(ValueError, match="levels deep"):
            await manager.record_operation("test", "one", 1, metadata=circle)


async def test_metadata_is_copied(tmp_path: Path, records: Records) -> None:
    given = {"parts": [1], "\udc80": "\ud800", "big": 1 << 1000}
    async with MetricsManager(tmp_path) as manager:
        await manager.record_operation("test", "one", 1, metadata=given)
        given["parts"].append(object())  # type: ignore[attr-defined]
    assert records()[0]["metadata"] == {"parts": [1], "\udc80": "\ud800", "big": 1 << 1000}


async def test_a_message_is_cut_and_without_credentials(tmp_path: Path, records: Records) -> None:
    async with MetricsManager(tmp_path) as manager:
        await manager.record_operation("test", "one", 1, False, "x" * 5000)
        await manager.record_operation("test", "one", 1, False, "at http://me:word@host/?token=ab")
    long, url = (each["error_message"] for each in records())
    assert long == "x" * 999 + "…"
    assert url == "at http://host/?token=***"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"storage_path": 3}, TypeError, "storage_path"),
        ({"storage_path": ""}, ValueError, "storage_path"),
        ({"flush_interval_seconds": 0}, ValueError, "flush_interval_seconds"),
        ({"flush_interval_seconds": "1"}, TypeError, "flush_interval_seconds"),
        ({"max_batch_size": 0}, ValueError, "max_batch_size"),
        ({"max_batch_size": 1.5}, TypeError, "max_batch_size"),
        ({"max_queue_size": -1}, ValueError, "max_queue_size"),
        ({"overflow": "wait"}, ValueError, "overflow must be one of drop, block, raise"),
        ({"max_age_days": 0}, ValueError, "max_age_days"),
        ({"max_bytes": 0}, ValueError, "max_bytes"),
    ],
)
def test_a_bad_argument_is_named(tmp_path: Path, given: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        MetricsManager(**{"storage_path": tmp_path, **given})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="storage_path cannot be made"):
        MetricsManager(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="storage_path cannot be made"):
        MetricsManager(tmp_path / "file" / "below")


async def test_threads_record_each_operation_once(tmp_path: Path, records: Records) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 500):
            manager.record_operation_nowait("test", "thread", number)

    async with MetricsManager(tmp_path, max_batch_size=100) as manager:
        threads = [threading.Thread(target=work, args=(500 * one,)) for one in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
    assert sorted(each["duration_ms"] for each in records()) == list(range(4000))
    stats = await manager.get_stats()
    assert (stats.total_persisted, stats.batches_written, stats.dropped) == (4000, 40, 0)


async def test_two_managers_share_a_folder(tmp_path: Path, records: Records, clock: Clock) -> None:
    """Their clock stands still, so both want the same names."""
    one, other = (MetricsManager(tmp_path, max_batch_size=1) for _ in range(2))
    async with one, other:
        for number in range(100):
            await one.record_operation("test", "one", number)
            await other.record_operation("test", "other", number)
    found = [(each["operation_name"], each["duration_ms"]) for each in records()]
    assert sorted(found) == sorted((name, n) for name in ("one", "other") for n in range(100))
    assert len(list(tmp_path.iterdir())) == 200


async def test_a_clock_that_jumps_back_costs_nothing(
    tmp_path: Path, records: Records, clock: Clock
) -> None:
    async with MetricsManager(tmp_path, max_batch_size=1) as manager:
        for number in range(20):
            await manager.record_operation("test", "one", number)
            while (await manager.get_stats()).queue_size:
                await asyncio.sleep(0.001)
            # back to a time whose name is taken
            clock.advance(1.0 if number % 2 else -1.0)
    assert sorted(each["duration_ms"] for each in records()) == list(range(20))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"metrics_20231114_{at}_{number:06d}.json"
        for at in ("222959", "223000")
        for number in range(10)
    ]
