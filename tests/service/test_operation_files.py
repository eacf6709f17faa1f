"""Files of operations: whole or absent, never replaced, and removed by age and size."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics.service import MetricsManager, operation_files
from otel_pipeline_metrics.service.operation import checked_operation
from otel_pipeline_metrics.service.operation_files import OperationFiles, listed, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock

DAY = 24 * 3600


def write(files: OperationFiles, count: int = 1) -> None:
    files.write([checked_operation("test", "one", n) for n in range(count)], sync=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(folder: Path, stamp: str, data: Any = None) -> Path:
    """Write a file as one from another process would be."""
    path = folder / f"metrics_{stamp}.json"
    whole = {"records": [{}], "batch_id": stamp} if data is None else data
    path.write_text(whole if isinstance(whole, str) else json.dumps(whole), encoding="utf-8")
    return path


@pytest.mark.usefixtures("clock")
def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        put(tmp_path, f"20231114_223000_{number:06d}", "somebody else's")
    for _ in range(3):
        write(OperationFiles(tmp_path, 30, 2**30))
    found = {path.name[-11:-5]: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(found) == [f"{number:06d}" for number in range(6)]
    assert [text == "somebody else's" for _, text in sorted(found.items())] == [
        True, True, False, True, False, False,
    ]  # fmt: skip
    for number in (2, 4, 5):
        data = json.loads(found[f"{number:06d}"])
        assert data["batch_id"] == f"20231114_223000_{number:06d}"
        assert data["batch_timestamp"] == f"2023-11-14T22:30:00.{number:06d}+00:00"


@pytest.mark.parametrize(("sync", "pauses"), [(True, 19), (False, 3)])
def test_others_run_between_records_and_less_often_in_a_hurry(
    sync: bool, pauses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(operation_files.time, "sleep", slept.append)
    operations = [checked_operation("test", "one", n) for n in range(1000)]
    OperationFiles(tmp_path).write(operations, sync=sync)
    assert len(slept) == pauses


@pytest.mark.usefixtures("clock")
def test_a_clock_that_stands_still_costs_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []
    link = os.link
    monkeypatch.setattr(os, "link", lambda *given: (attempts.append(given), link(*given)))
    files = OperationFiles(tmp_path)
    for _ in range(50):
        write(files)
    assert (len(names(tmp_path)), len(attempts)) == (50, 50)


def test_the_stamp_moves_into_the_next_second(tmp_path: Path, clock: Clock) -> None:
    clock.time = 0.999999
    put(tmp_path, "20231114_221320_999999", "taken")
    write(OperationFiles(tmp_path, 30, 2**30))
    assert names(tmp_path)[1] == "metrics_20231114_221321_000000.json"


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    files = OperationFiles(tmp_path / "operations")
    for _ in range(2):
        write(files)
        shutil.rmtree(tmp_path / "operations")
    write(files)
    assert len(names(tmp_path / "operations")) == 1


@pytest.mark.parametrize("sync", [False, True])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync" if sync else "link", full)
    with pytest.raises(OSError, match="No space left"):
        OperationFiles(tmp_path, 30, 2**30).write([checked_operation("a", "b", 1)], sync=sync)
    assert names(tmp_path) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(_clock, "unix", lambda: 1_700_000_000.0)
    for _ in range(3):
        write(OperationFiles(tmp_path, 30, 2**30), 2)
    assert [len(read(path)) for path in sorted(tmp_path.iterdir())] == [2, 2, 2]


def test_max_bytes_removes_the_oldest(tmp_path: Path, clock: Clock) -> None:
    first = OperationFiles(tmp_path, 30, 2**30)
    write(first, 10)
    size = listed(tmp_path)[0].size
    files = OperationFiles(tmp_path, 30, 3 * size)
    lost = []
    for _ in range(5):
        clock.advance(1)
        write(files, 10)
        lost.append(files.limit())
    assert lost == [0, 0, 10, 10, 10]
    assert [file.stamp[-8:-7] for file in listed(tmp_path)] == ["3", "4", "5"]


def test_max_bytes_with_more_files_than_are_remembered(tmp_path: Path, clock: Clock) -> None:
    first = OperationFiles(tmp_path, 30, 2**30)
    for _ in range(200):
        clock.advance(1)
        write(first)
    sizes = [file.size for file in listed(tmp_path)]
    files = OperationFiles(tmp_path, 30, sum(sizes[-20:]))
    assert files.limit() == 180
    assert [file.size for file in listed(tmp_path)] == sizes[-20:]


async def test_what_max_bytes_removes_is_dropped(tmp_path: Path) -> None:
    async with MetricsManager(tmp_path, max_batch_size=5, max_bytes=1) as manager:
        for number in range(10):
            await manager.record_operation("test", "one", number)
    stats = await manager.get_stats()
    assert (stats.total_recorded, stats.total_persisted, stats.dropped) == (10, 10, 10)
    assert names(tmp_path) == []


async def test_only_files_that_are_ours_are_removed(tmp_path: Path, clock: Clock) -> None:
    """All are older than a year by their name; two are really ours."""
    ours = [put(tmp_path, f"20200101_00000{n}_000000") for n in range(2)]
    (tmp_path / "elsewhere.json").write_text(
        json.dumps({"batch_id": "20200101_000007_000000", "records": []})
    )
    foreign = [
        put(tmp_path, "20200101_000003_000000", {"records": [], "batch_id": "another"}),
        put(tmp_path, "20200101_000004_000000", "not JSON"),
        put(tmp_path, "20200101_000005_000000", [1, 2]),
        put(tmp_path, "20200101_000006_000000", {"batch_id": "20200101_000006_000000"}),
        put(tmp_path, "2020_01_01", {"records": [], "batch_id": "2020_01_01"}),
        tmp_path / "metrics_20200101_000007_000000.json",
        tmp_path / "metrics_20200101_000008_000000.json",
        tmp_path / "metrics_20200101_000009_000000.json.bak",
    ]
    foreign[5].symlink_to(tmp_path / "elsewhere.json")
    foreign[6].mkdir()
    foreign[7].touch()
    manager = MetricsManager(tmp_path)
    assert await manager.cleanup(30) == 2
    assert not any(path.exists() for path in ours)
    assert all(os.path.lexists(path) for path in foreign)
    assert (tmp_path / "elsewhere.json").exists()
    # the size limit spares them too, and does not try for ever
    assert OperationFiles(tmp_path, 3000, 1).limit() == 0
    assert all(os.path.lexists(path) for path in foreign)


async def test_cleanup_goes_by_the_time_in_the_name(tmp_path: Path, clock: Clock) -> None:
    manager = MetricsManager(tmp_path)
    files = OperationFiles(tmp_path, 3000, 2**30)
    for _ in range(5):
        write(files)
        clock.advance(DAY)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert await manager.cleanup() == 0
    assert await manager.cleanup(days=2.5) == 3
    assert len(names(tmp_path)) == 2
    assert await manager.cleanup(days=1e12) == 0
    assert await manager.cleanup(days=0) == 2
    for bad in (-1, float("nan"), "30"):
        with pytest.raises(ValueError, match="days"):
            await manager.cleanup(bad)  # type: ignore[arg-type]


async def test_a_manager_removes_what_is_too_old(tmp_path: Path, clock: Clock) -> None:
    write(OperationFiles(tmp_path, 3000, 2**30))
    clock.advance(7 * DAY)
    async with MetricsManager(tmp_path, max_age_days=6) as manager:
        await manager.record_operation("test", "one", 1)
    assert [file.stamp[:8] for file in listed(tmp_path)] == ["20231121"]
    assert (await manager.get_stats()).dropped == 0


def test_temporary_files_of_a_crash_are_swept(tmp_path: Path) -> None:
    old, new = (tmp_path / f".opm-operations-{n}-0badcafe.tmp" for n in (1, 2))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    OperationFiles(tmp_path, 30, 2**30).sweep()
    assert names(tmp_path) == [new.name]
