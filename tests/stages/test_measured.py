"""Test stages of callables that are no functions: everything but the call is their own."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import operator
import pickle
import types
from enum import Enum
from typing import TYPE_CHECKING, Any
from unittest import mock

import cloudpickle
import pytest

from otel_pipeline_metrics import process, register_cache, stage, unregister_cache
from tests.stages.support import call

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.conftest import Results


def scale(factor: int, x: int = 2) -> int:
    return factor * x


@stage("looked up")
@functools.lru_cache
def looked_up(n: int) -> int:
    return 2 * n


class Upper:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> str:
        self.calls += 1
        return text.upper()


class Chain:
    """Like the steps of a library that are joined by operators."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.limit = 1

    def __call__(self, n: int) -> int:
        return n + len(self.steps)

    def __or__(self, other: Any) -> Chain:
        return Chain(*self.steps, other)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Any:
        return iter(self.steps)

    def __getitem__(self, at: int) -> Any:
        return self.steps[at]

    def __enter__(self) -> str:
        return "inside"

    def __exit__(self, *_: object) -> None:
        self.steps += ("left",)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and other.steps == self.steps

    __hash__ = None  # type: ignore[assignment]


class Binding:
    """A callable that becomes a method in a way of its own."""

    def __init__(self, to: Any = None) -> None:
        self.to = to

    def __get__(self, instance: Any, owner: Any = None) -> Binding:
        return self if instance is None else Binding(instance)

    def __call__(self, n: int = 0) -> tuple[Any, int]:
        return self.to, n


class Holder:
    def method(self, n: int = 0) -> tuple[Any, int]:
        return self, n


ATTRIBUTES: list[tuple[str, Callable[[], Any], tuple[Any, ...]]] = [
    ("partial", lambda: functools.partial(scale, 10), (3,)),
    ("builtin", lambda: len, ([1, 2],)),
    ("callable", Upper, ("a",)),
    ("bound method", lambda: Holder().method, (3,)),
    ("bound builtin", lambda: "-".join, (["a", "b"],)),
    ("itemgetter", lambda: operator.itemgetter(1), ([1, 2],)),
    ("cached", lambda: functools.lru_cache(lambda self, n: n), (3,)),
    ("function", lambda: lambda self, n: n, (3,)),
    ("method descriptor", lambda: str.upper, ()),
    ("binding", Binding, (3,)),
    ("partial of a partial", lambda: functools.partial(functools.partial(scale, 2)), (3,)),
]


@pytest.mark.filterwarnings("ignore:functools.partial will be a method descriptor:FutureWarning")
@pytest.mark.parametrize(("make", "given"), [row[1:] for row in ATTRIBUTES], ids=lambda v: "")
def test_an_attribute_of_a_class_binds_as_without_the_stage(
    make: Callable[[], Any], given: tuple[Any, ...], results: Results
) -> None:
    bare = make()
    classes = [type("Some", (str,), {"step": each}) for each in (bare, stage("step")(bare))]
    outcomes = [some("text").step(*given) for some in classes]
    assert outcomes[0] == outcomes[1]
    assert len(results.durations("step")) == 1


def test_a_member_of_an_enumeration_stays_one() -> None:
    class Steps(Enum):
        UPPER = process(Upper())

    assert [step.name for step in Steps] == ["UPPER"]
    assert Steps.UPPER.value("a") == "A"


def test_the_attributes_of_what_is_wrapped_are_reached(results: Results) -> None:
    cached = stage("cached")(functools.lru_cache(scale))
    assert [cached(3), cached(3)] == [6, 6]
    assert cached.cache_info().hits == 1
    cached.cache_clear()
    assert cached.cache_info().currsize == 0
    register_cache("scaled", cached)
    unregister_cache("scaled")
    upper = Upper()
    measured = stage("upper")(upper)
    measured("a")
    assert measured.calls == 1
    measured.calls = 7
    measured.note = "new"
    assert (upper.calls, upper.note) == (7, "new")  # type: ignore[attr-defined]
    del measured.note
    assert not hasattr(upper, "note")
    assert {"calls", "__call__"} <= set(dir(measured))
    with pytest.raises(AttributeError, match="'Upper' object has no attribute 'missing'"):
        measured.missing  # noqa: B018 - the point
    partial = stage("partial")(functools.partial(scale, 2))
    assert (partial.func, partial.args) == (scale, (2,))
    assert functools.partial(partial, 3)() == 6


def test_a_task_with_delay_and_submit(results: Results) -> None:
    class Task:
        name = "tasks.load"

        def __call__(self, n: int) -> int:
            return n

        def delay(self, n: int) -> tuple[str, int]:
            return "sent", self(n)

    measured = process(Task())
    assert (measured(1), measured.delay(2), measured.name) == (1, ("sent", 2), "tasks.load")
    # what is called inside of the task itself is not the stage
    assert len(results.durations("Task")) == 1


def test_special_methods_and_isinstance() -> None:
    chain = Chain("a", "b")
    measured = stage("chain")(chain)
    assert isinstance(measured, Chain)
    assert (len(measured), list(measured), measured[1]) == (2, ["a", "b"], "b")
    assert (measured | "c").steps == ("a", "b", "c")
    with measured as inside:
        assert inside == "inside"
    assert chain.steps == ("a", "b", "left")
    assert measured == chain
    assert measured == measured  # noqa: PLR0124 - its own __eq__
    with pytest.raises(TypeError, match="unhashable"):
        hash(measured)
    assert repr(stage("len")(len)) == repr(len)
    assert not isinstance(stage("len")(len), Chain)
    assert inspect.signature(measured) == inspect.signature(chain)


def test_signatures_are_those_of_what_is_wrapped() -> None:
    for bare in (functools.partial(scale, 2), Upper(), len, functools.lru_cache(scale)):
        assert inspect.signature(stage("s")(bare)) == inspect.signature(bare)


def test_mocks_see_the_calls(results: Results) -> None:
    bare = mock.AsyncMock(return_value=3)
    measured: Any = stage("mocked")(bare)
    assert asyncio.run(call_of(measured, 1)) == 3
    measured.assert_awaited_once_with(1)
    measured.return_value = 4
    assert asyncio.run(call_of(measured, 2)) == 4
    assert bare.await_count == 2
    for is_coroutine in (inspect.iscoroutinefunction, asyncio.iscoroutinefunction):
        assert is_coroutine(measured) == is_coroutine(bare)
    plain: Any = stage("plain")(mock.Mock(side_effect=[1, KeyError("k")]))
    assert plain(5) == 1
    with pytest.raises(KeyError):
        plain()
    assert plain.call_count == 2


async def call_of(function: Any, *args: Any) -> Any:
    return await function(*args)


@pytest.mark.parametrize("is_async", [False, True])
def test_mocks_made_for_a_stage(is_async: bool) -> None:
    async def loads(a: int, *, b: int = 2) -> int:
        return a

    bare: Any = loads if is_async else scale
    made, wanted = mock.create_autospec(stage("s")(bare)), mock.create_autospec(bare)
    assert type(made) is type(wanted)
    assert inspect.iscoroutinefunction(made) == inspect.iscoroutinefunction(wanted)
    assert asyncio.iscoroutinefunction(made) == is_async
    assert repr(mock.Mock(spec=stage("s")(bare)))[:27] == repr(mock.Mock(spec=bare))[:27]
    with pytest.raises(TypeError, match="unexpected keyword"):
        # from Python 3.13 on an asynchronous one raises when it is awaited
        call(mock.create_autospec(stage("s")(bare)), 1, c=3)


def test_pickling_by_name_and_by_value(results: Results) -> None:
    assert looked_up is pickle.loads(pickle.dumps(looked_up))  # noqa: S301
    assert looked_up is copy.copy(looked_up)
    for made in (functools.partial(scale, 2), Upper()):
        for copied in (
            pickle.loads(pickle.dumps(stage("copied")(made))),  # noqa: S301
            pickle.loads(cloudpickle.dumps(stage("copied")(made))),  # noqa: S301
            copy.deepcopy(stage("copied")(made)),
        ):
            assert type(copied).__name__ == type(made).__name__
            copied("b" if isinstance(made, Upper) else 3)
    assert len(results.durations("copied")) == 6


def test_a_stage_of_a_stage(results: Results) -> None:
    async def loads(n: int) -> int:
        return n

    twice = stage("outer")(stage("inner")(functools.partial(loads, 3)))
    assert inspect.iscoroutinefunction(twice)
    assert call(twice) == 3
    assert len(results.durations("outer")) == len(results.durations("inner")) == 1


def make_iterable(measure: Callable[[Any], Any]) -> Any:
    @measure
    @types.coroutine
    def waits(n: int) -> Generator[None, None, int]:
        yield
        if n < 0:
            raise KeyError(n)
        return n

    return waits


def test_what_types_coroutine_made_stays_awaitable(results: Results) -> None:
    bare, measured = make_iterable(lambda f: f), make_iterable(stage("waits"))
    assert asyncio.run(call_of(measured, 7)) == 7
    with pytest.raises(KeyError):
        asyncio.run(call_of(measured, -1))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'n'"):
        measured()

    @types.coroutine
    def around(function: Any) -> Generator[None, None, int]:
        return (yield from function(8))

    assert asyncio.run(call_of(around, measured)) == 8
    for tells in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.signature):
        assert tells(measured) == tells(bare)
    assert inspect.isawaitable(measured(1)) == inspect.isawaitable(bare(1))
    assert type(measured(1)) is type(bare(1))
    outcomes = [r.outcome for r in results.of("waits")]
    assert outcomes.count("error") == 1
    results.durations("waits")
    assert {batch.key.stage for batch in results.batches} == {"waits"}
