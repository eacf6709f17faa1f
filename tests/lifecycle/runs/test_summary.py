"""Test the summary: shown once, where configured, and without side effects."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lifecycle.configure.support import Captured

LOGGER = "otel_pipeline_metrics"


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, LOGGER)
    return caplog


def finish(path: Path | None = None) -> opm.Run:
    with opm.run("nightly", resources=False, report=path) as run, opm.fetch("pages"):
        pass
    return run


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == LOGGER]


def test_console_true_prints_to_stderr(
    captured: Captured,
    info: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    captured.configure(console=True)
    run = finish(tmp_path / "report.json")
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"{run.report.render()}\n\nreport: {tmp_path / 'report.json'}\n",
    )
    # the log has only its first line
    (message,) = messages(info)
    assert message == run.report.render().splitlines()[0]


def test_console_false_only_logs(
    captured: Captured,
    info: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    captured.configure(console=False)
    run = finish(tmp_path / "report.json")
    assert capsys.readouterr() == ("", "")
    (message,) = messages(info)
    assert message == f"{run.report.render()}\n\nreport: {tmp_path / 'report.json'}"


def test_a_stream_gets_the_summary(
    captured: Captured, info: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    captured.configure(console=stream)
    run = finish()
    assert stream.getvalue() == f"{run.report.render()}\n"
    assert capsys.readouterr() == ("", "")
    assert len(messages(info)) == 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_by_default_a_terminal_gets_the_summary(
    info: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run = finish()
    assert terminal.getvalue() == f"{run.report.render()}\n"
    assert len(messages(info)) == 1


def test_by_default_a_file_does_not_get_it(
    info: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish()
    assert capsys.readouterr() == ("", "")
    assert messages(info) == [run.report.render()]


def test_the_development_console_shows_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    opm.configure()
    finish()
    assert capsys.readouterr().err.count("run nightly: success in ") == 1


def test_below_info_nothing_is_logged(
    captured: Captured, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    captured.configure(console=False)
    caplog.set_level(logging.WARNING, LOGGER)
    finish()
    assert messages(caplog) == []
    assert capsys.readouterr() == ("", "")


class Broken(io.StringIO):
    """A terminal that is gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class MinimalStream:
    """A stream that only writes."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Broken, closed])
def test_a_broken_stream_leaves_the_summary_to_the_log(
    captured: Captured, info: pytest.LogCaptureFixture, make: Any, tmp_path: Path
) -> None:
    """The report is written and the run's result stays."""
    captured.configure(console=make())
    run = finish(tmp_path / "report.json")
    assert run.report.run["result"] == "success"
    assert opm.RunReport.load(tmp_path / "report.json") == run.report
    (message,) = messages(info)
    assert message.startswith(run.report.render())


def test_a_stream_that_can_only_write_gets_the_summary(
    captured: Captured, info: pytest.LogCaptureFixture
) -> None:
    stream = MinimalStream()
    captured.configure(console=stream)
    run = finish()
    assert stream.text == f"{run.report.render()}\n"
    assert len(messages(info)) == 1


def test_a_program_without_stderr_runs(
    captured: Captured, info: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none under pythonw and in some daemons."""
    captured.configure(console=True)
    monkeypatch.setattr(sys, "stderr", None)
    run = finish()
    assert messages(info) == [run.report.render()]


def test_a_failed_run_has_a_summary(captured: Captured, capsys: pytest.CaptureFixture[str]) -> None:
    captured.configure(console=True)
    with pytest.raises(KeyError), opm.run("nightly", resources=False):
        raise KeyError("x")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("run nightly: failure in ")
    assert " (KeyError), " in first
    assert ", partial" in first
