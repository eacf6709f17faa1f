"""`RunReport`: the report of a run, plain data that is saved and loaded as JSON."""

from __future__ import annotations

import copy
import importlib
import json
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

from otel_pipeline_metrics._core.cleaning import plain
from otel_pipeline_metrics._core.files import read_whole, write_atomically
from otel_pipeline_metrics._core.text import printable, printable_json
from otel_pipeline_metrics.report.collector_data import as_report, is_collector_data
from otel_pipeline_metrics.report.schema import (
    NAMED,
    OPTIONAL_PARTS,
    PARTS,
    SCHEMA,
    TEXT_FIELDS,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from otel_pipeline_metrics.report import rows


Format = Literal["console", "html", "json", "markdown"]
FORMATS: Final[tuple[Format, ...]] = ("console", "html", "json", "markdown")
# of a file's name
FORMAT_BY_SUFFIX: Final[dict[str, Format]] = {
    ".json": "json",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
}

# what stands on one line in JSON: the buckets of a sketch, which may be hundreds, and lists of
# numbers. Strings have no newline of their own there
_ON_ONE_LINE: Final = re.compile(r'"buckets": \{[^{}]*\}|\[[-+0-9.e,\s]*\]')
_INDENT: Final = re.compile(r"\n *")
# a report has seven levels; later versions may have more
_MAX_DEPTH: Final = 100
# what `load` reads at most: a device has no end
MAX_BYTES: Final = 256 * 1024 * 1024


class RunReport:
    """The numbers of one run. Times are seconds, sizes bytes, ratios 0 to 1.

    Unknown values are None, never 0. Percentiles carry their relative error in `rel_error`.
    `report.rows` documents each field.
    """

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Take the data that `to_dict` returns, or `MetricsCollector.export_json()`.

        Raises:
            ValueError: the data is not a report, or one of another version.
        """
        self._data = _checked(data)

    def __repr__(self) -> str:
        run = self.run
        result = printable(run.get("result"))
        return f"<RunReport {run.get('pipeline')!r} {result} {len(self.stages)} stages>"

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows; None without jinja2, so that it shows `repr`."""
        from otel_pipeline_metrics.report import html

        try:
            return html.notebook(self)
        except ImportError:
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunReport) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]  # equal by content, and the content is a dict

    @property
    def run(self) -> rows.RunRow:
        """The run itself: its pipeline, ids, result, start and wall time."""
        part: rows.RunRow = self._data["run"]
        return part

    @property
    def stages(self) -> list[rows.StageRow]:
        """One entry per stage, in the order in which they first finished."""
        return self._list("stages")

    @property
    def queues(self) -> list[rows.QueueRow]:
        """One entry per instrumented queue."""
        return self._list("queues")

    @property
    def limits(self) -> list[rows.LimitRow]:
        """One entry per limit that workers waited for or held: locks, semaphores, pools."""
        return self._list("limits") if "limits" in self._data else []

    @property
    def pools(self) -> list[rows.PoolRow]:
        """The tasks or threads of each `workers()`; empty in reports of earlier releases."""
        return self._list("pools") if "pools" in self._data else []

    @property
    def caches(self) -> list[rows.CacheRow]:
        """One entry per registered cache, with its counts during this run."""
        return self._list("caches")

    @property
    def windows(self) -> list[rows.WindowRow]:
        """How the run went over time, in about 20 windows; empty without `resources`."""
        return self._list("windows") if "windows" in self._data else []

    @property
    def resources(self) -> rows.ResourcesRow:
        """The use of CPU, memory, disk and network during the run."""
        part: rows.ResourcesRow = self._data["resources"]
        return part

    @property
    def bottleneck(self) -> rows.BottleneckRow:
        """The verdict: what limits the run."""
        part: rows.BottleneckRow = self._data["bottleneck"]
        return part

    @property
    def telemetry(self) -> rows.TelemetryRow:
        """The fate of the spans and metrics of this process."""
        part: rows.TelemetryRow = self._data["telemetry"]
        return part

    def _list(self, name: str) -> list[Any]:
        part: list[Any] = self._data[name]
        return part

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the data, made of dicts, lists, strings, numbers and None."""
        return copy.deepcopy(self._data)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the data as JSON (RFC 8259: no NaN, no infinity).

        Control characters are escaped, so the text may be shown in a terminal.
        """
        found = json.dumps(self._data, indent=indent, ensure_ascii=False, allow_nan=False)
        return printable_json(_ON_ONE_LINE.sub(lambda part: _INDENT.sub(" ", part[0]), found))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the JSON to `path`, whole or not at all, and return the path.

        Raises:
            OSError: the file cannot be written.
        """
        return write_atomically(path, self.to_json() + "\n")

    def render(self, format: Format = "console") -> str:  # noqa: A002 - the word users expect
        """Return the report as text for people or, as JSON, for programs.

        "html" is one self-contained page, "markdown" suits a pull request.

        Raises:
            ValueError: the format is unknown.
            ImportError: "html" needs jinja2, which the extra `cli` installs.
        """
        if format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        if format == "json":
            return self.to_json()
        renderer = importlib.import_module(f"otel_pipeline_metrics.report.{format}")
        text: str = renderer.render(self)
        return text

    @classmethod
    def merge(cls, *reports: RunReport) -> RunReport:
        """Return one report of several processes of a run, or of several runs.

        The wall time is the time in which one of them ran: runs at the same time count once, and
        gaps between runs do not count. Averages over time are weighted by the time observed. The
        workers of a stage add up.

        Raises:
            TypeError: an argument is not a RunReport.
            ValueError: no report is given, one is given twice, or the pipelines differ.
        """
        if not reports:
            raise ValueError("there is no report to merge")
        for report in reports:
            if not isinstance(report, RunReport):
                raise TypeError(
                    f"reports must each be a RunReport, not {type(report).__name__}; "
                    "those of a list are given as merge(*reports)"
                )
        return merge_reports(reports)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunReport:
        """Read a report that `save`, a run or `MetricsCollector.export_json()` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is cut off, not a report, larger than `MAX_BYTES`, or of another
                version; the message names it.
        """
        return _from_json(read_whole(path, MAX_BYTES + 1), printable(path))


def merge_reports(reports: Iterable[RunReport]) -> RunReport:
    """Return one report of several; they are read one after the other.

    Raises:
        ValueError: as `RunReport.merge`.
    """
    from otel_pipeline_metrics.report.merge import merge

    # copies would take longer than the rest
    return RunReport(merge(report._data for report in reports))


def read_report(file: BinaryIO, name: str) -> RunReport:
    """Read a report from an open file, which errors call `name`.

    Raises:
        OSError: the file cannot be read.
        ValueError: its content is cut off, not a report, larger than `MAX_BYTES`, or of another
            version.
    """
    return _from_json(file.read(MAX_BYTES + 1), name)


def _from_json(content: bytes, name: str) -> RunReport:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES:,} bytes, so it is not a report")
    try:
        data = json.loads(content.decode(), parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON, or is cut off: {error}") from None
    except RecursionError:
        raise ValueError(f"{name} is not a report: it is nested too deeply") from None
    try:
        return RunReport(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    except RecursionError:
        raise ValueError(f"{name} is not a report: it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _checked(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError("not a report: a JSON object is expected")
    if is_collector_data(data):
        data = as_report(data)
    _check_depth(data, _MAX_DEPTH)
    _check_schema(data.get("schema"))
    # version 1 lacks keys of version 2; what it has means the same
    data = {**data, "schema": SCHEMA}
    for name, kind in PARTS.items():
        if name in OPTIONAL_PARTS and name not in data:
            continue
        if not isinstance(data.get(name), kind):
            raise ValueError(f"not a whole report: {name!r} is missing or of the wrong kind")
        for entry in data[name] if name in NAMED else ():
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise ValueError(f"not a whole report: {name!r} has an entry without a name")
            _check_numbers(entry, f"{name} {entry['name']!r}")
    copied: dict[str, Any] = plain(data)
    return copied


def _check_depth(part: dict[str, Any] | list[Any], left: int) -> None:
    """Raise if whatever walks through the data would run into Python's own limit."""
    if not left:
        raise ValueError(f"not a report: it is nested too deeply, over {_MAX_DEPTH} levels")
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, (dict, list)):
            _check_depth(value, left - 1)


def _check_numbers(part: dict[str, Any], where: str) -> None:
    """Raise if there is text in place of a number: comparing it would mislead."""
    for key, value in part.items():
        if key in TEXT_FIELDS:
            continue
        if isinstance(value, dict):
            _check_numbers(value, f"{where}, {key}")
        elif value is not None and not isinstance(value, (int, float)):
            raise ValueError(f"not a whole report: {where}: {key!r} is not a number")


def _check_schema(schema: object) -> None:
    if schema == SCHEMA:
        return
    family, _, ours = SCHEMA.rpartition("/")
    found, _, version = str(schema).rpartition("/")
    if found != family:
        raise ValueError(f"not a report: its schema is {schema!r}, expected {SCHEMA!r}")
    if version == "1":
        return
    newer = version.isdecimal() and int(version) > int(ours)
    hint = "; a later otel-pipeline-metrics wrote it, upgrade this one" if newer else ""
    raise ValueError(f"the report has schema {schema!r}, this version reads {SCHEMA!r}{hint}")
