"""Test the warnings about what is hardly ever meant: two decorators, a kind with a slip."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stand for retries."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def told(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [message for message in caplog.messages if word in message]


def plain() -> int:
    return 1


class Bound:
    @opm.stage
    def method(self) -> None: ...


TWICE: dict[str, Callable[[], Any]] = {
    "bare": lambda: opm.stage(opm.stage(plain)),
    "other kinds": lambda: opm.fetch(opm.process(plain)),
    "other names": lambda: opm.stage("a")(opm.stage("b")(plain)),
    "the same around something": lambda: opm.stage(around(opm.stage(plain))),
    "a partial": lambda: opm.stage(functools.partial(opm.stage(plain))),
    "a class method": lambda: opm.stage(classmethod(opm.stage(plain))),
    "a bound method": lambda: opm.stage(Bound().method),
    "a cache": lambda: opm.stage(functools.lru_cache(opm.stage(plain))),
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_a_stage_decorated_twice_warns_once(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    make()
    make()
    assert len(told(caplog, "is decorated twice")) == 1


ONCE: dict[str, Callable[[], Any]] = {
    "attempts and the whole": lambda: opm.stage("all")(around(opm.stage("attempt")(plain))),
    "one function as two stages": lambda: (opm.stage("a")(plain), opm.stage("b")(plain)),
    "a mock": lambda: opm.stage("mock")(Mock()),
    "a run around": lambda: opm.stage("main")(opm.run("r")(plain)),
}


@pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
def test_what_is_meant_does_not_warn(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    make()
    assert not told(caplog, "twice")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("proces", "process"),
        ("Process", "process"),
        ("porcess", "process"),
        ("processs", "process"),
        ("procces", "process"),
        ("processed", "process"),
        ("fecth", "fetch"),
        ("FETCH", "fetch"),
        ("fetch ", "fetch"),
        ("wirte", "write"),
        ("writ", "write"),
        ("wride", "write"),
    ],
)
def test_a_kind_with_a_slip_warns_once(
    kind: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    opm.stage("a", kind=kind)
    opm.stage("b", kind=kind)
    assert len(told(caplog, f"the kind {kind!r} of a stage is not {word!r}")) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "fetch",
        "process",
        "write",
        "batch",
        "rewrite",
        "prefetch",
        "sketch",
        "load",
        "x",
        "validate",
    ],
)
def test_a_kind_of_ones_own_does_not_warn(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    opm.stage("a", kind=kind)
    assert not caplog.messages


class First:
    def loads(self) -> None:
        """Do nothing."""

    def gets(self) -> None:
        """Do nothing."""


class Second(First):
    def loads(self) -> None:
        """Do nothing."""


def test_two_functions_of_one_name_in_a_run_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = opm.stage(First.loads), opm.stage(Second.loads)
    for functions in ((first,), (second,), (first, first), (opm.stage(First.loads), first)):
        with opm.run("r", resources=False):
            for function in functions:
                function(First())
    assert not told(caplog, "loads")
    for _ in range(2):
        with opm.run("r", resources=False) as run:
            first(First())
            second(Second())
    assert [(stage["name"], stage["count"]) for stage in run.report.stages] == [("loads", 2)]
    (said,) = told(caplog, "2 functions are the stage 'loads'")
    assert f"{__name__}.First.loads, {__name__}.Second.loads" in said


def test_one_name_that_was_given_on_purpose(caplog: pytest.LogCaptureFixture) -> None:
    with opm.run("r", resources=False):
        opm.stage("given")(First.loads)(First())
        opm.stage("given")(First.gets)(First())
        with opm.stage("given"):
            pass
    assert not told(caplog, "given")
