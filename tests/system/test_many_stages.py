"""Test that what ends a run or a program takes time in proportion to its stages."""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

import otel_pipeline_metrics as opm
from tests.support.operations import growth, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINEAR = 4.6
"""Four times the stages take four times the steps; sorting takes a little more."""

DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


@pytest.fixture
def runs() -> Iterator[contextlib.ExitStack]:
    """Runs that are open until the test ends, so that only a flush reports their calls."""
    with contextlib.ExitStack() as opened:
        yield opened
    opm.shutdown()


def stages(count: int) -> list[Callable[[], object]]:
    def work() -> list[int]:
        return [1]

    return [opm.stage(f"many {number}", items=len)(work) for number in range(count)]


def one_queue_for_all(made: list[Callable[[], object]]) -> None:
    """Call each stage with an item of one queue, and put its result into that queue."""
    items: queue.Queue[int] = opm.wrap_queue(queue.Queue(), name="all")
    items.put(1)
    for stage in made:
        items.get()
        stage()
        items.put(1)


def a_queue_between_neighbours(made: list[Callable[[], object]]) -> None:
    queues: list[queue.Queue[int]] = [
        opm.wrap_queue(queue.Queue(), name=f"many {number}") for number in range(len(made) + 1)
    ]
    queues[0].put(1)
    for stage, before, after in zip(made, queues[:-1], queues[1:], strict=True):
        before.get()
        stage()
        after.put(1)


def no_queue(made: list[Callable[[], object]]) -> None:
    for stage in made:
        stage()


SHAPES = [no_queue, one_queue_for_all, a_queue_between_neighbours]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_end_of_a_run_is_linear(shape: Callable[[Any], None]) -> None:
    """Its last flush, report, verdict and summary."""

    def ending(count: int) -> Callable[[], object]:
        run = opm.run("many", resources=False)
        run.__enter__()
        shape(stages(count))
        return lambda: run.__exit__(None, None, None)

    assert 2 < growth(ending) < LINEAR


@pytest.mark.parametrize("written", ["console", "markdown", "html"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rendering_is_linear(shape: Callable[[Any], None], written: Any) -> None:
    def rendering(count: int) -> Callable[[], object]:
        with opm.run("many", resources=False) as run:
            shape(stages(count))
        return lambda: run.report.render(written)

    assert 2 < growth(rendering) < LINEAR


@pytest.mark.parametrize("temporality", [None, DELTA])
def test_the_last_flush_is_linear(temporality: Any, runs: contextlib.ExitStack) -> None:
    """With values of every stage that came before the first collection, and after it."""

    def flush(count: int, *, collected: bool) -> Callable[[], object]:
        reader = InMemoryMetricReader(preferred_temporality=temporality)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        opm.configure(tracer_provider=NoOpTracerProvider(), meter_provider=provider)
        runs.enter_context(opm.run("many", resources=False))
        made = stages(count)
        no_queue(made)
        if collected:
            reader.collect()
            no_queue(made)
        return opm.shutdown

    flush(1, collected=True)()  # the SDK is checked once
    assert 2 < growth(lambda count: flush(count, collected=False), 100) < LINEAR
    assert 2 < growth(lambda count: flush(count, collected=True), 100) < LINEAR


def test_a_second_configuration_of_one_provider_is_linear(runs: contextlib.ExitStack) -> None:
    """Its values go to aggregations that exist already, in whatever order they come."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def flush(count: int) -> Callable[[], object]:
        for _ in range(2):
            opm.configure(tracer_provider=NoOpTracerProvider(), meter_provider=provider)
            runs.enter_context(opm.run("many", resources=False))
            no_queue(stages(count))
        return opm.shutdown

    assert 2 < growth(flush, 100) < LINEAR


def test_the_count_of_steps_tells_linear_from_quadratic() -> None:
    """In the package's code; other code is not counted."""
    from otel_pipeline_metrics._core.lookup import number

    def squared(count: int) -> Callable[[], object]:
        return lambda: [number({"a": 1}, "a") for _ in range(count * count)]

    # Python 3.13 counts a few instructions around the work as well
    assert growth(squared, 5) == pytest.approx(16, rel=0.1)
    assert steps_of(lambda: sum(range(1000))) == 0
