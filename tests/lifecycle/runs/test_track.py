"""`track`: a loop's items as a stage, in a run and outside, with a bar on a terminal."""

from __future__ import annotations

import asyncio
import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.report import live, screen
from tests.report.test_live import drawn, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Clock


def test_a_loop_is_one_call_whose_items_are_counted(clock: Clock) -> None:
    def source() -> Iterator[int]:
        for n in range(3):
            clock.advance(1)
            yield n

    with opm.run("r", resources=False) as run:
        for _ in opm.track(source(), name="rows"):
            clock.advance(10)  # the body's time is not the stage's
    (row,) = run.report.stages
    assert (row["name"], row["kind"], row["count"]) == ("rows", "process", 1)
    assert row["items"]["out"] == 3
    assert row["duration_s"]["total"] == pytest.approx(3)


def test_async_iterables_and_other_kinds() -> None:
    async def source() -> AsyncIterator[int]:
        for n in range(4):
            yield n

    async def main() -> list[int]:
        return [n async for n in opm.track(source(), name="pages", kind="fetch", total=4)]

    with opm.run("r", resources=False) as run:
        assert asyncio.run(main()) == [0, 1, 2, 3]
    (row,) = run.report.stages
    assert (row["kind"], row["items"]["out"]) == ("fetch", 4)


def test_outside_of_a_run_and_left_early() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    for n in opm.track(source(), name="left early"):
        if n == 2:
            break
    assert closed == [True]
    assert list(opm.track("ab", name="letters")) == ["a", "b"]
    assert list(opm.track([], name="none")) == []


def test_an_error_of_the_iterable_passes_through() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    with opm.run("r", resources=False) as run:
        followed = opm.track(source(), name="rows")
        assert next(followed) == 1
        with pytest.raises(KeyError):
            next(followed)
    assert run.report.stages[0]["errors"] == {"total": 1, "by_type": {"KeyError": 1}}


@pytest.mark.parametrize(
    ("iterable", "arguments", "error", "message"),
    [
        (7, {"name": "x"}, TypeError, "iterable must be iterable, not int"),
        ([], {"name": ""}, ValueError, "name must not be empty"),
        ([], {"name": 7}, TypeError, "name must be"),
        ([], {"name": "x", "total": -1}, ValueError, "total must"),
        ([], {"name": "x", "total": "3"}, TypeError, "total must"),
        ([], {"name": "x", "kind": ""}, ValueError, "kind must not be empty"),
    ],
)
def test_a_bad_argument_is_named(
    iterable: Any, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opm.track(iterable, **arguments)


def test_a_bar_tells_items_rate_and_time_left(clock: Clock) -> None:
    bar = live.Bar("rows", 200)
    unknown = live.Bar("pages", None)
    clock.advance(5)
    bar.done = unknown.done = 50
    assert drawn(bar()).split("━")[0] == "rows "
    assert drawn(bar()).endswith("50 of 200  25 %  15.0 s left")
    assert drawn(unknown()) == "pages 50 items  10 per s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_there_while_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    followed = opm.track([1, 2, 3], name="rows")
    assert terminal.getvalue() == ""
    assert next(followed) == 1
    wait_for(lambda: "1 of 3" in terminal.getvalue())
    assert list(followed) == [2, 3]
    assert screen._screens == {}
    assert terminal.getvalue().endswith("\x1b[2K")
    # without a terminal nothing is shown
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    assert list(opm.track([1], name="rows")) == [1]
    assert pipe.getvalue() == ""
