"""Test generators: only the time inside counts, and the consumer sees no difference."""

from __future__ import annotations

import contextlib
import gc
import inspect
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from otel_pipeline_metrics import current_stage, stage
from otel_pipeline_metrics._core import drain, series
from otel_pipeline_metrics._stages import execution
from tests import strategies
from tests.stages.support import in_flight, nothing_current, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel
    from tests.strategies import Operation, Step


def test_only_time_inside_counts(clock: Clock, results: Results) -> None:
    @stage("numbers")
    def numbers() -> Iterator[int]:
        clock.advance(1)
        yield 1
        clock.advance(2)
        yield 2
        clock.advance(4)

    for _ in numbers():
        clock.advance(100)

    (result,) = results.of("numbers")
    assert (result.busy_s, result.idle_s, result.blocked_s, result.outcome) == (7, 0, 0, "ok")


def test_yielded_values_are_the_items_out(clock: Clock, results: Results) -> None:
    @stage("numbers")
    def numbers() -> Iterator[int]:
        yield from range(5)

    assert list(numbers()) == [0, 1, 2, 3, 4]
    (result,) = results.of("numbers")
    assert (result.items_in, result.items_out) == (None, 5)


def test_items_counts_each_yielded_value(results: Results) -> None:
    @stage("batches", items=len)
    def batches() -> Iterator[str]:
        yield "abc"
        yield "de"

    assert list(batches()) == ["abc", "de"]
    assert [r.items_out for r in results.of("batches")] == [5]


def test_a_generator_is_counted_from_its_first_value_on(results: Results) -> None:
    @stage("lazy")
    def lazy() -> Iterator[int]:
        yield 1

    unstarted = lazy()
    assert in_flight("lazy") == 0
    unstarted.close()
    assert results.durations("lazy") == []


def test_a_generator_is_in_flight_until_it_ends(results: Results) -> None:
    @stage("open")
    def numbers() -> Iterator[int]:
        yield 1

    first, second = numbers(), numbers()
    next(first)
    next(second)
    assert in_flight("open") == 2
    first.close()
    assert in_flight("open") == 1
    assert list(second) == []
    assert in_flight("open") == 0


def test_send_throw_and_return_value_pass_through(results: Results) -> None:
    @stage("echo")
    def echo() -> Generator[Any, Any, str]:
        heard = yield "ready"
        try:
            yield heard
        except KeyError as error:
            yield error
        return "bye"

    error = KeyError("k")
    generator = echo()
    assert next(generator) == "ready"
    assert generator.send("hello") == "hello"
    assert error is generator.throw(error)
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == "bye"
    assert outcomes(results, "echo") == ["ok"]


def test_the_value_of_yield_from_is_kept(results: Results) -> None:
    @stage("inner")
    def inner() -> Generator[int, None, str]:
        yield 1
        return "value"

    def outer() -> Generator[int, None, None]:
        got.append((yield from inner()))

    got: list[str] = []
    assert list(outer()) == [1]
    assert got == ["value"]


def test_breaking_out_is_abandoned(clock: Clock, results: Results) -> None:
    @stage("many")
    def many() -> Iterator[int]:
        try:
            while True:
                clock.advance(1)
                yield 1
        finally:
            clock.advance(0.5)

    generator = many()
    for _ in generator:
        break
    generator.close()
    (result,) = results.of("many")
    assert (
        result.busy_s,
        result.outcome,
        result.error_type,
        result.items_out,
    ) == (1.5, "abandoned", None, 1)


def test_dropping_the_last_reference_is_abandoned(results: Results) -> None:
    @stage("dropped")
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    for _ in numbers():
        break
    gc.collect()
    assert outcomes(results, "dropped") == ["abandoned"]
    assert nothing_current()


def test_a_generator_that_returns_when_closed_is_abandoned(results: Results) -> None:
    @stage("polite")
    def polite() -> Generator[int, None, str]:
        try:
            yield 1
        except GeneratorExit:
            return "early"
        return "late"

    generator = polite()
    next(generator)
    generator.close()
    assert outcomes(results, "polite") == ["abandoned"]


def test_an_error_inside_reaches_the_consumer(clock: Clock, results: Results) -> None:
    error = KeyError("k")

    @stage("broken")
    def broken() -> Iterator[int]:
        yield 1
        clock.advance(3)
        raise error

    generator = broken()
    next(generator)
    with pytest.raises(KeyError) as caught:
        next(generator)
    assert error is caught.value
    (result,) = results.of("broken")
    assert (result.busy_s, result.outcome, result.error_type) == (3, "error", "KeyError")


def test_an_error_while_closing_is_an_error(results: Results) -> None:
    @stage("untidy")
    def untidy() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("disk")

    generator = untidy()
    next(generator)
    with pytest.raises(OSError, match="disk"):
        generator.close()
    (result,) = results.of("untidy")
    assert (result.outcome, result.error_type) == ("error", "OSError")


def test_nothing_is_current_between_yields(otel: Otel) -> None:
    seen: list[Any] = []

    @stage("inside")
    def numbers() -> Iterator[int]:
        for n in range(3):
            seen.append(current_stage())
            yield n

    for _ in numbers():
        assert nothing_current()
    assert nothing_current()
    assert len(set(map(id, seen))) == 1
    assert execution.NOOP_EXECUTION is not seen[0]
    assert otel.span("inside").attributes["pipeline.stage.items.out"] == 3


def test_spans_of_the_consumer_are_no_children_of_the_generator(otel: Otel) -> None:
    @stage("source")
    def source() -> Iterator[int]:
        with stage("inner"):
            pass
        yield 1

    for _ in source():
        with stage("consumer"):
            pass

    assert otel.span("consumer").parent is None
    assert otel.span("inner").parent.span_id == otel.span("source").context.span_id


def test_two_generators_in_turns_are_kept_apart(otel: Otel, clock: Clock) -> None:
    @stage("turns")
    def numbers(seconds: float) -> Iterator[Any]:
        for _ in range(2):
            clock.advance(seconds)
            current_stage().add_bytes(int(seconds))
            yield

    for _ in zip(numbers(1), numbers(10), strict=True):
        assert nothing_current()
    written = [s.attributes["pipeline.stage.io.out"] for s in otel.spans()]
    assert sorted(written) == [2, 20]
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum) == (2, 22)


def test_a_pipelined_generator_does_not_count_its_consumers_time(
    clock: Clock, results: Results
) -> None:
    """A stage that takes values from another one is busy meanwhile, and so is the other one."""

    @stage("upstream")
    def upstream() -> Iterator[int]:
        for n in range(3):
            clock.advance(1)
            yield n

    @stage("downstream")
    def downstream(source: Iterator[int]) -> Iterator[int]:
        for n in source:
            clock.advance(10)
            yield n

    for _ in downstream(upstream()):
        clock.advance(1000)
    assert results.durations("upstream") == [3]
    assert results.durations("downstream") == [33]


def test_a_decorated_generator_makes_a_context_manager(results: Results, clock: Clock) -> None:
    @contextlib.contextmanager
    @stage("resource")
    def resource() -> Iterator[str]:
        clock.advance(1)
        try:
            yield "it"
        finally:
            clock.advance(1)

    error = KeyError("k")

    def use() -> None:
        with resource() as it:
            clock.advance(100)
            assert it == "it"
            raise error

    with pytest.raises(KeyError) as caught:
        use()
    assert error is caught.value
    assert results.durations("resource") == [2]
    assert outcomes(results, "resource") == ["error"]


def test_no_exception_is_kept_alive() -> None:
    """A thrown exception is freed, with its frames, without the garbage collector."""

    @stage("thrown")
    def source() -> Iterator[int]:
        yield 1

    class OwnError(Exception):
        pass

    def throw() -> weakref.ref[OwnError]:
        generator = source()
        next(generator)
        error = OwnError()
        alive = weakref.ref(error)
        with contextlib.suppress(OwnError):
            generator.throw(error)
        del error  # its traceback holds this frame
        return alive

    gc.disable()
    try:
        assert throw()() is None
    finally:
        gc.enable()


class Batch(list[int]):
    """A list that allows weak references."""


def test_a_value_is_kept_no_longer_than_by_the_consumer() -> None:
    """Otherwise two large batches would be in memory at once."""

    @stage("batches")
    def batches(_: Batch) -> Iterator[Batch]:
        yield Batch([1])
        yield Batch([2])

    argument = Batch()
    generator = batches(argument)
    batch = next(generator)
    alive = weakref.ref(batch)
    assert alive() is batch
    del batch
    assert alive() is None


def _observe(generator: Generator[Any, Any, Any], operation: Operation) -> tuple[Any, ...]:
    thrown = None
    try:
        if operation.name == "next":
            seen: tuple[Any, ...] = ("yielded", next(generator))
        elif operation.name == "send":
            seen = ("yielded", generator.send(operation.argument))
        elif operation.name == "throw":
            thrown = operation.argument("thrown")
            seen = ("yielded", generator.throw(thrown))
        else:
            seen = ("closed", generator.close())
    except StopIteration as stop:
        seen = ("returned", stop.value, stop is thrown)
    except BaseException as error:  # both must do the same
        seen = (
            *("raised", type(error), error.args, error is thrown),
            *(type(error.__cause__), type(error.__context__), error.__suppress_context__),
        )
    return (*seen, inspect.getgeneratorstate(generator))


def _use_up(generator: Generator[Any, Any, Any]) -> None:
    while inspect.getgeneratorstate(generator) != inspect.GEN_CLOSED:
        with contextlib.suppress(StopIteration, strategies.OwnError, RuntimeError):
            next(generator)


@settings(max_examples=400)
@given(strategies.scripts, strategies.endings, strategies.operations)
def test_it_behaves_like_the_undecorated_generator(
    script: list[Step], ending: str, operations: list[Operation]
) -> None:
    function: Callable[[], Generator[Any, Any, Any]] = strategies.scripted(script, ending)
    plain, measured = function(), stage("alike")(function)()
    for operation in operations:
        assert _observe(plain, operation) == _observe(measured, operation)
    for generator in (plain, measured):
        _use_up(generator)
    drain.drain()
    assert in_flight("alike") == 0
    assert nothing_current()


def test_a_generator_that_goes_on_keeps_a_bounded_number_of_samples(clock: Clock) -> None:
    """Every item of a slow generator is a sample, whether or not a reader is attached."""

    @stage("slow")
    def slow() -> Iterator[int]:
        while True:
            clock.advance(1)
            yield 1

    @stage("consumer")
    def consumer() -> None:
        for _ in range(series.PENDING_BOUND):
            next(source)

    source = slow()
    for _ in range(2):
        for _ in range(series.PENDING_BOUND):
            next(source)
        consumer()
    kept = [len(each.samples) for each in series.all_series() if each.key.stage == "slow"]
    assert len(kept) == 2
    assert max(kept) < series.PENDING_BOUND
    whole = [each.account.ended + each.account.partial for each in series.all_series()
             if each.key.stage == "slow"]  # fmt: skip
    assert sum(whole) >= 3 * series.PENDING_BOUND
    source.close()
