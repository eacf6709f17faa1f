"""Test `with` and `async with`: one Stage object, open many times at once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import Execution, current_stage, fetch, stage
from otel_pipeline_metrics._core import drain, errors, series
from otel_pipeline_metrics._stages import invocation
from tests.stages.support import in_flight, nothing_current, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


def test_with(clock: Clock, results: Results) -> None:
    with stage("block") as s:
        assert isinstance(s, Execution)
        assert current_stage() is s
        clock.advance(2)
    clock.advance(100)
    assert nothing_current()
    assert results.durations("block") == [2]


async def test_async_with(clock: Clock, results: Results) -> None:
    async with stage("block") as s:
        assert current_stage() is s
        await asyncio.sleep(0)
        clock.advance(2)
    assert nothing_current()
    assert results.durations("block") == [2]


def test_a_block_named_after_its_kind(results: Results) -> None:
    with stage(kind="fetch"):
        pass
    assert len(results.durations("fetch")) == 1
    assert results.batches[0].key == (None, "fetch", "fetch")


def test_attributes_belong_to_the_block(results: Results) -> None:
    for table in ("a", "b"):
        with stage("load", attributes={"table": table}):
            pass
    assert [r.attributes for r in results.of("load")] == [{"table": "a"}, {"table": "b"}]


def test_blocks_of_one_name_share_nothing_else(results: Results) -> None:
    """What is kept of a name that was checked is that of its kind, and has no attributes."""
    for _ in range(2):
        with stage("load"):
            pass
        with stage("load", kind="fetch"):
            pass
        with fetch("load"):
            pass
        with stage("load", attributes={"table": "a"}):
            pass
        assert stage("load")(lambda: 1)() == 1
        assert stage("load", items=len)(lambda: [1, 2])() == [1, 2]
        with pytest.raises(TypeError, match="items is for decorators"):
            stage("load", items=len).__enter__()
        with pytest.raises(TypeError, match="kind must be a string, not list"):
            stage("load", kind=[])  # type: ignore[call-overload]
    drain.drain()
    plain = [batch for batch in results.batches if batch.key == (None, "load", None)]
    assert sum(len(batch.durations) for batch in plain) == 6
    assert sum(sum(batch.sizes) for batch in plain) == 4
    assert [r.attributes for batch in plain for r in batch.results] == [{"table": "a"}] * 2
    fetched = [batch for batch in results.batches if batch.key == (None, "load", "fetch")]
    assert sum(len(batch.durations) for batch in fetched) == 4


async def test_blocks_in_a_task_find_their_series_at_the_first_look(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is a sample, and each looks for a flush at its end, so nothing else is ever due."""
    looked: list[object] = []
    find = series.cell_of_due

    def look(parent: Any, stage: Any) -> Any:
        looked.append(stage)
        return find(parent, stage)

    monkeypatch.setattr(series, "cell_of_due", look)
    for _ in range(100):
        async with stage("often"):
            pass
        with stage("often"):
            pass
    assert len(looked) == 1
    assert len(results.durations("often")) == 200
    assert {each.stage.form for each in series.all_series()} == {"task block"}


def test_a_block_of_a_coroutine_may_await_whatever_runs_it(results: Results) -> None:
    """A loop that is not known may run other coroutines meanwhile, so its time is of a task's."""

    async def alone() -> None:
        async with stage("unknown"):
            pass

    with pytest.raises(StopIteration):
        alone().send(None)
    assert len(results.durations("unknown")) == 1
    assert {each.stage.form for each in series.all_series()} == {"task block"}


def test_a_stage_entered_again_while_open(clock: Clock, results: Results) -> None:
    shared = stage("nested")
    with shared as outer:
        clock.advance(1)
        with shared as inner:
            clock.advance(2)
            inner.add_items(2)
        clock.advance(4)
        outer.add_items(1)
        assert current_stage() is outer
    assert {(r.busy_s, r.items_out) for r in results.of("nested")} == {(2, 2), (7, 1)}


async def test_a_stage_shared_by_50_tasks(clock: Clock, results: Results) -> None:
    """Each task keeps its own items and time, whichever ends first."""
    shared = stage("shared")
    everybody_in = asyncio.Event()
    leaving = [asyncio.Event() for _ in range(50)]
    entered = 0

    async def worker(n: int) -> None:
        nonlocal entered
        async with shared as s:
            s.add_items(n)
            entered += 1
            if entered == 50:
                everybody_in.set()
            await leaving[n].wait()
            assert current_stage() is s

    tasks = [asyncio.create_task(worker(n)) for n in range(50)]
    await everybody_in.wait()
    assert in_flight("shared") == 50
    order = [(n * 7) % 50 for n in range(50)]
    for n in order:
        clock.advance(1)
        leaving[n].set()
        await tasks[n]
    took = {r.items_out: r.busy_s for r in results.of("shared")}
    assert {n: place for place, n in enumerate(order, 1)} == took
    assert in_flight("shared") == 0


def test_a_stage_shared_by_threads(results: Results) -> None:
    shared = stage("threads")
    together = threading.Barrier(8)

    def worker(n: int) -> bool:
        for _ in range(100):
            with shared as s:
                s.add_items(n)
                if current_stage() is not s:
                    return False
            together.wait()
        return nothing_current()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(worker, range(8))) == [True] * 8
    assert dict.fromkeys(range(8), 100) == {
        n: [r.items_out for r in results.of("threads")].count(n) for n in range(8)
    }


def test_tasks_started_inside_belong_to_the_block_but_do_not_end_it(
    results: Results,
) -> None:
    async def child() -> None:
        current_stage().add_items(1)

    async def main() -> None:
        async with stage("parent"):
            await asyncio.gather(child(), child())

    asyncio.run(main())
    assert [r.items_out for r in results.of("parent")] == [2]


def test_a_task_that_outlives_the_block_reports_nothing(results: Results) -> None:
    async def child(closed: asyncio.Event) -> None:
        await closed.wait()
        current_stage().add_items(1)
        with stage("later"):
            pass

    async def main() -> None:
        closed = asyncio.Event()
        async with stage("parent") as s:
            task = asyncio.create_task(child(closed))
            await asyncio.sleep(0)
        s.add_items(5)
        closed.set()
        await task

    asyncio.run(main())
    assert len(results.durations("parent")) == 1
    assert len(results.durations("later")) == 1
    assert results.of("parent") == []


def test_a_block_closed_in_another_context(otel: Otel, silence: Any) -> None:
    """As test fixtures and some servers do: it is counted, and nothing is logged."""
    block = stage("elsewhere")
    entered_in = contextvars.copy_context()
    entered_in.run(block.__enter__)
    assert nothing_current()
    contextvars.copy_context().run(block.__exit__, None, None, None)
    assert len(otel.results.durations("elsewhere")) == 1
    assert nothing_current()
    assert in_flight("elsewhere") == 0
    otel.span("elsewhere")


def test_a_block_closed_in_another_context_while_others_are_open(otel: Otel, silence: Any) -> None:
    block = stage("elsewhere")
    contexts = [contextvars.copy_context() for _ in range(3)]
    for context in contexts:
        context.run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)
    for context in contexts[:2]:
        context.run(block.__exit__, None, None, None)
    assert len(otel.results.durations("elsewhere")) == 3
    assert in_flight("elsewhere") == 0


def test_an_extra_exit_closes_nothing_else(otel: Otel) -> None:
    block = stage("once")
    with stage("other") as other:
        with block:
            pass
        block.__exit__(None, None, None)
        assert current_stage() is other
    assert len(otel.results.durations("once")) == 1
    assert len(otel.results.durations("other")) == 1


def test_a_block_on_an_exit_stack(clock: Clock, results: Results) -> None:
    shared = stage("stacked")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(shared)
            clock.advance(1)
    assert sorted(results.durations("stacked")) == [1, 2, 3]


# --- what an execution takes --------------------------------------------------------------------


def test_items_and_bytes(results: Results) -> None:
    with stage("counts") as s:
        s.add_items(3)
        s.add_items(4)
        s.add_items(10, direction="in")
        s.add_bytes(100)
        s.add_bytes(1, direction="in")
        s.add_bytes(1, "in")
    (result,) = results.of("counts")
    assert (
        result.items_in,
        result.items_out,
        result.bytes_in,
        result.bytes_out,
    ) == (10, 7, 2, 100)


def test_an_unknown_count_is_none_and_zero_is_zero(results: Results) -> None:
    with stage("zero") as s:
        s.add_items(0)
    (result,) = results.of("zero")
    assert (
        result.items_in,
        result.items_out,
        result.bytes_in,
        result.bytes_out,
    ) == (None, 0, None, None)


class Numpyish:
    """An integer type of another library, such as numpy's."""

    def __index__(self) -> int:
        return 6


def test_integers_of_other_libraries(results: Results) -> None:
    with stage("numpy") as s:
        s.add_items(Numpyish())  # type: ignore[arg-type]
        s.add_bytes(Numpyish())  # type: ignore[arg-type]
    (result,) = results.of("numpy")
    assert (6, 6, int) == (result.items_out, result.bytes_out, type(result.items_out))


@pytest.mark.parametrize("method", ["add_items", "add_bytes"])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((-1,), ValueError, "n must not be negative, this one is -1"),
        ((1.5,), TypeError, "n must be an integer, not float"),
        (("3",), TypeError, "n must be an integer, not str"),
        ((None,), TypeError, "n must be an integer, not NoneType"),
        ((True,), TypeError, "n must be an integer, not bool"),
        ((1, "sideways"), ValueError, 'direction must be "in" or "out", not \'sideways\''),
        ((1, None), ValueError, 'direction must be "in" or "out", not None'),
        ((1, []), ValueError, 'direction must be "in" or "out"'),
    ],
)
def test_bad_counts_are_named(
    method: str,
    inside: bool,
    arguments: tuple[Any, ...],
    error: type[Exception],
    says: str,
    results: Results,
) -> None:
    block = stage("strict") if inside else contextlib.nullcontext()
    with block, pytest.raises(error, match=says):
        getattr(current_stage(), method)(*arguments)
    assert results.of("strict") == []


def test_retries(results: Results) -> None:
    with stage("tried") as s:
        s.retry()
        s.retry(KeyError("k"))
        s.retry(KeyError)
        s.retry("http.503")
    (result,) = results.of("tried")
    assert result.retries == (("", 1), ("KeyError", 2), ("http.503", 1))
    assert (result.outcome, result.error_type) == ("ok", None)


@pytest.mark.parametrize("inside", [True, False])
def test_a_bad_retry_is_named(inside: bool, results: Results) -> None:
    block = stage("strict") if inside else contextlib.nullcontext()
    with block, pytest.raises(TypeError, match="error must be an exception, its class"):
        current_stage().retry(5)  # type: ignore[arg-type]
    assert results.of("strict") == []


def test_set_attribute(results: Results) -> None:
    with stage("said") as s:
        s.set_attribute("a", 1)
        s.set_attribute("a", 2)
        s.set_attribute("b", ["x", "y"])
    assert [r.attributes for r in results.of("said")] == [{"a": 2, "b": ["x", "y"]}]


def test_a_bad_attribute_is_left_out_and_logged_once(
    results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    with stage("said") as s:
        for _ in range(3):
            s.set_attribute("bad", object())  # type: ignore[arg-type]
            s.set_attribute(5, "x")  # type: ignore[arg-type]
        s.set_attribute("good", 1)
    assert [r.attributes for r in results.of("said")] == [{"good": 1}]
    assert [r.getMessage() for r in caplog.records] == [
        (
            "an attribute is left out: set_attribute['bad'] must be a str, bool, int, float or a "
            "list of one of them, not object"
        ),
        "an attribute is left out: set_attribute: keys must be strings, not int",
    ]


def test_details_after_the_end_change_nothing(results: Results) -> None:
    with stage("over") as s:
        s.add_items(1)
    for late in (lambda: s.add_items(1), lambda: s.add_bytes(1), s.retry):
        late()
    s.set_attribute("a", 1)
    (result,) = results.of("over")
    assert (
        result.items_out,
        result.bytes_out,
        result.retries,
        result.attributes,
    ) == (1, None, (), None)
    assert [result] == results.of("over")


# --- items= --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "returned", "counted"),
    [
        (len, [1, 2, 3], 3),
        (lambda r: r["rows"], {"rows": 8}, 8),
        (lambda _: Numpyish(), None, 6),
        (len, [], 0),
    ],
)
async def test_items_are_counted_from_the_return_value(
    items: Any, returned: Any, counted: int, results: Results
) -> None:
    async def coroutine() -> Any:
        return returned

    assert returned is stage("sync", items=items)(lambda: returned)()
    assert returned is await stage("async", items=items)(coroutine)()
    assert [counted] == results.sizes("sync")
    assert [counted] == results.sizes("async")
    assert len(results.durations("sync")) == len(results.durations("async")) == 1


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (len, "failed with TypeError: object of type 'object' has no len()"),
        (lambda _: -1, "failed with ValueError: n must not be negative, this one is -1"),
        (lambda _: 1.5, "failed with TypeError: n must be an integer, not float"),
    ],
)
def test_items_that_fail_are_logged_once_and_change_nothing(
    items: Any, says: str, results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    given = object()
    measured = stage("fails", items=items)(lambda: given)
    assert [given] * 3 == [measured() for _ in range(3)]
    assert len(results.durations("fails")) == 3
    (record,) = caplog.records
    assert says in record.getMessage()
    assert "'fails'" in record.getMessage()


def test_items_are_not_counted_for_a_failed_call(results: Results) -> None:
    asked: list[Any] = []

    @stage("failed", items=asked.append)  # type: ignore[arg-type]
    def failed() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        failed()
    assert asked == []


def test_a_fault_at_one_begin_ends_no_block_of_another_thread(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    shared = stage("shared")

    def faulty() -> None:
        with shared:
            pass

    with shared as own:
        with monkeypatch.context() as patch:
            patch.setattr(errors, "raise_faults", False)
            patch.setattr(invocation, "begin", broken)
            thread = threading.Thread(target=faulty)
            thread.start()
            thread.join()
        own.add_items(5)
    (result,) = results.of("shared")
    assert result.items_out == 5


RECURSION = """
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.series import active_cell

shared = opm.stage("shared")

def within():
    with shared:
        within()

def below(levels):
    return within() if levels == 0 else below(levels - 1)

with opm.run("recursion", resources=False):
    around = active_cell.get()
    for _ in range(300):
        with shared:
            pass
    for levels in range(4):
        try:
            below(levels)
        except RecursionError:
            print(active_cell.get() is around, end=" ")
"""


def test_blocks_up_to_the_recursion_limit_are_left(tmp_path: Path) -> None:
    done = run_script(RECURSION, tmp_path / "recursion.py")
    assert done.stdout.split() == ["True"] * 4, done.stderr
