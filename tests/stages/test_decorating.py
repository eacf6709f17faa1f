"""Test the decorator on every kind of callable: the program behaves as without it."""

from __future__ import annotations

import asyncio
import doctest
import functools
import inspect
import sys
import traceback
import types
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import current_stage, fetch, process, stage, write
from otel_pipeline_metrics._core.validation import MAX_NAME_LENGTH
from tests.stages.support import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Clock, Results


def plain(a: int, *, b: int = 2) -> int:
    """Add."""
    return a + b


async def coroutine(a: int, *, b: int = 2) -> int:
    """Add."""
    await asyncio.sleep(0)
    return a + b


def generator(a: int, *, b: int = 2) -> Iterator[int]:
    """Add."""
    yield a + b


async def async_generator(a: int, *, b: int = 2) -> AsyncIterator[int]:
    """Add."""
    yield a + b


FUNCTIONS = [plain, coroutine, generator, async_generator]
KINDS = [
    inspect.isfunction,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
]


functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@functions
def test_a_bare_decorator(function: Any, results: Results) -> None:
    measured = stage(function)
    assert call(measured, 3) == 5
    assert call(measured, 3, b=1) == 4
    assert len(results.durations(function.__name__)) == 2


@functions
def test_a_decorator_with_arguments(function: Any, results: Results) -> None:
    measured = stage("named", kind="process", attributes={"a": 1})(function)
    assert call(measured, 3) == 5
    results.durations("named")
    (batch,) = results.batches
    assert batch.key == (None, "named", "process")
    assert batch.attributes == {"a": 1}


@functions
def test_empty_parentheses_name_the_stage_after_the_function(
    function: Any, results: Results
) -> None:
    assert call(stage()(function), 3) == 5
    assert len(results.durations(function.__name__)) == 1


@functions
@pytest.mark.parametrize(
    ("decorator", "kind"), [(fetch, "fetch"), (process, "process"), (write, "write")]
)
def test_fetch_process_and_write_set_the_kind(
    function: Any, decorator: Any, kind: str, results: Results
) -> None:
    assert call(decorator(function), 3) == 5
    assert call(decorator("other name")(function), 3) == 5
    results.durations("")
    assert {(None, function.__name__, kind), (None, "other name", kind)} == {
        b.key for b in results.batches
    }


@functions
def test_a_wrapper_looks_like_the_function(function: Any) -> None:
    measured = stage(function)
    assert inspect.signature(function) == inspect.signature(measured)
    assert measured.__doc__ == "Add."
    assert function is measured.__wrapped__
    assert function is inspect.unwrap(measured)
    for name in ("__name__", "__qualname__", "__module__", "__annotations__"):
        assert getattr(function, name) == getattr(measured, name)
    assert [is_kind(function) for is_kind in KINDS] == [is_kind(measured) for is_kind in KINDS]


@functions
def test_wrong_arguments_are_a_type_error(function: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        call(stage(function), 3, c=1)


def test_a_function_may_have_parameters_self_and_name() -> None:
    @stage
    def function(self: int, stage: int, function: int, items: int, execution: int) -> int:
        return self + stage + function + items + execution

    assert function(self=1, stage=2, function=3, items=4, execution=5) == 15


@functions
def test_a_partial(function: Any, results: Results) -> None:
    measured = stage(functools.partial(function, b=7))
    assert call(measured, 3) == 10
    assert len(results.durations(function.__name__)) == 1
    assert [k(function) for k in KINDS[1:]] == [k(measured) for k in KINDS[1:]]


class Plain:
    def __call__(self, a: int) -> int:
        return a


class Coroutine:
    async def __call__(self, a: int) -> int:
        await asyncio.sleep(0)
        return a


class Generator:
    def __call__(self, a: int) -> Iterator[int]:
        yield a


class AsyncGenerator:
    async def __call__(self, a: int) -> AsyncIterator[int]:
        yield a


@pytest.mark.parametrize("instance", [Plain(), Coroutine(), Generator(), AsyncGenerator()])
@pytest.mark.parametrize("partial", [False, True])
def test_a_callable_instance(instance: Any, partial: bool, clock: Clock, results: Results) -> None:
    """It is named after its class, and is of the same kind for who looks."""
    bare = functools.partial(instance, 3) if partial else instance
    measured = stage(bare)
    assert call(measured, *(() if partial else (3,))) == 3
    assert [is_kind(bare) for is_kind in KINDS] == [is_kind(measured) for is_kind in KINDS]
    called = [is_kind(bare.__call__) for is_kind in KINDS[1:]]
    assert [is_kind(measured.__call__) for is_kind in KINDS[1:]] == called
    assert len(results.durations(type(instance).__name__)) == 1


def test_a_builtin(results: Results) -> None:
    assert stage(len)("abc") == 3
    assert len(results.durations("len")) == 1


def test_a_cached_function(results: Results) -> None:
    cached = stage(functools.lru_cache(plain))
    assert [cached(3), cached(3)] == [5, 5]
    assert len(results.durations("plain")) == 2
    assert cached.__wrapped__.cache_info().hits == 1


def test_a_lambda_with_a_name(results: Results) -> None:
    assert stage("double")(lambda x: 2 * x)(2) == 4
    assert len(results.durations("double")) == 1


def test_nested_functions_and_recursion(clock: Clock, results: Results) -> None:
    @stage
    def outer(depth: int) -> int:
        @stage
        def inner() -> int:
            clock.advance(1)
            return depth

        return inner() + (outer(depth - 1) if depth else 0)

    assert outer(3) == 6
    assert results.durations("inner") == [1, 1, 1, 1]
    assert sorted(results.durations("outer")) == [1, 2, 3, 4]


def test_a_function_decorated_twice_is_two_stages(clock: Clock, results: Results) -> None:
    @stage("outside")
    @stage("inside")
    def function() -> None:
        clock.advance(1)

    function()
    assert (results.durations("inside"), results.durations("outside")) == ([1], [1])


def test_one_stage_decorates_many(results: Results) -> None:
    measured = stage("many")
    functions = [measured(plain), measured(lambda a: a)]
    assert [functions[0](1), functions[1](1)] == [3, 1]
    assert len(results.durations("many")) == 2


def test_a_return_value_is_the_same_object() -> None:
    given = object()
    assert given is stage(lambda x: x)(given)


@functions
def test_durations(function: Any, clock: Clock, results: Results) -> None:
    @functools.wraps(function)
    def later(seconds: float) -> Any:
        clock.advance(seconds)
        return 0

    measured = stage("timed")(later)
    for seconds in (1, 0, 2.5):
        measured(seconds)
    assert results.durations("timed") == [0, 1, 2.5]


def test_a_coroutine_is_timed_until_it_is_done(clock: Clock, results: Results) -> None:
    @stage
    async def slow(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)
        clock.advance(seconds)

    async def main() -> None:
        coroutine = slow(3)
        clock.advance(100)  # nothing has awaited it yet
        await coroutine

    asyncio.run(main())
    assert results.durations("slow") == [6]


def test_a_coroutine_that_is_never_awaited_is_not_counted(results: Results) -> None:
    stage(coroutine)(1).close()
    assert results.durations("coroutine") == []


def test_a_traceback_shows_the_function_and_one_line_of_ours() -> None:
    @stage
    def broken() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError) as caught:
        broken()
    names = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
    assert names == [
        "test_a_traceback_shows_the_function_and_one_line_of_ours",
        "wrapper",
        "broken",
    ]
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_current_stage_is_the_innermost(results: Results) -> None:
    @stage
    def inner() -> Any:
        return current_stage()

    @stage
    def outer() -> tuple[Any, Any, Any]:
        return current_stage(), inner(), current_stage()

    before, inside, after = outer()
    assert before is after
    assert inside is not before
    current_stage().add_items(5)  # outside a stage it is ignored
    assert results.of("outer") == []


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (lambda: stage(123), TypeError, "name must be a string, not int"),
        (lambda: stage(b"name"), TypeError, "name must be a string, not bytes"),
        (lambda: stage(""), ValueError, "name must not be empty"),
        (lambda: stage("  "), ValueError, "name must not be empty"),
        (lambda: stage("x" * (MAX_NAME_LENGTH + 1)), ValueError, "name must be at most 128"),
        (lambda: stage("s", kind=5), TypeError, "kind must be a string, not int"),
        (lambda: stage("s", kind=""), ValueError, "kind must not be empty"),
        (lambda: stage("s", items=3), TypeError, "items must be callable or None, not int"),
        (lambda: stage("s", attributes=[1]), TypeError, "attributes must be a mapping, not list"),
        (lambda: stage("s", attributes={"a": object()}), TypeError, r"attributes\['a'\] must be"),
        (lambda: stage("s", attributes={"a": [{}]}), TypeError, r"attributes\['a'\] must be"),
        (lambda: stage("s", attributes={1: "a"}), TypeError, "attributes: keys must be strings"),
        (lambda: stage("s", attributes={"": "a"}), ValueError, "attributes: a key must not be"),
        (lambda: stage("s", retries=3), TypeError, "retries"),
        (lambda: fetch("s", kind="write"), TypeError, r"fetch\(\) .*kind"),
        (lambda: fetch(123), TypeError, "name must be a string, not int"),
        (lambda: stage("s", "process"), TypeError, "positional"),
        (lambda: stage(Plain), TypeError, "decorates a function or a method, not <class"),
        (lambda: stage("s")(Plain), TypeError, "decorates a function or a method, not <class"),
        (lambda: stage("s")("t"), TypeError, "decorates a function or a method, not 't'"),
        (lambda: stage("s")(None), TypeError, "decorates a function or a method, not None"),
        (lambda: stage("s")(property(plain)), TypeError, "decorates a function or a method"),
        (lambda: stage(property(plain)), TypeError, "decorates a function or a method, not <prop"),
        (lambda: stage().__enter__(), TypeError, "name is missing"),
        (lambda: stage("s", items=len).__enter__(), TypeError, "items is for decorators"),
    ],
)
def test_bad_input_is_named_in_the_error(bad: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        bad()


def test_the_longest_name_is_accepted(results: Results) -> None:
    name = "x" * MAX_NAME_LENGTH
    with stage(name):
        pass
    assert len(results.durations(name)) == 1


@pytest.mark.parametrize("value", ["s", True, 1, 1.5, ["a", "b"], (1, 2), [], [True]])
def test_attribute_values_that_opentelemetry_takes(value: Any, results: Results) -> None:
    stage("s", attributes={"code": value})(plain)(1)
    results.durations("s")
    assert {"code": value} == results.batches[-1].attributes


def test_attributes_are_copied_when_given(results: Results) -> None:
    attributes = {"a": 1}
    measured = stage("copied", attributes=attributes)(plain)
    attributes["a"] = 2
    measured(1)
    results.durations("copied")
    assert results.batches[-1].attributes == {"a": 1}


def test_these_tests_use_the_public_names() -> None:
    assert {"stage", "fetch", "process", "write", "current_stage", "Stage"} <= set(opm.__all__)


DOCUMENTED = """
import functools, types
from otel_pipeline_metrics import stage

def measured(function):
    return stage(function) if MEASURED else function

@measured
def plain(n):
    '''
    >>> plain(1)
    1
    '''
    return n

@measured
@functools.lru_cache
def cached(n):
    '''
    >>> cached(2)
    2
    '''
    return n

@measured
def steps(n):
    '''
    >>> list(steps(3))
    [3]
    '''
    yield n

@measured
async def waits(n):
    '''
    >>> waits(4).close()
    '''

class Some:
    @measured
    def method(self):
        '''
        >>> Some().method()
        '''

    @classmethod
    @measured
    def of_class(cls):
        '''
        >>> Some.of_class()
        '''
"""


def test_doctest_sees_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds the same examples, and they pass."""
    found = []
    for measured in (False, True):
        module = types.ModuleType("documented")
        monkeypatch.setitem(sys.modules, "documented", module)
        vars(module)["MEASURED"] = measured
        exec(DOCUMENTED, vars(module))  # noqa: S102 - the point
        tests = doctest.DocTestFinder().find(module)
        runner = doctest.DocTestRunner()
        assert [runner.run(test).failed for test in tests if test.examples] == [0] * 6
        found.append([(test.name, len(test.examples)) for test in tests])
    assert found[0] == found[1]
