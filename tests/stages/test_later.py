"""Test plain functions whose result comes later: futures, tasks and coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import inspect
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import current_stage, run, stage
from tests.stages.support import in_flight, nothing_current

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


class Own(concurrent.futures.Future):  # type: ignore[type-arg]
    """As the pools of other packages have them."""


FUTURES = [concurrent.futures.Future, Own]


@pytest.mark.parametrize("kind", FUTURES)
@pytest.mark.parametrize("ends", ["result", "error", "cancelled"])
def test_a_future_is_measured_until_it_is_done(
    kind: Any, ends: str, clock: Clock, results: Results
) -> None:
    future = kind()

    @stage("submits", items=len)
    def submits() -> Any:
        clock.advance(1)
        return future

    assert submits() is future
    assert nothing_current()
    clock.advance(5)
    assert in_flight("submits") == 1
    if ends == "cancelled":
        future.cancel()
    elif ends == "error":
        future.set_exception(KeyError("k"))
    else:
        future.set_result([1, 2, 3])
    assert in_flight("submits") == 0
    (found,) = results.of("submits")
    outcomes = {"result": ("ok", None, 3), "error": ("error", "KeyError", None)}
    expected = outcomes.get(ends, ("cancelled", None, None))
    assert (found.outcome, found.error_type, found.items_out) == expected
    assert found.busy_s == 6


def test_a_future_that_is_done_already(clock: Clock, results: Results) -> None:
    future: Any = concurrent.futures.Future()
    future.set_exception(KeyError("k"))

    @stage("submits")
    def submits() -> Any:
        clock.advance(1)
        return future

    for _ in range(2):
        assert submits() is future
    assert [(r.outcome, r.busy_s) for r in results.of("submits")] == [("error", 1)] * 2


def test_a_pool(results: Results) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        submits = stage("submits")(lambda n: pool.submit(abs, n))
        assert [future.result() for future in map(submits, range(-20, 0))] == list(range(20, 0, -1))
    assert len(results.durations("submits")) == 20
    assert in_flight("submits") == 0


def test_a_task_and_its_span(clock: Clock, otel: Otel) -> None:
    @stage
    def starts(fails: bool) -> Any:
        current_stage().add_items(2, "in")
        return asyncio.get_running_loop().create_task(works(fails))

    async def works(fails: bool) -> int:
        await asyncio.sleep(0)
        clock.advance(3)
        if fails:
            raise KeyError("k")
        return 1

    async def main() -> None:
        started = starts(False), starts(True)
        assert all(isinstance(task, asyncio.Task) for task in started)
        assert nothing_current()
        await asyncio.wait(started)
        await asyncio.sleep(0)
        assert isinstance(started[1].exception(), KeyError)

    asyncio.run(main())
    found = otel.results.of("starts")
    assert [(r.outcome, r.items_in) for r in found] == [("ok", 2), ("error", 2)]
    spans = [span for span in otel.spans() if span.name == "starts"]
    assert [span.status.is_ok for span in spans] == [True, False]


def test_an_exception_that_nobody_retrieves_is_still_said() -> None:
    """As without the stage: asyncio logs it once the task is gone."""
    said: list[str] = []

    async def main(starts: Callable[[], Any]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, c: said.append(c["message"]))
        starts()
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()

    async def fails() -> None:
        raise KeyError("k")

    def starts() -> Any:
        return asyncio.ensure_future(fails())

    def future() -> Any:
        made = asyncio.get_running_loop().create_future()
        made.set_exception(KeyError("k"))
        return made

    for function in (starts, future):
        for measured in (function, stage("starts")(function)):
            asyncio.run(main(measured))
    assert said[0] == said[1] == "Task exception was never retrieved"
    assert said[2] == said[3] == "Future exception was never retrieved"
    assert len(said) == 4


def test_a_future_that_outlives_its_run(clock: Clock, results: Results) -> None:
    future: Any = concurrent.futures.Future()
    with run("r", resources=False) as within:
        assert stage("submits")(lambda: future)() is future
        clock.advance(2)
    (found,) = within.report.stages
    assert (found["count"], found["in_flight"]) == (0, 1)
    future.set_result(1)
    assert in_flight("submits") == 0


def test_a_callback_of_the_program_that_fails(results: Results) -> None:
    """`items=` sees the result in the thread that sets it, and its error stays there."""
    future: Any = concurrent.futures.Future()
    stage("submits", items=lambda _: 1 // 0)(lambda: future)()
    thread = threading.Thread(target=future.set_result, args=(1,))
    thread.start()
    thread.join()
    assert future.result() == 1
    assert len(results.durations("submits")) == 1


async def loads(n: int) -> int:
    await asyncio.sleep(0)
    if n < 0:
        raise KeyError(n)
    return n


def test_a_coroutine_of_a_plain_function(clock: Clock, results: Results) -> None:
    @stage("loads", items=lambda n: n)
    def made(n: int) -> Any:
        clock.advance(1)
        return slowly(n)

    async def slowly(n: int) -> int:
        assert current_stage().scope is not None
        current_stage().add_items(1, "in")
        clock.advance(2)
        return await loads(n)

    async def main() -> None:
        awaited = made(3)
        assert inspect.iscoroutine(awaited)
        assert awaited.__qualname__ == slowly.__qualname__
        assert nothing_current()
        clock.advance(100)
        assert await awaited == 3
        assert await asyncio.create_task(made(4)) == 4
        with pytest.raises(KeyError):
            await made(-1)
        assert nothing_current()

    asyncio.run(main())
    found = results.of("loads")
    assert [(r.outcome, r.items_in, r.items_out, r.busy_s) for r in found] == [
        ("ok", 1, 3, 3), ("ok", 1, 4, 3), ("error", 1, None, 3),
    ]  # fmt: skip
    assert in_flight("loads") == 0


def plainly(function: Any) -> Any:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


def warned(function: Any, closed: bool) -> list[str]:
    """Return the warnings about a coroutine that nobody awaits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = function(1)
        if closed:
            made.close()
        del made
        gc.collect()
    return [str(each.message) for each in caught]


def test_decorators_that_hide_a_coroutine_function(results: Results) -> None:
    """As of retries and caches that are written for both kinds."""
    for number, function in enumerate((plainly(loads), functools.lru_cache(loads))):
        assert asyncio.run(stage(f"number {number}")(function)(3)) == 3
        assert len(results.durations(f"number {number}")) == 1


@pytest.mark.parametrize("closed", [False, True])
def test_a_coroutine_that_nobody_awaits(closed: bool, results: Results) -> None:
    """It warns as without the stage, once."""
    said = [warned(each, closed) for each in (loads, stage("loads")(plainly(loads)))]
    assert said == [[] if closed else ["coroutine 'loads' was never awaited"]] * 2
    assert [r.outcome for r in results.of("loads")] == ["abandoned"]
    assert in_flight("loads") == 0


def test_cancellation_reaches_the_coroutine(results: Results) -> None:
    seen = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(stage("waits")(plainly(waits))())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cancelled"]
    assert [r.outcome for r in results.of("waits")] == ["cancelled"]


def test_anything_else_is_returned_as_it_is(results: Results) -> None:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            raise ZeroDivisionError

        def __eq__(cls, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

    class Odd(metaclass=Meta):
        @property
        def __class__(self) -> Any:
            raise ZeroDivisionError

    class Awaitable:
        def __await__(self) -> Any:
            yield

    def steps() -> Any:
        yield 1

    given = [Odd(), Awaitable(), steps(), 1, None, "a", [1], Odd, type("New", (), {})(), Odd()]
    told = stage("told")(lambda value: value)
    for value in given * 3:
        assert told(value) is value
    assert len(results.durations("told")) == 30


def test_the_types_that_a_stage_remembers_are_bounded(results: Results) -> None:
    told = stage("many types")(lambda value: value)
    for _ in range(1000):
        told(type("New", (), {})())
    assert len(results.durations("many types")) == 1000
    gc.collect()
    # by the type itself: `isinstance` may run code of other libraries' objects
    types = [each for each in gc.get_objects() if type(each) is type]
    kept = [each for each in types if each.__name__ == "New"]
    assert len(kept) < 400


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new")
def test_what_is_only_marked_as_a_coroutine_function(results: Results) -> None:
    seen = []

    @stage("marked")
    @inspect.markcoroutinefunction
    def marked(n: int) -> Any:
        seen.append(n)
        return loads(n)

    assert inspect.iscoroutinefunction(marked)
    awaited = marked(3)
    assert seen == [3]
    assert asyncio.run(awaited) == 3
    assert len(results.durations("marked")) == 1
