"""Test that loading a file gives the whole report or an error with its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def report() -> opm.RunReport:
    with opm.run("Nächtlich", resources=False) as run, opm.fetch("página") as stage:
        stage.add_items(3)
    return run.report


def test_round_trip(report: opm.RunReport, tmp_path: Path) -> None:
    path = report.save(tmp_path / "report.json")
    loaded = opm.RunReport.load(path)
    assert loaded == report
    assert loaded.to_dict() == report.to_dict()
    assert loaded.to_json() == report.to_json()
    assert loaded.render() == report.render()
    assert opm.RunReport.load(str(path)) == report
    assert opm.RunReport(report.to_dict()) == report


def test_the_file_is_plain_json_that_people_can_read(report: opm.RunReport, tmp_path: Path) -> None:
    text = report.save(tmp_path / "report.json").read_text(encoding="utf-8")
    assert "Nächtlich" in text
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 20
    assert report.to_json(indent=None).count("\n") == 0


def test_equal_by_content(report: opm.RunReport) -> None:
    other = report.to_dict()
    other["run"]["wall_s"] += 1
    assert report != opm.RunReport(other)
    assert report != "a report"
    with pytest.raises(TypeError):
        hash(report)


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing here"):
        opm.RunReport.load(tmp_path / "nothing here.json")
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        opm.RunReport.load(tmp_path)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)  # type: ignore[return-value]


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("future", lambda d: d.update(schema="otel_pipeline_metrics/report/3"), "report/3.*report/2"),
    ("far future", lambda d: d.update(schema="otel_pipeline_metrics/report/10"), "report/10"),
    ("foreign", lambda d: d.update(schema="somebody/else/1"), "not a report.*somebody/else/1"),
    ("no schema", without("schema"), "not a report: its schema is None"),
    ("schema of no string", lambda d: d.update(schema=1), "not a report: its schema is 1"),
    ("no stages", without("stages"), "not a whole report: 'stages'"),
    ("no run", without("run"), "not a whole report: 'run'"),
    ("stages of no list", lambda d: d.update(stages={}), "not a whole report: 'stages'"),
    ("resources null", lambda d: d.update(resources=None), "not a whole report: 'resources'"),
]


@pytest.mark.parametrize(
    ("change", "says"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES]
)
def test_a_file_of_another_format_is_refused(
    report: opm.RunReport,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    says: str,
) -> None:
    data = report.to_dict()
    change(data)
    path = tmp_path / "the file.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=says) as raised:
        opm.RunReport.load(path)
    assert str(raised.value).startswith(str(path))
    with pytest.raises(ValueError, match=says):
        opm.RunReport(data)


@pytest.mark.parametrize("kept", [0, 1, 10, 200])
def test_a_truncated_file_is_refused(report: opm.RunReport, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.json"
    path.write_text(report.to_json()[:kept])
    with pytest.raises(ValueError, match="is not JSON, or is cut off") as raised:
        opm.RunReport.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00binary", b"[]", b"null", b"7", b'"text"', b"{}", b"<html></html>"],
    ids=repr,
)
def test_data_that_is_not_a_report_is_refused(tmp_path: Path, content: bytes) -> None:
    """Binary data too, with a ValueError that names the file."""
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        opm.RunReport.load(path)


def test_unknown_fields_are_kept(report: opm.RunReport, tmp_path: Path) -> None:
    """A newer version of the library may add fields."""
    data = {**report.to_dict(), "added": {"later": 1}}
    data["stages"][0]["new"] = True
    path = opm.RunReport(data).save(tmp_path / "report.json")
    assert opm.RunReport.load(path).to_dict() == data


def test_formats() -> None:
    with opm.run("r", resources=False) as run:
        pass
    assert run.report.render("json") == run.report.to_json()
    assert run.report.render() == run.report.render("console")
    with pytest.raises(ValueError, match=r"format must be one of console, .*not 'yaml'"):
        run.report.render("yaml")  # type: ignore[arg-type]
