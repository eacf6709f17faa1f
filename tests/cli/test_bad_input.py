"""Whatever a file, an argument or the output is: one line on stderr, exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import files
from otel_pipeline_metrics.cli import report_commands
from otel_pipeline_metrics.cli.app import run
from otel_pipeline_metrics.report import run_report
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Callable

ESCAPE = "\x1b]0;owned\x07\x9b31m"


def envelope(run_part: str) -> str:
    rest = '"stages":[],"queues":[],"caches":[],"resources":{},"bottleneck":{},"telemetry":{}'
    return f'{{"schema":"otel_pipeline_metrics/report/1","run":{run_part},{rest}}}'


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "no file": lambda _: None,
    "a directory": lambda path: path.mkdir(),
    "a circle of links": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "not UTF-8": lambda path: path.write_bytes(b'{"schema": "\xff\xfe"}'),
    "null bytes": lambda path: path.write_bytes(b"\0" * 100),
    "deep objects": text('{"a":' * 100_000),
    "deep, and whole": text("[" * 5_000 + "]" * 5_000),
    "deep within a report": text(envelope('{"x":' + "[" * 900 + "]" * 900 + "}")),
    "deep stages": text(
        envelope("{}").replace(
            '"stages":[]', '"stages":[{"name":"a","x":' + '{"y":' * 950 + "1" + "}" * 950 + "}]"
        )
    ),
    "a number of 5,000 digits": text(envelope(f'{{"wall_s":{"9" * 5000}}}')),
    "of another kind": text('{"schema": 1}'),
    "of a long schema": text(f'{{"schema": "{"x" * 100_000}"}}'),
    "a number": text("1"),
    "stages without names": text(envelope("{}").replace('"stages":[]', '"stages":[1]')),
    "text for a number": text(
        envelope("{}").replace('"stages":[]', '"stages":[{"name":"a","count":"x"}]')
    ),
}


def bad(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line of a command that fails."""
    assert run([str(argument) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("otel-pipeline-metrics: ")
    assert len(line) <= 1000
    assert line.isprintable()
    return line


@pytest.mark.parametrize("what", list(BAD_FILES))
@pytest.mark.parametrize(
    "command", ["report", "report --format json", "merge", "compare FIRST", "compare SECOND"]
)
def test_a_bad_file_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str, command: str
) -> None:
    path = tmp_path / f"bad{ESCAPE}.json"
    BAD_FILES[what](path)
    good = samples.full().save(tmp_path / "good.json")
    name, *options = command.split()
    if name == "compare":
        files = [path, good] if options == ["FIRST"] else [good, path]
        line = bad(capfd, name, *files)
    else:
        line = bad(capfd, name, path, *options)
    assert "bad\ufffd" in line


def test_a_file_without_an_end_is_read_in_part(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "MAX_BYTES", 1000)
    if Path("/dev/zero").exists():
        assert "larger than 1,000 bytes" in bad(capfd, "report", "/dev/zero")
    (tmp_path / "long.json").write_text(envelope("{}") + " " * 1000)
    assert "larger than 1,000 bytes" in bad(capfd, "report", tmp_path / "long.json")
    (tmp_path / "fits.json").write_text(envelope("{}").ljust(1000))
    assert run(["report", str(tmp_path / "fits.json")]) == 0


def test_a_fifo_without_a_writer_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.0)
    os.mkfifo(tmp_path / "fifo")
    assert "no process writes to this FIFO" in bad(capfd, "report", tmp_path / "fifo")


def test_trend_reads_files_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir.json").mkdir()
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / f"escape{ESCAPE}\nline.json").write_text("{}")
    samples.full().save(tmp_path / "good.json")
    run(["trend", str(tmp_path)])
    _, err = capfd.readouterr()
    left_out = err.splitlines()[0]
    assert left_out.startswith("left out: ")
    assert left_out.endswith("is no file and 4 more")
    assert left_out.isprintable()


def test_files_that_cannot_be_told_apart_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).symlink_to(other)
    assert "symbolic links" in bad(capfd, "merge", tmp_path / "a", tmp_path / "b")


BAD_PLACES: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(),
    "a circle of links": lambda path: path.symlink_to(path.name),
    "a FIFO that nobody reads": os.mkfifo,
    "a full device": lambda path: path.symlink_to("/dev/full"),
    "below a file": lambda path: path.touch(),
}


@pytest.mark.parametrize("what", list(BAD_PLACES))
@pytest.mark.parametrize("command", ["report", "merge", "schema"])
def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str, command: str
) -> None:
    place = tmp_path / f"out{ESCAPE}"
    BAD_PLACES[what](place)
    before = place.lstat()[:2]  # mode and inode
    output = place / "x" if what == "below a file" else place
    source = samples.full().save(tmp_path / "good.json")
    line = bad(capfd, command, "report" if command == "schema" else source, "-o", output)
    assert "cannot write " in line
    assert place.lstat()[:2] == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "{}"],
        ["replay", "{}/" + "n" * 300],
        ["replay", "{}" + "/a" * 2500],
        ["replay", "{}/file"],
        ["replay", "{}/circle"],
        ["replay", "{}/circle/x"],
        ["replay", "~nobody-of-this-name/x"],
        ["replay", "/dev/null"],
        ["replay", "/dev/full/x"],
    ],
)
def test_a_bad_spool_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    folder = tmp_path / f"none{ESCAPE}" if arguments[1] == "{}" else tmp_path
    bad(capfd, *(each.format(folder) for each in arguments))


@pytest.mark.parametrize(
    "arguments", [["compare", "a", "b", ESCAPE], ["report", "a", f"--{ESCAPE}"], [ESCAPE]]
)
def test_what_a_wrong_command_quotes_cannot_control_the_terminal(
    capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert "Usage: " in err
    assert err.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}"], ["compare", "{}", "{}"], ["merge", "{}"], ["schema", "report"],
        ["doctor", "--no-send"], ["--help"], ["--version"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("also_stderr", [False, True])
def test_an_output_that_is_full_is_one_line(
    tmp_path: Path, arguments: list[str], *, also_stderr: bool
) -> None:
    source = samples.full().save(tmp_path / "good.json")
    command = [sys.executable, "-m", "otel_pipeline_metrics"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, *(each.format(source) for each in arguments)],
            stdout=full,
            stderr=full if also_stderr else subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    if not also_stderr:
        assert done.stderr == (
            b"otel-pipeline-metrics: cannot write the output: No space left on device\n"
        )


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    source = samples.full().save(tmp_path / "good.json")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "otel_pipeline_metrics", "report", source],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_internal_error_is_one_line_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise LookupError(f"no such {ESCAPE} thing")

    monkeypatch.setattr(report_commands, "load", broken)
    assert "internal error: LookupError: no such" in bad(capfd, "report", "x")


def test_ctrl_c_ends_a_command_quietly(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report_commands, "load", interrupted)
    assert run(["report", "x"]) == 130
    assert capfd.readouterr().err.split() == ["otel-pipeline-metrics:", "interrupted"]
