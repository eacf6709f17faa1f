"""Test that several threads may report details of one call at the same time."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import current_stage, stage
from otel_pipeline_metrics._core import series
from otel_pipeline_metrics._stages import execution as _execution
from otel_pipeline_metrics._stages.execution import Execution, execution_of, make_execution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Results

THREADS = 4
TIMES = 2000


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(report: Callable[[], None]) -> None:
    """Call `report` in several threads, each with a copy of this context."""
    ready = threading.Barrier(THREADS)

    def work() -> None:
        ready.wait(10)
        for _ in range(TIMES):
            report()

    contexts = [contextvars.copy_context() for _ in range(THREADS)]
    threads = [threading.Thread(target=each.run, args=(work,)) for each in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_every_item_byte_and_retry_counts(results: Results) -> None:
    def report() -> None:
        current_stage().add_items(1)
        current_stage().add_items(2, "in")
        current_stage().add_bytes(3)
        current_stage().retry("busy")

    @stage("load")
    def load() -> None:
        together(report)

    load()
    (result,) = results.of("load")
    total = THREADS * TIMES
    assert (result.items_out, result.items_in, result.bytes_out) == (total, 2 * total, 3 * total)
    assert result.retries == (("busy", total),)


def test_helpers_and_a_generators_own_items_add_up(results: Results) -> None:
    @stage("make")
    def make() -> Any:
        together(lambda: current_stage().add_items(1))
        yield from range(3)

    assert list(make()) == [0, 1, 2]
    (result,) = results.of("make")
    assert result.items_out == THREADS * TIMES + 3


def test_a_call_has_one_execution_whoever_makes_it(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two threads sees that there is none; here the second is in the first's way."""
    made: list[Execution] = []

    def slow(cell: Any) -> Execution:
        execution = make_execution(cell)
        if not made:
            made.append(execution)
            # what another thread does meanwhile, from its first step to its last
            made.append(execution_of(cell))
        return execution

    monkeypatch.setattr(_execution, "make_execution", slow)

    @stage("shared")
    def shared() -> None:
        cell = series.active_cell.get()
        assert cell is not None
        first = execution_of(cell)
        assert first is made[1] is cell[3]

    shared()
    assert len(made) == 2


def test_details_are_made_once(monkeypatch: pytest.MonkeyPatch, results: Results) -> None:
    """As before, for what a call reports."""
    kept: list[Any] = []

    class Slow(_execution.Details):
        def __init__(self) -> None:
            super().__init__()
            if not kept:
                kept.append(None)
                kept[0] = current_stage().ensure_details()

    monkeypatch.setattr(_execution, "Details", Slow)
    with stage("shared") as s:
        assert s.ensure_details() is kept[0]
