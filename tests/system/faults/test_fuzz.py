"""Test that random programs get their own results, and lose no telemetry but a bad value's own.

Each program does random things with the public API and hostile values, and between them calls a
witness: a stage of which every call must arrive. `OPM_FUZZ=10000` makes as many programs, as
`make fuzz` does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export import exporters
from tests.lifecycle.configure.support import clean_slate
from tests.stages.test_callbacks import HOSTILE, OddError, OwnInt, OwnText
from tests.system.faults.backend import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PROGRAMS = int(os.environ.get("OPM_FUZZ", "60"))
NEVER_MS = "3600000"
# raised where a stage is defined or a value is given, and then there is nothing to count
REFUSED = (TypeError, ValueError)


class Evil:
    """A value that raises whatever is done with it."""

    def __repr__(self) -> str:
        raise OddError

    __str__ = __len__ = __iter__ = __index__ = __int__ = __float__ = __repr__  # type: ignore[assignment]


texts = st.one_of(
    st.text(max_size=140),
    st.text(st.characters(categories=["Cs", "Cc", "Cf"]), max_size=20),
    st.sampled_from(["", "a", "__proto__", "../x", "{run_id}", "%s", "password", "\x1b[2J", "a.b"]),
    st.builds(OwnText, st.text(max_size=5)),
)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, -(2**63) - 1, True, float("nan"), float("inf")]),
    st.floats(),
    st.builds(OwnInt, st.integers(-9, 9)),
)
values = st.one_of(
    texts, numbers, st.none(), st.binary(max_size=5), st.just(object()), st.just(Evil),
    st.lists(st.one_of(texts, numbers, st.none()), max_size=3),
    st.tuples(numbers, texts),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
# what is raised by the program's functions and callbacks
raised = st.sampled_from([
    KeyError, ValueError, OddError, SystemExit, GeneratorExit, StopIteration, MemoryError,
    asyncio.CancelledError, RecursionError, TimeoutError, *HOSTILE,
])  # fmt: skip


class Act(NamedTuple):
    """One thing that a program does."""

    does: str
    name: Any
    value: Any
    other: Any
    error: Any


def raises(error: Callable[[], BaseException]) -> Callable[..., Any]:
    def callback(*_: Any, **__: Any) -> Any:
        raise error()

    return callback


def same(found: Any, wanted: Any) -> None:
    if found is not wanted:
        raise AssertionError("the program got something else than its own")


# --- functions of a program ----------------------------------------------------------------------


def in_loop(function: Any, *args: Any) -> Any:
    async def main() -> Any:
        return await function(*args)

    return asyncio.run(main())


def first_of(function: Any, *args: Any) -> Any:
    return next(iter(list(function(*args))))


def first_of_async(function: Any, *args: Any) -> Any:
    async def main() -> Any:
        (found,) = [value async for value in function(*args)]
        return found

    return asyncio.run(main())


def result_of(function: Any, *args: Any) -> Any:
    return function(*args).result()


def plain(value: Any) -> Any:
    return value


async def waits(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def yields(value: Any) -> Iterator[Any]:
    yield value


async def yields_async(value: Any) -> AsyncIterator[Any]:
    yield value


def submits(value: Any) -> Any:
    future: Any = concurrent.futures.Future()
    future.set_result(value)
    return future


def returns_a_coroutine(value: Any) -> Any:
    return waits(value)


class Called:
    def __call__(self, value: Any) -> Any:
        return value


FORMS: list[tuple[Any, Any]] = [
    (plain, lambda function, *args: function(*args)),
    (Called(), lambda function, *args: function(*args)),
    (functools.partial(plain), lambda function, *args: function(*args)),
    (waits, in_loop),
    (returns_a_coroutine, in_loop),
    (yields, first_of),
    (yields_async, first_of_async),
    (submits, result_of),
]


def decorates(act: Act) -> None:
    options = {
        "name": act.name if isinstance(act.name, str) else None,
        "items": raises(act.error) if act.other is None else lambda _: act.other,
        "attributes": {str.__str__(act.name): act.value}
        if isinstance(act.name, str)
        else act.value,
        "kind": act.other if isinstance(act.other, str) else None,
    }
    for function, calls in FORMS:
        try:
            measured = opm.stage(**options)(function)
        except REFUSED:
            continue
        value = object()
        same(calls(measured, value), value)


def fails(act: Act) -> None:
    """Let a stage raise; what the program catches is the same object."""
    error = act.error()

    def does() -> Any:
        raise error

    # a stage that raises StopIteration is none of a generator's
    for measured in (opm.stage("fails")(does), opm.fetch(functools.partial(does))):
        caught = None
        try:
            measured()
        except BaseException as found:
            caught = found
        same(caught, error)
    caught = None
    try:
        with opm.stage("fails"):
            does()
    except BaseException as found:
        caught = found
    same(caught, error)


def tells(act: Act) -> None:
    """Give all sorts of values to the call in progress."""
    with opm.stage("tells") as s:
        for tell in (
            lambda: s.add_items(act.value),
            lambda: s.add_items(act.value, "in"),
            lambda: s.add_bytes(act.value, act.name),
            lambda: s.set_attribute(act.name, act.value),
            lambda: s.event_time(act.value),
            lambda: s.retry(act.value),
            lambda: opm.current_stage().add_bytes(act.other),
        ):
            try:
                tell()
            except REFUSED:
                continue
            except (OddError, AttributeError):
                # what the value itself raises where it is asked
                same(any(isinstance(each, Evil) for each in act), True)


def queues(act: Act) -> None:
    made: Any = queue.Queue(2)
    try:
        made = opm.wrap_queue(made, name=act.name)
    except REFUSED:
        return
    for value in (act.value, act.other):
        made.put(value)
        same(made.get(timeout=5), value)
        made.task_done()


def limits(act: Act) -> None:
    try:
        lock = opm.wrap_limit(threading.Lock(), name=act.name)
    except REFUSED:
        return
    with lock:
        same(lock.locked(), True)


def caches(act: Act) -> None:
    for source in (raises(act.error), lambda: act.value, lambda: {"hits": act.value, "misses": 1}):
        try:
            opm.register_cache(act.name, source)
        except REFUSED:
            return


def runs(act: Act) -> None:
    try:
        run = opm.run(act.name, resources=False)
    except REFUSED:
        return
    error, caught = act.error(), None
    try:
        with run:
            opm.stage("inside")(plain)(1)
            raise error  # noqa: TRY301 - the point
    except BaseException as found:
        caught = found
    same(caught, error)
    run.__exit__(None, None, None)
    json.loads(run.report.to_json())


def propagates(act: Act) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(opm.propagate(plain)(act.value)))
    thread.start()
    thread.join()
    same(found[0], act.value)


def own_metrics(act: Act) -> None:
    try:
        opm.counter(act.name).add(act.value, {"a": act.other})
        opm.histogram(act.name).record(act.value)
    except REFUSED:
        return
    except (OddError, AttributeError):
        same(any(isinstance(each, Evil) for each in act), True)


DOES = [decorates, fails, tells, queues, limits, caches, runs, propagates, own_metrics]
acts = st.builds(
    Act, st.sampled_from(DOES), st.one_of(texts, values), values, values, raised
)  # fmt: skip


# --- the test ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _setting(monkeypatch: pytest.MonkeyPatch, loud_faults: None) -> Iterator[None]:
    # each backend puts itself there
    monkeypatch.setattr(exporters, "load", exporters.load)
    errors.raise_faults = False
    yield
    errors.raise_faults = True


def check_ledger(stats: dict[str, Any]) -> None:
    for ledger in (stats["spans"], stats["metric_points"]):
        parts = {name: count for name, count in ledger.items() if name != "created"}
        assert min(parts.values()) >= 0
        assert ledger["created"] == sum(parts.values())


@pytest.mark.slow
@pytest.mark.processes
@settings(
    max_examples=PROGRAMS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(acts, min_size=1, max_size=6))
def test_a_random_program(program: list[Act]) -> None:
    with clean_slate():
        # it takes these variables away, and takes back what it finds at its end
        os.environ["OTEL_BSP_SCHEDULE_DELAY"] = NEVER_MS
        os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = NEVER_MS
        backend = Backend()
        backend.install()
        # a full machine, and a heap of thousands of programs
        opm.configure(exporter="otlp", console=False, flush_timeout=60, spans_per_second=None)
        witness = opm.stage("witness", items=lambda n: n)(plain)
        calls = 0
        with opm.run("fuzz", resources=False) as run:
            for drawn in program:
                # made here, since hypothesis would write it out
                act = Act(*[Evil() if each is Evil else each for each in drawn])
                same(witness(3), 3)
                act.does(act)  # type: ignore[operator]
                with opm.stage("witness") as s:
                    s.add_items(3)
                calls += 2
        found = {stage["name"]: stage for stage in run.report.stages}["witness"]
        assert (found["count"], found["errors"]["total"]) == (calls, 0)
        assert found["items"]["out"] == 3 * calls
        json.loads(run.report.to_json())
        opm.shutdown()
        stats = opm.stats()
        check_ledger(stats)
        assert stats["spans"]["dropped"] == stats["spans"]["pending"] == 0
        assert stats["spans"]["exported"] == backend.collector.spans.total()
        assert backend.collector.spans["witness"] == calls
        assert backend.collector.calls("witness") == calls
        assert not [said for said in errors._logged if said.startswith("internal")]
