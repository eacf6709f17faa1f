"""Test that a report's file is complete, also after failures, or missing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterator


@opm.process
def work() -> str:
    return "done"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files of this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_folder_is_made_and_the_file_is_the_report(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "export_metrics.json"
    with opm.run("r", report=path, resources=False) as run:
        work()
    assert json.loads(path.read_text()) == run.report.to_dict()
    assert [path] == list(path.parent.iterdir())


def test_a_string_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opm.run("r", report="report.json", resources=False):
        pass
    assert opm.RunReport.load(tmp_path / "report.json").run["pipeline"] == "r"


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ValueError("x"), "failure"),
        (asyncio.CancelledError(), "cancellation"),
        (KeyboardInterrupt(), "cancellation"),
        (TimeoutError(), "timeout"),
    ],
    ids=repr,
)
def test_the_report_is_written_after_a_failure(
    tmp_path: Path, error: BaseException, result: str
) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(type(error)), opm.run("r", report=path, resources=False):  # noqa: PT012
        work()
        raise error
    report = opm.RunReport.load(path)
    assert (report.run["result"], report.run["partial"]) == (result, True)
    assert [(stage["name"], stage["count"]) for stage in report.stages] == [("work", 1)]


def test_nothing_is_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("the one before")
    with opm.run("r", report=path, resources=False):
        work()
        assert path.read_text() == "the one before"
    assert opm.RunReport.load(path).run["result"] == "success"


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opm.run("r", resources=False):
        work()
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_an_ordinary_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with opm.run("r", report=tmp_path / "report.json", resources=False):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640


def unwritable(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "file").write_text("a file, not a folder")
    (folder / "folder").mkdir()
    yield "a file for a folder", folder / "file" / "report.json"
    yield "a folder for a file", folder / "folder"
    yield "a name too long", folder / ("n" * 300)
    yield "no real file system", Path("/proc/nowhere/report.json")
    yield "a null byte", folder / "nul\0byte.json"


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("fails", [False, True])
def test_a_report_that_cannot_be_written_goes_to_a_temporary_file(
    tmp_path: Path, elsewhere: Path, caplog: pytest.LogCaptureFixture, number: int, *, fails: bool
) -> None:
    """The run's result stays, and the log names the file."""
    _, path = list(unwritable(tmp_path))[number]
    error = ValueError("the run's own")
    raised = None
    try:
        with opm.run("r", report=path, resources=False) as run:
            assert work() == "done"
            if fails:
                raise error
    except ValueError as caught:
        raised = caught
    assert raised is (error if fails else None)
    (written,) = elsewhere.iterdir()
    assert opm.RunReport.load(written) == run.report
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    message = record.getMessage()
    assert message.startswith("the report could not be written to ")
    assert message.endswith(f"; it was written to {written}")
    assert re.search(r" \(\S.*\)", message)
    assert (tmp_path / "file").read_text() == "a file, not a folder"
    assert list((tmp_path / "folder").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "temporary"]


def test_a_full_disk_leaves_the_old_report_whole(
    tmp_path: Path,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "report.json"
    path.write_text("the one before")
    fsync = os.fsync
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with opm.run("r", report=path, resources=False) as run:
        work()
    assert path.read_text() == "the one before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "temporary"]
    (written,) = elsewhere.iterdir()
    assert opm.RunReport.load(written) == run.report
    assert "No space left on device" in caplog.text


def test_a_run_without_any_place_for_its_file_only_lacks_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_pipeline_metrics._core import errors

    monkeypatch.setattr(errors, "raise_faults", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    (tmp_path / "file").touch()
    with opm.run("r", report=tmp_path / "file" / "x.json", resources=False) as run:
        assert work() == "done"
    assert run.report.run["result"] == "success"
    assert [stage["count"] for stage in run.report.stages] == [1]
    assert any(record.levelno >= logging.WARNING for record in caplog.records)


def test_save_raises_an_error_that_names_the_problem(tmp_path: Path) -> None:
    with opm.run("r", resources=False) as run:
        pass
    assert run.report.save(tmp_path / "x" / "report.json") == tmp_path / "x" / "report.json"
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run.report.save(tmp_path / "file" / "report.json")
