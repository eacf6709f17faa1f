"""Test the summary: shown once, where configured, and without side effects."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import summary
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.tables import Look

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
    assert message == f"{console.headline(run.report)}, {console.details(run.report)}"


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
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.getvalue() == f"{console.render(run.report, Look(80, colours=True))}\n"
    assert len(messages(info)) == 1


def test_by_default_a_file_does_not_get_it(
    info: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finish()
    assert capsys.readouterr() == ("", "")
    assert messages(info) == [run.report.render()]


def test_with_nothing_set_configure_shows_summaries_and_once_how_to_see_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    opm.configure()
    runs = [finish(), finish()]
    err = capsys.readouterr().err
    first, second = (run.report.render() for run in runs)
    assert err == f"{first}\n{summary.MORE}\n{second}\n"
    assert runs[0].report.run["trace_id"] is None  # without an exporter there is no span
    opm.shutdown()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "env", "shown"),
    [
        ({}, {"OTEL_PIPELINE_METRICS_CONSOLE": "off"}, False),
        ({}, {"OTEL_PIPELINE_METRICS_CONSOLE": "Summary"}, True),
        ({"console": True}, {}, True),
        ({"console": "off"}, {"OTEL_PIPELINE_METRICS_CONSOLE": "all"}, False),
        ({"exporter": "none"}, {}, False),
        ({"exporter": "none"}, {"OTEL_PIPELINE_METRICS_CONSOLE": "summary"}, True),
        ({"exporter": "console"}, {}, True),
        ({"exporter": "console"}, {"OTEL_PIPELINE_METRICS_CONSOLE": "off"}, False),
        ({}, {"OTEL_TRACES_EXPORTER": "console"}, True),
        ({}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_PIPELINE_METRICS_CONSOLE": "off"}, False),
        ({}, {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_one_setting_governs_what_is_printed(
    arguments: Any,
    env: dict[str, str],
    shown: bool,
    *,
    monkeypatch: pytest.MonkeyPatch,
    info: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    opm.configure(**arguments)
    run = finish()
    opm.shutdown()
    err = capsys.readouterr().err
    assert (run.report.render() in err) is shown
    assert shown or err == ""
    assert (run.report.render() in messages(info)) is not shown


def test_the_variable_holds_without_configure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_CONSOLE", "summary")
    run = finish()
    assert capsys.readouterr().err == f"{run.report.render()}\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_CONSOLE", "off")
    finish()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("arguments", [{"exporter": "console"}, {"console": "all"}])
def test_spans_and_one_table_of_metrics_come_before_the_summary(
    arguments: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    opm.configure(**arguments)
    with opm.run("nightly", resources=False) as run:
        for _ in range(25):
            with opm.fetch("pages"):
                pass
    err = capsys.readouterr().err
    spans, metrics, rest = err.partition("\nmetrics at ")
    assert rest.endswith(f"\n\n{run.report.render()}\n")
    assert spans.count("    pages ") == (25 if "console" in arguments else 20)
    assert ('… and 5 more "pages" spans' in spans) is ("exporter" in arguments)
    assert "  run nightly " in spans
    assert metrics
    assert "pipeline.stage.duration" in rest
    opm.shutdown()
    # nothing has changed since then
    assert capsys.readouterr().err == ""


def test_what_ran_after_the_last_run_is_shown_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    opm.configure(exporter="console")
    finish()
    capsys.readouterr()
    with opm.write("late"):
        pass
    opm.shutdown()
    err = capsys.readouterr().err
    assert "stage=late kind=write" in err
    assert err.count("metrics at ") == 1


def test_all_says_what_it_cannot_show(captured: Captured, info: pytest.LogCaptureFixture) -> None:
    captured.configure(console="all")
    assert messages(info) == [
        (
            'configure(): console="all" cannot show the traces and metrics of providers that it '
            "did not build"
        )
    ]


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
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first.startswith("run nightly: failure in ")
    assert first.endswith(" (KeyError)")
    assert ", partial" in second
