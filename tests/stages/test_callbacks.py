"""Test that code of the program that we call, and that raises anything, changes nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import errors, series
from tests.stages.support import call, in_flight, nothing_current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Results


class OddError(BaseException):
    """Is no `Exception`, as few programs have it."""


RAISED = [
    ValueError, StopIteration, RecursionError, MemoryError, SystemExit, GeneratorExit, OddError,
    asyncio.CancelledError, StopAsyncIteration, ZeroDivisionError,
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet_faults(loud_faults: None) -> Iterator[None]:
    """Log internal errors, as outside of the tests."""
    errors.raise_faults = False
    yield
    errors.raise_faults = True


def plain(n: int) -> int:
    return n


async def waits(n: int) -> int:
    return n


def steps(n: int) -> Iterator[int]:
    yield n


async def async_steps(n: int) -> AsyncIterator[int]:
    yield n


def submits(n: int) -> Any:
    future: Any = concurrent.futures.Future()
    future.set_result(n)
    return future


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("function", [plain, waits, steps, async_steps, submits])
def test_items_that_raises(
    function: Any, error: type[BaseException], results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    def items(_: Any) -> int:
        raise error("x")

    measured = stage("counted", items=items)(function)
    for _ in range(3):
        got = call(measured, 3)
        assert (got.result() if function is submits else got) == 3
    assert nothing_current()
    assert in_flight("counted") == 0
    assert len(results.durations("counted")) == 3
    assert results.sizes("counted") == []
    (said,) = caplog.messages
    assert f"the items= of stage 'counted' failed with {error.__name__}" in said


def test_ctrl_c_in_items_reaches_the_program(results: Results) -> None:
    def items(_: Any) -> int:
        raise KeyboardInterrupt

    for function in (plain, waits, steps, async_steps):
        with pytest.raises(KeyboardInterrupt):
            call(stage("counted", items=items)(function), 3)
        assert nothing_current()
    # what was interrupted stays in flight
    for scope in list(series.scopes):
        scope.forget()


class AnyAttributeError(Exception):
    """Raises when it is asked for anything, its class too."""

    def __getattribute__(self, name: str) -> Any:
        raise OddError(name)


def of_a_hostile_class() -> BaseException:
    class Hostile(type):
        def __getattribute__(cls, name: str) -> Any:
            raise OddError(name)

    class HostileClassError(Exception, metaclass=Hostile):
        """Its class raises when it is asked for its name."""

    return HostileClassError("x")


class TextError(Exception):
    """Raises when it is made text."""

    raising: type[BaseException] = OddError

    def __str__(self) -> str:
        raise self.raising

    __repr__ = __str__


class ExitTextError(TextError):
    raising = SystemExit


class CompareError(Exception):
    def __eq__(self, other: object) -> bool:
        raise OddError

    def __hash__(self) -> int:
        raise OddError


class GroupError(Exception):
    """Looks like a group, and raises when it is asked for its exceptions."""

    def derive(self) -> None:
        """Be like a group."""

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        raise OddError


def deep_group() -> BaseException:
    made: BaseException = ValueError("v")
    for _ in range(2000):
        made = ExceptionGroup("g", [made])  # type: ignore[list-item]  # noqa: F821, RUF100
    return made


def around_itself() -> BaseException:
    error = ValueError("v")
    error.__context__ = error
    return error


HOSTILE: list[Callable[[], BaseException]] = [
    AnyAttributeError, of_a_hostile_class, TextError, ExitTextError, CompareError, GroupError,
    around_itself, *([deep_group] if sys.version_info >= (3, 11) else []),
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("form", ["function", "generator", "block", "run"])
def test_an_exception_whose_own_code_raises(
    form: str, make: Callable[[], BaseException], results: Results
) -> None:
    """It is what the program gets, the same object, and the call is counted as failed."""
    error = make()

    def fails(n: int) -> int:
        raise error

    def yields(n: int) -> Iterator[int]:
        yield n
        raise error

    caught = None
    try:
        if form == "function":
            stage("fails")(fails)(1)
        elif form == "generator":
            list(stage("fails")(yields)(1))
        elif form == "block":
            with stage("fails"):
                fails(1)
        else:
            with opm.run("r", resources=False), stage("fails"):
                fails(1)
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert nothing_current()
    assert [r.outcome for r in results.of("fails")] == ["error"]


class OwnInt(int):
    """A number whose methods raise, once it is not plain any more."""

    def __index__(self) -> int:
        raise OddError

    __add__ = __radd__ = __lt__ = __gt__ = __le__ = __ge__ = __hash__ = __index__  # type: ignore[assignment]


class OwnText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise OddError

    __len__ = __getitem__ = encode = __hash__ = __eq__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize("make", [lambda: OwnInt(3), lambda: OwnText("x")], ids=["int", "str"])
def test_values_of_classes_of_the_program(make: Callable[[], Any], results: Results) -> None:
    """They lose their class where they come in, so that no later code of ours meets it."""
    value = make()
    with stage("valued") as s:
        s.set_attribute("shade", value)
        if isinstance(value, int):
            s.add_items(value)
    (result,) = results.of("valued")
    found = dict(result.attributes or {})["shade"]
    assert type(found) in {int, str}
    assert found == (3 if isinstance(value, int) else "x")
    assert result.items_out == (3 if isinstance(value, int) else None)
