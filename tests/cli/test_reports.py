"""The commands `report`, `compare`, `trend`, `merge` and `schema`: output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._lifecycle.collector import MetricsCollector
from otel_pipeline_metrics.cli.app import app
from otel_pipeline_metrics.cli.files import NAME, BadInput, load
from otel_pipeline_metrics.report import RunReport, page
from otel_pipeline_metrics.report.compare import compare
from otel_pipeline_metrics.report.schema import collector_schema, report_schema
from otel_pipeline_metrics.report.trend import trend
from tests.report import samples

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def opm(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return samples.full().save(tmp_path / "full.json")


def saved(path: Path, *values: float, name: str = "process") -> Path:
    stages = [samples.stage(name, values), samples.stage("other", [0.5] * 50)]
    return samples.report(*stages).save(path)


@pytest.mark.parametrize("form", ["console", "html", "markdown", "json"])
def test_report_shows_every_format(full: Path, form: Any) -> None:
    result = opm("report", full, "--format", form)
    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == samples.full().render(form).rstrip("\n")


def test_a_report_from_standard_input(full: Path) -> None:
    result = CliRunner().invoke(app, ["report", "-"], input=full.read_bytes())
    assert (result.exit_code, result.stdout) == (0, samples.full().render() + "\n")
    result = CliRunner().invoke(app, ["compare", str(full), "-"], input=full.read_bytes())
    assert result.exit_code == 0


@pytest.mark.parametrize("given", ["", "{", "[]", "\xff", "{}"])
def test_what_is_no_report_on_standard_input(given: str) -> None:
    result = CliRunner().invoke(app, ["report", "-"], input=given.encode("latin-1"))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{NAME}: standard input")
    assert result.stderr.count("\n") == 1


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline_metrics.cli.files.sys.stdin", None)
    with pytest.raises(BadInput, match="cannot read standard input: it is closed"):
        load("-")


def test_the_default_format_is_console(full: Path) -> None:
    assert opm("report", full).stdout == samples.full().render() + "\n"


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.html", "<!DOCTYPE html>"), ("a.md", "### nightly"), ("a.json", "{"), ("a.txt", "run ")],
)
def test_the_suffix_of_the_output_decides_the_format(
    full: Path, tmp_path: Path, name: str, start: str
) -> None:
    result = opm("report", full, "--output", tmp_path / "new" / name)
    assert result.exit_code == 0
    assert (tmp_path / "new" / name).read_text("utf-8").startswith(start)
    assert result.stdout == ""
    assert result.stderr == f"written to {tmp_path / 'new' / name}\n"


def test_compare_finds_no_regression_in_equal_runs(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "a", *[0.1] * 50), saved(tmp_path / "b", *[0.101] * 50)
    result = opm("compare", old, new)
    assert result.exit_code == 0
    assert result.stdout.endswith("\nno regression\n")


def test_compare_names_the_slower_stage(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "a", *[0.1] * 50), saved(tmp_path / "b", *[0.13] * 50)
    result = opm("compare", old, new)
    assert result.exit_code == 1
    assert "REGRESSION: process is slower by 2" in result.stdout
    assert opm("compare", old, new, "--fail-on", "50%").exit_code == 0


@pytest.mark.parametrize(("text", "expected"), [("20%", 0.2), ("0.2", 0.2), (" 5 % ", 0.05)])
def test_fail_on_takes_per_cent_and_ratios(full: Path, text: str, expected: float) -> None:
    result = opm("compare", full, full, "--fail-on", text)
    assert f"fail on {expected * 100:g} % slower" in result.stdout


@pytest.mark.parametrize("text", ["10", "x", "-5%", "0", "nan", "inf%", ""])
@pytest.mark.parametrize(
    ("command", "option"),
    [("compare", "--fail-on"), ("compare", "--fail-on-throughput"), ("trend", "--fail-on")],
)
def test_ratios_refuse_other_values(full: Path, text: str, command: str, option: str) -> None:
    files = (full, full) if command == "compare" else (full.parent,)
    result = opm(command, *files, f"{option}={text}")
    assert result.exit_code == 2
    assert option in result.stderr


def test_compare_sees_a_lower_throughput(tmp_path: Path) -> None:
    stages = [samples.stage("process", [0.1] * 100, workers=4, wall_s=w) for w in (2.5, 10.0)]
    old, new = (
        samples.report(stage, wall_s=wall_s).save(tmp_path / f"{wall_s}.json")
        for stage, wall_s in zip(stages, (2.5, 10.0), strict=True)
    )
    result = opm("compare", old, new)
    assert result.exit_code == 1
    assert "REGRESSION: throughput of process fell by 75 %" in result.stdout
    assert opm("compare", old, new, "--fail-on-throughput", "80%").exit_code == 0


def test_compare_allows_a_missing_stage_only_if_asked(tmp_path: Path) -> None:
    old, new = (saved(tmp_path / name, *[0.1] * 50, name=name) for name in ("a", "b"))
    assert "REGRESSION: a is missing" in opm("compare", old, new).stdout
    assert opm("compare", old, new).exit_code == 1
    assert opm("compare", old, new, "--allow-missing").exit_code == 0


@pytest.mark.parametrize("form", ["console", "html", "markdown", "json"])
def test_compare_and_trend_show_every_format(full: Path, form: Any) -> None:
    compared, followed = compare(samples.full(), samples.full()), trend([samples.full()])
    result = opm("compare", full, full, "--format", form)
    assert result.stdout.rstrip("\n") == compared.render(form).rstrip("\n")
    result = opm("trend", full.parent, "--format", form)
    assert result.stdout.rstrip("\n") == followed.render(form).rstrip("\n")


@pytest.mark.parametrize("command", ["compare", "trend"])
def test_their_output_may_be_a_file(full: Path, tmp_path: Path, command: str) -> None:
    files = (full, full) if command == "compare" else (full.parent,)
    result = opm(command, *files, "--output", tmp_path / "a.md")
    assert result.exit_code == 0
    assert (tmp_path / "a.md").read_text("utf-8").startswith(f"### {command}")
    assert result.stdout == ""


def series(folder: Path, *, step_at: int = 20) -> Path:
    for day in range(30):
        seconds = 0.13 if day >= step_at else 0.1
        samples.report(
            samples.stage("process", [seconds + 0.0001 * day] * 50, wall_s=50 * seconds),
            wall_s=50 * seconds,
            run_id=f"run-{day}",
            started=f"2026-01-{day + 1:02d}T00:00:00+00:00",
        ).save(folder / f"{day % 3}" / f"{day}.json")
    return folder


def test_trend_names_the_run_that_changed(tmp_path: Path) -> None:
    """It fails only if it is asked to."""
    folder = series(tmp_path)
    result = opm("trend", folder)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "p95 of process rose by " in result.stdout
    assert "with run 21 of 30 (2026-01-21T00:00:00+00:00, run-20)" in result.stdout
    assert opm("trend", folder, "--fail-on", "10%").exit_code == 1
    assert opm("trend", folder, "--fail-on", "50%").exit_code == 0
    assert opm("trend", folder, "--stage", "process", "--fail-on", "10%").exit_code == 1


def test_trend_leaves_out_what_is_no_report(tmp_path: Path) -> None:
    (series(tmp_path) / "package.json").write_text("{}")
    (tmp_path / "cut.json").write_text('{"schema": ')
    (tmp_path / "notes.txt").write_text("no")
    result = opm("trend", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith("trend of nightly: 30 runs ")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"left out: {tmp_path / 'cut.json'} is not JSON")
    assert line.endswith(" and 1 more")


def test_trend_follows_one_pipeline(tmp_path: Path) -> None:
    samples.report(pipeline="hourly", run_id="h").save(series(tmp_path) / "hourly.json")
    result = opm("trend", tmp_path)
    assert result.exit_code == 2
    assert "different pipelines: 'nightly', 'hourly'; choose one" in result.stderr
    assert opm("trend", tmp_path, "--pipeline", "nightly").exit_code == 0
    assert opm("trend", tmp_path, "--pipeline", "daily").exit_code == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "there is no report to follow"),
        (("--stage", "load"), "there is no report to follow"),
    ],
)
def test_trend_needs_a_report(tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    result = opm("trend", tmp_path, *options)
    assert (result.exit_code, result.stderr) == (2, f"{NAME}: {tmp_path}: {expected}\n")


def test_trend_needs_a_folder_and_a_stage_that_is_there(tmp_path: Path, full: Path) -> None:
    result = opm("trend", full)
    assert (result.exit_code, result.stderr) == (2, f"{NAME}: {full} is not a folder\n")
    assert opm("trend", tmp_path / "no").exit_code == 2
    result = opm("trend", tmp_path, "--stage", "store")
    assert result.exit_code == 2
    assert "no run has a stage 'store'; there are: " in result.stderr


def test_many_files_are_not_all_named(tmp_path: Path) -> None:
    files = [samples.full().save(tmp_path / f"{number}.json") for number in range(9)]
    result = opm("merge", *files)
    assert result.exit_code == 2
    assert f"{files[0]}, {files[1]}, 7 more: the report of run 'run-1' is there" in result.stderr


def test_merge_prints_or_writes_a_report(full: Path, tmp_path: Path) -> None:
    other = samples.full("another").save(tmp_path / "other.json")
    expected = RunReport.merge(samples.full(), samples.full("another"))
    assert RunReport(json.loads(opm("merge", full, other).stdout)) == expected
    assert opm("merge", full, other, "-o", tmp_path / "m.json").exit_code == 0
    assert RunReport.load(tmp_path / "m.json") == expected


def test_merge_refuses_a_file_given_twice(full: Path) -> None:
    result = opm("merge", full, full)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{NAME}: {full} is given twice\n"


def test_merge_refuses_a_copy(full: Path, tmp_path: Path) -> None:
    copy = samples.full().save(tmp_path / "copy.json")
    result = opm("merge", full, copy)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{NAME}: {full}, {copy}: the report of run 'run-1' is there twice\n"


def bad_files() -> dict[str, tuple[bytes, str]]:
    whole = samples.full().to_json()
    inner = samples.full_data()
    inner["stages"][0]["duration_s"] = {"total": [1], "sketch": {"buckets": 3}}
    inner["stages"][0]["errors"] = {"total": 1, "by_type": 7}
    later = {**samples.full_data(), "schema": "otel_pipeline_metrics/report/3"}
    nested: list[Any] = []
    for _ in range(600):
        nested = [nested]
    nameless = {**samples.full_data(), "stages": [{"kind": "fetch"}]}
    return {
        "empty": (b"", "is not JSON, or is cut off"),
        "truncated": (whole[: len(whole) // 2].encode(), "is not JSON, or is cut off"),
        "binary": (b"\x7fELF\x00\xff\xfe", "is not JSON, or is cut off"),
        "deep": (b"[" * 200_000, "is nested too deeply"),
        "deep inside": (
            json.dumps({**samples.full_data(), "later": nested}).encode(),
            "is nested too deeply",
        ),
        "nan": (b'{"a": NaN}', "NaN is not JSON"),
        "list": (b"[]", "not a report: a JSON object is expected"),
        "foreign": (b'{"schema": "other/1"}', "not a report: its schema is 'other/1'"),
        "no schema": (b"{}", "not a report: its schema is None"),
        "future": (
            json.dumps(later).encode(),
            "a later otel-pipeline-metrics wrote it, upgrade this one",
        ),
        "part": (b'{"schema": "otel_pipeline_metrics/report/1"}', "'run' is missing"),
        "nameless": (json.dumps(nameless).encode(), "'stages' has an entry without a name"),
        "inside": (json.dumps(inner).encode(), "not a whole report"),
    }


@pytest.mark.parametrize("case", bad_files())
@pytest.mark.parametrize("command", ["report", "compare", "merge"])
def test_a_bad_file_is_one_line_and_exit_code_2(
    case: str, command: str, full: Path, tmp_path: Path
) -> None:
    content, expected = bad_files()[case]
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    result = opm(command, bad, *([] if command == "report" else [full]))
    if case == "inside" and command == "compare":
        return  # it reads none of the broken fields
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{NAME}: ")
    assert str(bad) in line
    assert expected in line


@pytest.mark.parametrize("command", ["report", "compare", "merge"])
def test_a_missing_file_is_an_error(command: str, full: Path, tmp_path: Path) -> None:
    result = opm(command, tmp_path / "no", *([] if command == "report" else [full]))
    assert result.exit_code == 2
    assert result.stderr == f"{NAME}: cannot read {tmp_path / 'no'}: No such file or directory\n"


def test_a_folder_is_not_a_report(tmp_path: Path) -> None:
    result = opm("report", tmp_path)
    assert (result.exit_code, result.stderr) == (
        2,
        f"{NAME}: cannot read {tmp_path}: Is a directory\n",
    )


def test_an_output_that_cannot_be_written_is_an_error(full: Path) -> None:
    result = opm("report", full, "-o", "/proc/no/a.html")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{NAME}: cannot write /proc/no/a.html: ")


def test_reports_of_different_pipelines_are_an_error(full: Path, tmp_path: Path) -> None:
    other = samples.report(pipeline="hourly").save(tmp_path / "o.json")
    for command in ("compare", "merge"):
        result = opm(command, full, other)
        assert result.exit_code == 2
        assert "different pipelines" in result.stderr


def test_without_jinja2_the_error_names_the_extra(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page._environment.cache_clear()
    result = opm("report", full, "--format", "html")
    assert result.exit_code == 2
    assert 'pip install "otel-pipeline-metrics[cli]"' in result.stderr


def module(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_pipeline_metrics", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={"PATH": "", "PYTHONUTF8": "0", **environment},
        check=False,
        timeout=60,
    )


def test_the_package_runs_as_a_module(full: Path, tmp_path: Path) -> None:
    done = module("report", full, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == samples.full().render() + "\n"
    assert module("report", tmp_path / "no").returncode == 2
    slow = saved(tmp_path / "b", *[0.13] * 50)
    assert module("compare", saved(tmp_path / "a", *[0.1] * 50), slow).returncode == 1


def test_a_terminal_without_the_letters_of_a_name_gets_question_marks(tmp_path: Path) -> None:
    path = samples.report(samples.stage("写入", [0.000005])).save(tmp_path / "a.json")
    done = module("report", path, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert "\n??   " in done.stdout.replace("\ufffd", "?")


def test_without_click_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['click'] = None\n"
        "from otel_pipeline_metrics.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == f'{NAME} needs click: pip install "otel-pipeline-metrics[cli]"\n'


def test_help_names_the_commands() -> None:
    shown = opm("--help").stdout
    assert shown.startswith(f"Usage: {NAME} ")
    commands = ("report", "compare", "trend", "merge", "schema", "doctor", "replay")
    assert all(f"\n  {command} " in shown for command in commands)


def test_usage_has_the_name_that_it_was_called_by() -> None:
    for name in ("opm", NAME):
        result = CliRunner().invoke(app, ["merge", "--help"], prog_name=name)
        assert result.stdout.startswith(f"Usage: {name} merge ")
    assert module("--help").stdout.startswith("Usage: python -m otel_pipeline_metrics ")


def test_the_version_has_the_main_name() -> None:
    assert opm("--version").stdout == f"{NAME}, version {__version__}\n"


@pytest.mark.parametrize(
    ("kind", "expected"), [("report", report_schema()), ("collector", collector_schema())]
)
def test_schema_prints_or_writes_a_schema(
    kind: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    assert json.loads(opm("schema", kind).stdout) == expected
    assert opm("schema", kind, "-o", tmp_path / "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == expected


def test_there_are_two_schemas() -> None:
    assert opm("schema", "other").exit_code == opm("schema").exit_code == 2


def test_report_reads_what_the_collector_exports(tmp_path: Path) -> None:
    collector = MetricsCollector()
    collector.record_stage("upload", 0.5, count=10)
    collector.record_cache("geo", 9, 1)
    path = tmp_path / "export_metrics.json"
    collector.export_json(path)
    result = opm("report", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == RunReport.load(path).render() + "\n"
    assert "\nupload  " in result.stdout
    assert opm("report", path, "-o", tmp_path / "page.html").exit_code == 0
    assert opm("compare", path, path).exit_code == 0


def test_a_damaged_export_of_the_collector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "export_metrics.json"
    data = MetricsCollector().export_json() | {"stages": {"s": {"count": "x"}}}
    path.write_text(json.dumps(data))
    result = opm("report", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{path}: not whole collector data: stages 's'" in result.stderr
