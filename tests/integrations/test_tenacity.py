"""Test that tenacity's retries are counted, and that its back-off is a wait."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

tenacity = pytest.importorskip("tenacity")

from otel_pipeline_metrics.integrations.tenacity import instrument_retrying  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


def options(clock: Clock, **more: Any) -> dict[str, Any]:
    """Three attempts with a back-off of two seconds of the clock that tests move."""
    return {
        "sleep": clock.advance,
        "wait": tenacity.wait_fixed(2),
        "stop": tenacity.stop_after_attempt(3),
        "reraise": True,
        **more,
    }


def flaky(clock: Clock) -> Callable[[], str]:
    outcomes = iter([ConnectionError(), TimeoutError(), "ok"] * 2)

    def call() -> str:
        clock.advance(1.0)
        found = next(outcomes)
        if isinstance(found, Exception):
            raise found
        return str(found)

    return call


def row(run: opm.Run) -> dict[str, Any]:
    (found,) = run.report.stages
    return found


def check(run: opm.Run) -> None:
    found = row(run)
    assert (found["count"], found["retries"], found["errors"]["total"]) == (2, 4, 0)
    assert found["time_s"]["busy"] == pytest.approx(6.0)
    assert found["time_s"]["blocked"] == pytest.approx(8.0)
    (limit,) = run.report.to_dict()["limits"]
    assert (limit["name"], limit["kind"]) == ("retry", "retry")
    assert limit["stages"] == [{"stage": "x", "waited_s": 8.0, "held_s": 0.0}]


def test_a_decorated_function_below_a_stage(clock: Clock) -> None:
    function = opm.fetch("x")(tenacity.retry(**options(clock))(flaky(clock)))
    assert instrument_retrying(function) is function
    instrument_retrying(function)  # changes nothing
    with opm.run("r", resources=False) as run:
        assert [function(), function()] == ["ok", "ok"]
    check(run)


def test_a_loop_inside_of_a_stage(clock: Clock) -> None:
    call = flaky(clock)

    @opm.fetch("x")
    def function() -> Any:
        for attempt in instrument_retrying(tenacity.Retrying(**options(clock))):
            with attempt:
                return call()
        return None

    with opm.run("r", resources=False) as run:
        assert [function(), function()] == ["ok", "ok"]
    check(run)


def test_a_coroutine_function(clock: Clock) -> None:
    call = flaky(clock)
    seen = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        clock.advance(seconds)

    async def note(state: Any) -> None:
        seen.append(state.attempt_number)

    @opm.fetch("x")
    @tenacity.retry(**options(clock, sleep=sleep, before_sleep=note))
    async def function() -> str:
        return call()

    async def main() -> None:
        assert [await function(), await function()] == ["ok", "ok"]

    instrument_retrying(function)
    with opm.run("r", resources=False) as run:
        asyncio.run(main())
    check(run)
    assert seen == [1, 2, 1, 2]


def test_outside_of_a_stage_it_is_one_call_with_attempts(clock: Clock) -> None:
    with_items = opm.fetch("x", items=len, attributes={"shard": 1})
    function = instrument_retrying(tenacity.retry(**options(clock))(with_items(flaky(clock))))
    assert instrument_retrying(function) is function
    with opm.run("r", resources=False) as run:
        assert [function(), function()] == ["ok", "ok"]
    check(run)
    assert (row(run)["kind"], row(run)["items"]["out"]) == ("fetch", 4)


def test_outside_of_a_stage_and_with_other_options(clock: Clock) -> None:
    function = tenacity.retry(**options(clock))(opm.fetch("x")(flaky(clock)))
    fewer = instrument_retrying(function).retry_with(stop=tenacity.stop_after_attempt(2))
    with opm.run("r", resources=False) as run, pytest.raises(TimeoutError):
        fewer()
    assert (row(run)["count"], row(run)["retries"]) == (1, 1)
    assert row(run)["errors"]["by_type"] == {"TimeoutError": 1}


def test_outside_of_a_coroutine_function_and_of_a_method(clock: Clock) -> None:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    class Source:
        def __init__(self) -> None:
            self.call = flaky(clock)

        @instrument_retrying
        @tenacity.retry(**options(clock, sleep=sleep))
        @opm.fetch("x")
        async def download(self) -> str:
            return self.call()

    async def main() -> None:
        source = Source()
        assert [await source.download(), await source.download()] == ["ok", "ok"]

    with opm.run("r", resources=False) as run:
        asyncio.run(main())
    check(run)


def test_with_a_decorator_in_between_each_attempt_is_a_call(clock: Clock) -> None:
    call = opm.fetch("x")(flaky(clock))

    @instrument_retrying
    @tenacity.retry(**options(clock))
    @functools.wraps(call)
    def function() -> str:
        return call()

    with opm.run("r", resources=False) as run:
        assert function() == "ok"
    assert (row(run)["count"], row(run)["retries"], row(run)["errors"]["total"]) == (3, 0, 2)


def test_the_last_failure_is_an_error(clock: Clock) -> None:
    @opm.fetch("x")
    @tenacity.retry(**options(clock))
    def function() -> None:
        raise KeyError

    instrument_retrying(function)
    with opm.run("r", resources=False) as run, pytest.raises(KeyError):
        function()
    assert (row(run)["retries"], row(run)["errors"]["by_type"]) == (2, {"KeyError": 1})


def test_a_result_that_is_not_wanted_is_a_retry_without_an_error(clock: Clock) -> None:
    found = iter([None, 5])
    more = {"retry": tenacity.retry_if_result(lambda value: value is None)}
    function = opm.fetch("x")(tenacity.retry(**options(clock, **more))(lambda: next(found)))
    instrument_retrying(function)
    with opm.run("r", resources=False) as run:
        assert function() == 5
    assert (row(run)["retries"], row(run)["errors"]["total"]) == (1, 0)


@pytest.mark.parametrize("wrong", [None, 5, print, opm.fetch("x")(lambda: None)])
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="retrying"):
        instrument_retrying(wrong)
