"""The summary at every width: columns go by their worth, numbers are never cut, colours."""

from __future__ import annotations

import io
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_pipeline_metrics._core import output, text
from otel_pipeline_metrics.report import RunReport, console
from otel_pipeline_metrics.report.tables import Look, Table, bar, look_of, shortened
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Callable


def sequential(**run: Any) -> RunReport:
    """Return two stages in turn: 6 s and 2 s of 10 s, the second fails once."""
    load = samples.stage("load", [0.5] * 12, kind="fetch", wall_s=10.0, items=(None, 24))
    save = samples.stage("save", [0.5] * 4, kind="write", wall_s=10.0, errors={"KeyError": 1})
    load |= {"run_share": 0.6, "self_s": 6.0}
    save |= {"run_share": 0.2, "self_s": 2.0}
    made = samples.data([save, load], wall_s=10.0)
    made["run"] |= {"outside_s": 2.0, **run}
    return RunReport(made)


def heads(report: RunReport, columns: int | None) -> list[str]:
    shown = console.render(report, Look(columns))
    (line,) = (line for line in shown.splitlines() if line.startswith("stage "))
    return re.split(r" {2,}", line)


ALL = [
    *("stage", "kind", "duration", "self", "share", "of run", "count", "items", "avg/item"),
    *("items/s", "p50", "p95", "p99", "max", "errors"),
]
STAY = ["stage", "duration", "count", "items", "avg/item", "errors"]


def test_wide_enough_every_column_is_shown() -> None:
    assert heads(sequential(), None) == heads(sequential(), 200) == ALL


def test_columns_go_by_their_worth_and_some_stay() -> None:
    report = sequential()
    seen = [ALL]
    for columns in range(150, 48, -1):
        found = heads(report, columns)
        if found != seen[-1]:
            seen.append(found)
        assert [title for title in found if title in STAY] == STAY
    gone = [
        *("kind", "p50", "p99", "of run", "p95", "self", "items/s", "max", "share"),
    ]
    assert [title for title in ALL if title not in seen[-1]] == [t for t in ALL if t in gone]
    for before, after in itertools.pairwise(seen):
        lost = [title for title in gone if title in before and title not in after]
        assert lost == [title for title in gone if title in before][: len(lost)]


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 80, 120])
@pytest.mark.parametrize("made", [sequential, samples.full])
def test_no_line_is_too_long_and_no_number_is_cut(
    made: Callable[[], RunReport], columns: int
) -> None:
    report = made()
    whole = " ".join(report.render("console").split())
    lines = console.render(report, Look(columns)).splitlines()
    assert [line for line in lines if text.width(line) > max(columns, 35)] == []
    quantities = re.findall(r"\d[\d,.]*\d(?: (?:%|ms|µs|s|MiB)(?!\w))?", " ".join(lines))
    assert quantities
    assert [one for one in quantities if one not in whole] == []
    # none stands at the end of a line without its unit
    assert not [line for line in lines if re.search(r"\d$", line) and re.match(r"\s*%", line)]


def test_where_columns_do_not_fit_a_stage_is_a_paragraph() -> None:
    shown = console.render(sequential(), Look(40))
    assert (
        "load\n"
        "  duration 6.00 s, count 12, items 24,\n"
        "    avg/item 250 ms, errors 0\n"
        "save\n"
        "  duration 2.00 s, count 4, items -,\n"
        "    avg/item 500 ms, errors 1\n"
        "outside\n"
        "  duration 2.00 s\n"
        "errors of save: 1 (KeyError 1)"
    ) in shown


def test_the_first_line_has_the_verdict_with_its_number() -> None:
    first = console.render(sequential()).splitlines()[0]
    assert first == "run nightly: success in 10.0 s; load took most of it (60 %)"
    first = console.render(samples.full()).splitlines()[0]
    assert first == "run nightly: success in 20.0 s; write holds the run back (98 % busy)"


@pytest.mark.parametrize(
    ("outside", "share", "sentence"),
    [
        (9.0, 0.1, "; most of it (90 %) was outside of stages"),
        (4.0, 0.35, "; the largest part of it (40 %) was outside of stages"),
        (1.0, 0.4, "; load took the largest part of it (40 %)"),
        (None, None, ""),
    ],
)
def test_what_took_the_time(outside: float | None, share: float | None, sentence: str) -> None:
    report = sequential(outside_s=outside)
    for stage in report.stages:
        stage["run_share"] = share if stage["name"] == "load" else None
    assert console.headline(report) == f"run nightly: success in 10.0 s{sentence}"


def test_a_failed_run_leads_with_what_failed() -> None:
    report = sequential(result="failure", error_type="KeyError")
    lines = console.render(report).splitlines()
    assert lines[0] == "run nightly: failure in 10.0 s (KeyError in save)"
    report = sequential(result="failure", error_type="OSError")  # raised outside of stages
    assert console.headline(report) == "run nightly: failure in 10.0 s (OSError)"
    made = samples.full().to_dict()
    made["run"] |= {"result": "failure", "error_type": "ValueError"}
    lines = console.render(RunReport(made)).splitlines()
    assert lines[:2] == [
        "run nightly: failure in 20.0 s (ValueError in process)",
        "  verdict: write holds the run back (98 % busy)",
    ]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("serial", "load took most of it (60 %)"),
        ("undecorated", "A step that is no stage holds the run back"),
        ("cpu", "The CPU limits the run (busy 31 %)"),
        ("gil", "The GIL limits the run: one thread at a time runs Python (held 62 %)"),
    ],
)
def test_a_verdict_that_names_no_stage_has_its_number_too(kind: str, first: str) -> None:
    made = sequential().to_dict()
    made["bottleneck"] = {"kind": kind, "stage": "load" if kind == "serial" else None}
    made["resources"] = {"samples": 9, "cpu_utilization": {"avg": 0.31}, "gil_held": 0.62}
    assert console.headline(RunReport(made)) == f"run nightly: success in 10.0 s; {first}"


def test_stages_are_in_flow_order_and_the_rest_is_outside() -> None:
    rows = [line.split() for line in console.render(sequential()).splitlines()]
    names = [row[0] for row in rows if row and row[0] in {"load", "save", "outside"}]
    assert names == ["load", "save", "outside"]
    assert ["outside", "2.00", "s", "20", "%", "█▎"] in rows


def test_runs_of_hours_have_hours() -> None:
    assert console.headline(sequential(wall_s=3 * 3600 + 125.0)).startswith(
        "run nightly: success in 3 h 02 min; "
    )


def test_colours_change_no_text() -> None:
    for report in (sequential(result="failure", error_type="KeyError"), samples.full()):
        for columns in (None, 100, 40):
            coloured = console.render(report, Look(columns, colours=True))
            plain = re.sub(r"\x1b\[[\d;]+m", "", coloured)
            lines = [line.rstrip() for line in plain.splitlines()]
            assert lines == console.render(report, Look(columns)).splitlines()
            assert "\x1b[1;31mrun" in coloured or "\x1b[1;32mrun" in coloured


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "look"),
    [
        ({"COLUMNS": "72"}, Look(72, colours=True)),
        ({}, Look(80, colours=True)),
        ({"NO_COLOR": "1"}, Look(80)),
        ({"NO_COLOR": ""}, Look(80, colours=True)),
        ({"TERM": "dumb"}, Look(80)),
    ],
)
def test_a_terminal_tells_its_look(
    env: dict[str, str], look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert look_of(Terminal()) == look
    assert look_of(io.StringIO()) == Look()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.text("ab写é ", max_size=40), st.integers(0, 10**9)), min_size=1),
    st.integers(30, 100),
)
def test_every_number_of_a_table_is_whole(rows: list[tuple[str, int]], columns: int) -> None:
    table = Table(
        ("name", "n", "square"), [(n, f"{v}", f"{v * v}") for n, v in rows], 1, leave=("square",)
    )
    lines = table.render(Look(columns)).splitlines()
    assert max(map(text.width, lines)) <= columns
    numbers = re.findall(r"\d+", table.render(Look(columns)))
    whole = {str(one) for _, value in rows for one in (value, value * value)}
    assert {str(value) for _, value in rows} <= set(numbers) <= whole


def test_a_name_is_cut_in_the_middle() -> None:
    assert shortened("read_sources", 12) == "read_sources"
    assert shortened("read_all_the_sources", 12) == "read_…ources"
    assert text.width(shortened("写入" * 20, 16)) <= 16


def test_a_bar_is_as_long_as_its_share() -> None:
    shares = (None, 0.0, 0.5, 1.0, 2.0)
    assert [bar(share) for share in shares] == ["", "", "███", "██████", "██████"]
    assert bar(1 / 48) == "▏"


def test_a_bar_on_a_terminal_without_the_letters() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    assert output.write_line(stream, f"{bar(0.55)}| 3 µs")
    assert raw.getvalue() == b"### | 3 us\n"
