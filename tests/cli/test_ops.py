"""The command `ops`: what a folder of operations holds, and deleting what is old."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from otel_pipeline_metrics.cli.app import app
from otel_pipeline_metrics.service.operation import checked_operation
from otel_pipeline_metrics.service.operation_files import OperationFiles, listed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock

DAY = 24 * 3600


def ops(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["ops", *arguments])
    return done.exit_code, done.output


def test_a_folder_is_summed_up(tmp_path: Path, clock: Clock) -> None:
    files = OperationFiles(tmp_path)
    inserts = [checked_operation("database", "insert", n, n % 10 != 0) for n in range(1, 101)]
    clock.advance(1)
    files.write(inserts, sync=False)
    files.write([checked_operation("http", "get", 2000)], sync=False)
    (tmp_path / "metrics_20200101_000000_000000.json").write_text("not JSON")
    (tmp_path / "note.txt").write_text("not ours")
    code, said = ops(str(tmp_path))
    assert code == 0
    size = sum(file.size for file in listed(tmp_path) if file.stamp > "2021") / 1024
    assert said.splitlines() == [
        f"101 operations in 2 files, {size:.1f} KiB",
        "from 2023-11-14T22:30:00.000000+00:00 to 2023-11-14T22:30:01.000000+00:00",
        "1 file could not be read",
        "",
        "type      name    count     errors   total      p50      p95      p99     max",
        # within one per cent of 50, 95 and 99 ms, and never above the largest
        "database  insert    100  10 (10 %)  5.05 s  50.3 ms  95.4 ms  99.2 ms  100 ms",
        "http      get         1    0 (0 %)  2.00 s   2.00 s   2.00 s   2.00 s  2.00 s",
    ]


def test_an_empty_folder(tmp_path: Path) -> None:
    assert ops(str(tmp_path)) == (0, "0 operations in 0 files, 0 B\n")


def test_records_of_other_programs(tmp_path: Path) -> None:
    stamp = "20231114_223000_000000"
    records = [{}, {"duration_ms": "long"}, {"duration_ms": -1}, {"duration_ms": 1e999}]
    data = {"batch_id": stamp, "records": records}
    (tmp_path / f"metrics_{stamp}.json").write_text(json.dumps(data))
    code, said = ops(str(tmp_path))
    assert code == 0
    assert said.splitlines()[-1].split() == [
        "None", "None", "4", "0", "(0", "%)", "0", "s", "0", "s", "0", "s", "0", "s", "0", "s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("age", "left"), [("30d", 4), ("36h", 2), ("2160m", 2), ("129600s", 2), ("1w", 4), ("0s", 0)]
)
def test_old_files_are_deleted(tmp_path: Path, clock: Clock, age: str, left: int) -> None:
    files = OperationFiles(tmp_path)
    for _ in range(4):
        files.write([checked_operation("test", "one", 1)], sync=False)
        clock.advance(DAY)
    clock.advance(-DAY / 2)
    code, said = ops(str(tmp_path), "--delete-older", age)
    assert code == 0
    assert said.splitlines()[0] == f"{4 - left} files deleted"
    assert len(listed(tmp_path)) == left


@pytest.mark.parametrize("age", ["30", "d", "-1d", "3x", ""])
def test_a_bad_age_deletes_nothing(tmp_path: Path, age: str) -> None:
    OperationFiles(tmp_path).write([checked_operation("test", "one", 1)], sync=False)
    code, said = ops(str(tmp_path), "--delete-older", age)
    assert code == 2
    assert "is not an age such as 30d" in said
    assert len(listed(tmp_path)) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, said = ops(str(tmp_path / "none"))
    assert code == 2
    assert said.startswith("otel-pipeline-metrics: cannot read")
    assert len(said.splitlines()) == 1
