"""Measure the pipelines of a test suite: fixtures, reports, and a check that nothing got slower.

One line in the `conftest.py` of the root switches it on:

    pytest_plugins = ["otel_pipeline_metrics.integrations.pytest"]

`opm_run` makes a test one run, `opm_telemetry` keeps what the test exports, `--opm-reports DIR`
writes the report of each run, and `assert_no_slower` compares one with a report from before.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.files import safe_name
from otel_pipeline_metrics._core.validation import MAX_NAME_LENGTH, read_ratio
from otel_pipeline_metrics._lifecycle.run import Run
from otel_pipeline_metrics._lifecycle.standing_in import standing_in
from otel_pipeline_metrics.report.compare import compare

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from otel_pipeline_metrics._export.in_memory import InMemory
    from otel_pipeline_metrics.report.compare import Figure, StageChange


_ERROR: Final = pytest.StashKey[BaseException]()
_SAID: Final = "opm"

# the test that runs now; none outside of tests
_current: list[pytest.Item] = []


class Telemetry:
    """What a test exports, as `opm_telemetry` gives it: plain data, also of other libraries."""

    def __init__(self, kept: InMemory) -> None:
        self._kept = kept

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The spans that have ended, in that order.

        Each has `name`, `trace_id`, `span_id`, `parent_id` (hexadecimal, or None), `kind`, `scope`,
        `status` ("unset", "ok", "error"), `status_description`, `start_unix_s`, `duration_s`,
        `attributes`, `events` and `links`.
        """
        return self._kept.spans()

    @property
    def points(self) -> list[dict[str, Any]]:
        """The metric points of the test so far.

        Each has `name`, `unit`, `kind` ("sum", "gauge", "histogram"), `scope`, `attributes`, and
        its `value` or, of a histogram, `count`, `sum`, `min`, `max`, `bounds` and `buckets`.
        """
        return self._kept.points()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--opm-reports DIR`."""
    group = parser.getgroup("otel_pipeline_metrics")
    group.addoption(
        "--opm-reports",
        metavar="DIR",
        help="write the report of each test that uses the fixture opm_run to a file there",
    )


@pytest.fixture
def opm_run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run for this test alone, named after it.

    Its `report` is of the test so far, and final once the test is over. The run fails as the test
    does. Resources are not sampled.
    """
    test = request.node
    folder = request.config.getoption("--opm-reports")
    path = None if folder is None else Path(folder) / f"{_file_name(test.nodeid)}.json"
    run = opm.run(_name(test.nodeid), report=path, resources=False)
    run.__enter__()
    try:
        yield run
    finally:
        error = test.stash.get(_ERROR, None)
        run.__exit__(None if error is None else type(error), error, None)
        if error is not None:
            del test.stash[_ERROR]  # it refers to the frames of the test


@pytest.fixture
def opm_telemetry() -> Iterator[Telemetry]:
    """Keep the spans and metric points of this test instead of exporting them.

    `configure()` in the test finds these providers and uses them. What was configured before is
    configured again at the end.
    """
    with standing_in() as kept:
        yield Telemetry(kept)


def assert_no_slower(
    report: opm.RunReport | Run,
    baseline: opm.RunReport | str | os.PathLike[str],
    limit: str | float = "10%",
) -> None:
    """Compare a run with one from before, and fail on a regression that is more than noise.

    Slower means what `opm compare` says: the time of a stage, or the run's throughput, is worse by
    more than `limit`, and by more than the runs' own scatter explains. A change within the scatter
    passes; it is printed as noise, and named at the end of pytest's output.

    Args:
        report: a report, or the run of the fixture `opm_run`: what it did so far.
        baseline: a report, or the path of one that was saved.
        limit: a ratio, "10%" or 0.1.

    Raises:
        AssertionError: something is slower; the message is the comparison.
        FileNotFoundError: there is no file at that path.
        TypeError: `report` is no report.
        ValueError: the reports are of different pipelines, the file is no report, or `limit` is
            not a positive ratio.
    """
    __tracebackhide__ = True
    try:
        ratio = read_ratio(limit)
    except ValueError as error:
        raise ValueError(f"limit: {error}") from None
    new = report.report if isinstance(report, Run) else report
    if not isinstance(new, opm.RunReport):
        raise TypeError(f"report must be a RunReport or a Run, not {type(new).__name__}")
    old = baseline if isinstance(baseline, opm.RunReport) else _load(baseline)
    found = compare(old, _as_ended(new), fail_on=ratio, fail_on_throughput=ratio)
    if found.regressions:
        raise AssertionError(f"{found.render()}\n\nslower than {_called(baseline)}")
    judged: tuple[StageChange | Figure, ...] = (*found.stages, *found.figures)
    noise = {f"{one.name} {one.why}" for one in judged if one.judgement == "noise"}
    for note in found.notes:
        line = text.printable(f"{'noise' if note in noise else 'note'}: {note}")
        sys.stdout.write(f"{line}\n")
        if _current:
            _current[0].user_properties.append((_SAID, line))


def _load(path: str | os.PathLike[str]) -> opm.RunReport:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"baseline must be a RunReport or a path, not {type(path).__name__}")
    try:
        return opm.RunReport.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, "there is no baseline: save a report there", os.fspath(path)
        ) from None


def _as_ended(report: opm.RunReport) -> opm.RunReport:
    """Return a report as if its run had ended in success now, if it is in progress."""
    if report.run.get("result") is not None:
        return report
    data = report.to_dict()
    data["run"] |= {"result": "success", "partial": False}
    return opm.RunReport(data)


def _called(baseline: opm.RunReport | str | os.PathLike[str]) -> str:
    return "the baseline" if isinstance(baseline, opm.RunReport) else os.fspath(baseline)


def _name(node: str) -> str:
    """Return the name of a test's run: the test's, or its end if that is too long."""
    if len(node) <= MAX_NAME_LENGTH:
        return node
    mark = f"{_mark(node)}…"
    return mark + node[len(mark) - MAX_NAME_LENGTH :]


def _file_name(node: str) -> str:
    """Return a name that no other test has: parameters may differ in what no file name has."""
    safe = safe_name(node.replace("::", "."))
    return f"{safe}-{_mark(node)}" if "[" in node or len(node) > len(safe) + 8 else safe


def _mark(node: str) -> str:
    return f"{zlib.crc32(node.encode('utf-8', 'replace')):08x}"


# --- pytest's hooks -------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember which test runs."""
    _current.append(item)
    try:
        return (yield)
    finally:
        _current.remove(item)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Keep the exception of a test that fails until its run ends."""
    if call.excinfo is not None and call.when == "call":
        error = call.excinfo.value
        if not isinstance(error, pytest.skip.Exception):
            item.stash[_ERROR] = error


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what passed as noise, and where the reports are."""
    lines = [
        f"{report.nodeid}: {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == _SAID
    ]
    folder = config.getoption("--opm-reports")
    if lines or folder is not None:
        terminalreporter.section("otel_pipeline_metrics")
        for line in lines:
            terminalreporter.line(line)
        if folder is not None:
            terminalreporter.line(f"reports: {folder}")
