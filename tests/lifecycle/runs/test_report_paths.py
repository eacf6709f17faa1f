"""Test what `run(report=...)` makes of a path: its suffix, its placeholders, the home folder."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.files import safe_name

if TYPE_CHECKING:
    from tests.conftest import Clock


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("r.html", "<!doctype html>"),
        ("r.HTM", "<!doctype html>"),
        ("r.md", "### nightly: success"),
        ("r.json", "{"),
        ("r", "{"),
        (".hidden", "{"),
        ("in.folder/r", "{"),
        ("r.", "{"),
    ],
)
def test_the_suffix_is_the_format(tmp_path: Path, name: str, begins: str) -> None:
    with opm.run("nightly", report=tmp_path / name, resources=False) as run:
        pass
    text = (tmp_path / name).read_text()
    assert text.lower().startswith(begins.lower())
    assert text.endswith("\n")
    if begins == "{":
        assert json.loads(text) == run.report.to_dict()


@pytest.mark.parametrize("name", ["r.txt", "r.json.gz", "r.jsn", "r.{date}"])
def test_an_unknown_suffix_is_an_error_where_the_run_is_made(name: str) -> None:
    with pytest.raises(ValueError, match=r"report: the suffix '.*' is unknown; .* \.html"):
        opm.run("nightly", report=name)


class Bytes(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"r"


@pytest.mark.parametrize("wrong", [3, b"r.json", Bytes(), True, ["r"]])
def test_what_is_no_path(wrong: Any) -> None:
    with pytest.raises(TypeError, match="report must be a path or None"):
        opm.run("nightly", report=wrong)


def test_an_empty_path() -> None:
    with pytest.raises(ValueError, match="report must not be empty"):
        opm.run("nightly", report="")


def test_a_page_without_the_package_for_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"'r\.html' needs jinja2: .*\[cli\]"):
        opm.run("nightly", report="r.html")


def test_placeholders_are_filled_when_the_run_begins(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.time = 0.0  # 2023-11-14, 22:13:20 UTC
    monkeypatch.chdir(tmp_path)
    run = opm.run("nightly", report="{pipeline}/{date}/{run_id}.json", resources=False)
    clock.advance(2 * 3600)
    monkeypatch.chdir("/")
    with run:
        pass
    assert written(tmp_path) == [f"nightly/2023-11-15/{run.id}.json"]
    started = run.report.run["started"]
    assert started is not None
    assert started.startswith("2023-11-15T00:13")


def test_other_braces_are_literal(tmp_path: Path) -> None:
    name = "{}{other}{{pipeline}}{PIPELINE}{pipeline!r}{0}%s"
    with opm.run("nightly", report=tmp_path / name, resources=False):
        pass
    assert written(tmp_path) == ["{}{other}{nightly}{PIPELINE}{pipeline!r}{0}%s"]


def test_values_are_not_filled_again(tmp_path: Path) -> None:
    with opm.run("{run_id}", report=tmp_path / "{pipeline}", resources=False):
        pass
    assert written(tmp_path) == ["_run_id_"]


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home {date}"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for path in ("~/a", Path("~/b"), "x~", "~nobody-here/c", "{pipeline}"):
        with opm.run("~", report=path, resources=False):
            pass
    assert written(tmp_path) == [
        "_",
        "home {date}/a",
        "home {date}/b",
        "x~",
        "~nobody-here/c",
    ]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("nightly", "nightly"),
        ("a/b\\c:d", "a_b_c_d"),
        ("..", "_"),
        ("../../etc/passwd", "__.._etc_passwd"),
        ("...x", "_x"),
        ("/", "_"),
        ("tab\tnew\nnull\0", "tab_new_null_"),
        ("naïve Ünïcode 日本", "naïve_Ünïcode_日本"),
        ("v1.2-rc", "v1.2-rc"),
    ],
)
def test_a_safe_name(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(min_size=1, max_size=128))
def test_any_name_is_one_part_of_a_path(name: str) -> None:
    safe = safe_name(name)
    assert PurePosixPath(safe).name == safe
    assert 0 < len(safe.encode()) <= 120
    assert not safe.startswith(".")
    assert safe_name(safe) == safe


def test_a_renderer_that_fails_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_pipeline_metrics._core import errors
    from otel_pipeline_metrics.report import markdown

    def broken(_: object) -> str:
        raise LookupError("a bug")

    monkeypatch.setattr(markdown, "render", broken)
    monkeypatch.setattr(errors, "raise_faults", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opm.run("nightly", report=tmp_path / "r.md", resources=False) as run:
        pass
    (name,) = written(tmp_path)
    assert name.startswith("pipeline-report-")
    assert opm.RunReport.load(tmp_path / name) == run.report
    assert "internal error in rendering a report" in caplog.text
