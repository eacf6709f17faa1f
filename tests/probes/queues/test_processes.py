"""Test queues between processes, and the state of a forked child."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import queue as thread_queue
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._core import drain, series
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._probes.queues.probe import NOTHING
from otel_pipeline_metrics._probes.queues.process import ProcessProbe
from tests.probes.queues import child
from tests.probes.queues.support import queue_of, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

METHODS = [m for m in ("spawn", "fork") if m in multiprocessing.get_all_start_methods()]

# a fork of this process, which has threads, is what users do too
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def make(context: Any) -> Iterator[Callable[..., Any]]:
    """Make wrapped queues, and close them."""
    made = []

    def make_queue(name: str, maxsize: int = 0, kind: str = "Queue", **options: Any) -> Any:
        raw = getattr(context, kind)(maxsize)
        made.append(raw)
        return opm.wrap_queue(raw, name=name, **options)

    yield make_queue
    for raw in made:
        raw.close()
        raw.join_thread()


@pytest.mark.slow
def test_items_arrive_in_both_directions(
    context: Any, make: Callable[..., Any], otel: Otel
) -> None:
    """Items arrive in order, with their time in the queue and the producer's span."""
    # one queue has a sentinel; in the other one, None counts as an item
    there, back = make("there", 2, sentinel=None), make("back")
    process = context.Process(target=child.echo, args=(there, back))
    process.start()
    items = [1, "two", [3], {"four": 4}, (None,)]
    with opm.run("parent", resources=False) as run:
        for item in items:
            with opm.stage("make"):
                there.put(item)
        there.put(None)
        assert [("echo", item) for item in items] == [back.get(timeout=60) for _ in items]
        kind, stages, told = back.get(timeout=60)
        with opm.stage("use"):
            pass
    process.join(60)
    assert process.exitcode == 0
    assert kind == "InstrumentedProcessQueue"
    assert (stages["echo"]["count"], stages["echo"]["workers"]) == (5, 1)
    assert (told["there"]["put"], told["there"]["got"]) == (0, 5)
    assert (told["back"]["put"], told["back"]["got"]) == (5, 0)
    assert (told["there"]["consumers"], told["back"]["producers"]) == (["echo"], ["echo"])
    assert 0 <= told["there"]["wait_s"]["max"] < 60
    assert (queue_of(run, "there")["put"], queue_of(run, "there")["got"]) == (5, 0)
    assert queue_of(run, "there")["capacity"] == 2
    assert 0 <= queue_of(run, "back")["wait_s"]["max"] < 60
    assert queue_of(run, "there")["producers"] == ["make"]
    # a spawned child has no tracer
    if context.get_start_method() == "spawn":
        assert otel.span("use").links == ()


@pytest.mark.slow
def test_a_joinable_queue_can_be_joined(context: Any, make: Callable[..., Any]) -> None:
    q = make("joinable", kind="JoinableQueue")
    process = context.Process(target=child.join, args=(q,))
    for item in (1, 2, None):
        q.put(item)
    process.start()
    q.join()
    process.join(60)
    assert process.exitcode == 0
    assert q.empty()


def local(maxsize: int = 0) -> Any:
    return opm.wrap_queue(multiprocessing.get_context("spawn").Queue(maxsize), name="q")


def close(q: Any) -> None:
    q.close()
    q.join_thread()


def test_a_process_queue_works_in_one_process(clock: Clock) -> None:
    q = local(2)
    with pytest.raises(thread_queue.Empty):
        q.get_nowait()
    with pytest.raises(thread_queue.Empty):
        q.get(timeout=0.001)
    q.put(obj="first")
    q.put_nowait(obj="second")
    for refused in (
        lambda: q.put(3, False),
        lambda: q.put_nowait(3),
        lambda: q.put(3, True, 0.001),
    ):
        with pytest.raises(thread_queue.Full):
            refused()
    assert (q.qsize(), q.full()) == (2, True)
    assert [q.get(timeout=10), q.get(timeout=10)] == ["first", "second"]
    assert registry.capacities()["q"] == 2
    close(q)
    with pytest.raises(ValueError, match="closed"):
        q.put(1)
    with pytest.raises(ValueError, match="closed"):
        q.get()
    assert registry.sizes()["q"] == 0


def test_an_unbounded_queue_has_no_capacity() -> None:
    q = local()
    assert "q" not in registry.capacities()
    assert "q" not in registry.known_capacities()
    close(q)


def test_time_in_the_queue_begins_when_a_blocked_put_gets_it_in(clock: Clock) -> None:
    q = local(1)
    began = threading.Event()

    def produce() -> None:
        with opm.stage("make"):
            q.put(1)
            began.set()
            q.put(2)

    with opm.run("test", resources=False) as run:
        thread = threading.Thread(target=produce)
        thread.start()
        began.wait()
        while not any(w.waits for w in list(run._scope.workers.values())):
            pass
        clock.advance(4)
        assert q.get(timeout=10) == 1
        thread.join()
        clock.advance(1)
        assert q.get(timeout=10) == 2
    assert (
        queue_of(run, "q")["wait_s"]["max"],
        queue_of(run, "q")["wait_s"]["avg"] * 2,
    ) == (4.0, 5.0)
    assert queue_of(run, "q")["put_blocked_s"] == 4.0
    assert stage_of(run, "make")["time_s"]["blocked"] == 4.0
    close(q)


def test_the_producers_span_arrives(otel: Otel) -> None:
    q = local()
    with opm.stage("make"):
        q.put(1)
    with opm.stage("use"):
        q.get(timeout=10)
    (link,) = otel.span("use").links
    assert otel.span("make").context.span_id == link.context.span_id
    close(q)


def test_a_sentinel_is_known_by_type_and_equality() -> None:
    """A get returns a copy, in the same process too."""

    class Unequal:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    raw = multiprocessing.get_context("spawn").Queue()
    q = opm.wrap_queue(raw, name="q", sentinel=("the", "end"))
    with opm.run("test", resources=False) as run:
        for item in (("the", "end"), ["the", "end"], None):
            q.put(item)
        assert [q.get(timeout=10) for _ in range(3)] == [("the", "end"), ["the", "end"], None]
    assert (queue_of(run, "q")["put"], queue_of(run, "q")["got"]) == (2, 2)
    close(q)
    assert not ProcessProbe("q", 1, lambda: None, lambda: None).is_sentinel(True)
    same = ProcessProbe("q", Unequal(), lambda: None, lambda: None)
    assert not same.is_sentinel(Unequal())
    assert same.is_sentinel(same.sentinel)


def test_an_item_from_before_the_wrapping_counts_without_a_time() -> None:
    raw = multiprocessing.get_context("spawn").Queue()
    raw.put("before")
    q = opm.wrap_queue(raw, name="q")
    with opm.run("test", resources=False) as run:
        assert q.get(timeout=10) == "before"
    assert (queue_of(run, "q")["got"], queue_of(run, "q")["wait_s"]["max"]) == (1, None)
    close(q)


def test_a_pickled_copy_of_the_default_sentinel_is_the_default() -> None:
    assert pickle.loads(pickle.dumps(NOTHING)) is NOTHING  # noqa: S301 - our own


def test_a_wrapped_process_queue_cannot_be_wrapped_again() -> None:
    raw = multiprocessing.get_context("spawn").Queue()
    q = opm.wrap_queue(raw, name="q")
    for again in (q, raw):
        with pytest.raises(TypeError, match="queue is instrumented already"):
            opm.wrap_queue(again, name="r")
    assert isinstance(q, type(raw))
    close(raw)


def test_other_queues_pickle_no_more_than_before() -> None:
    for kind in (thread_queue.Queue, thread_queue.SimpleQueue):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(opm.wrap_queue(kind(), name="q"))


def test_shallow_copies_of_a_wrapper_do_not_recurse() -> None:
    import copy

    with pytest.raises(TypeError):
        copy.deepcopy(opm.wrap_queue(thread_queue.Queue(), name="q"))


# --- fork -------------------------------------------------------------------------------------


def in_child(function: Callable[[], Any]) -> Any:
    """Return the result of `function` in a fork of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            try:
                answer = (True, function())
            except BaseException as error:  # flushed in the parent
                answer = (False, repr(error))
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ok, answer = pickle.load(pipe)  # noqa: S301 - our own
    os.waitpid(pid, 0)
    assert ok, answer
    return answer


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")


def entries(run: opm.Run) -> dict[str, Any]:
    report = run.report.to_dict()
    return {entry["name"]: entry for key in ("stages", "queues") for entry in report[key]}


@needs_fork
@pytest.mark.parametrize("inside", [True, False])
def test_a_forked_child_starts_from_zero(inside: bool, clock: Clock) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    def in_the_child() -> Any:
        clock.advance(10)
        with opm.run("child", resources=False) as own:
            for n in range(2):
                q.put(n)
            for _ in range(3):
                q.get()
                with opm.stage("work"):
                    clock.advance(1)
        return entries(own), entries(run)

    with opm.run("parent", resources=False) as run:
        for n in range(5):
            q.put(n)
            with opm.stage("work"):
                clock.advance(100)
            q.get()
            clock.advance(100)
        q.put("left")
        if inside:
            with opm.stage("around"):
                clock.advance(100)
                mine, parents = in_child(in_the_child)
        else:
            mine, parents = in_child(in_the_child)
    assert (mine["q"]["put"], mine["q"]["got"]) == (2, 3)
    assert (
        mine["work"]["time_s"].items()
        >= {"wall": 3.0, "busy": 3.0, "idle": 0.0, "blocked": 0.0}.items()
    )
    assert mine["work"]["workers"] == 1
    assert "around" not in mine
    # only what the parent's run had reported before
    assert "q" not in parents
    assert (entries(run)["q"]["put"], entries(run)["q"]["got"]) == (6, 5)


@needs_fork
def test_a_stage_open_at_a_fork_counts_in_the_parent_only(clock: Clock) -> None:
    """The child's end of the call is not counted."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    sums = []

    def times() -> list[tuple[float, float, float]]:
        drain.drain()
        return [
            (t.busy, t.idle, t.blocked)
            for times in {s.times for s in series.all_series() if s.key.stage == "forks"}
            for t in times.states.values()
        ]

    with opm.stage("forks"):
        clock.advance(5)
        q.put(1)
        q.get()
        read, write = os.pipe()
        pid = os.fork()
        clock.advance(1)
    if not pid:
        try:
            os.write(write, repr(times()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "[]"
    os.waitpid(pid, 0)
    sums.extend(times())
    assert sums == [(6.0, 0.0, 0.0)]


@needs_fork
def test_a_fork_while_another_thread_holds_the_lock_of_the_stamps_works() -> None:
    """C's queue has no lock that a child may find locked, so its stand-in must not either."""
    q: Any = opm.wrap_queue(thread_queue.SimpleQueue(), name="q")
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        with q._opm_probe._lock:
            locked.set()
            over.wait(60)

    def in_the_child() -> Any:
        signal.alarm(30)
        q.put("item")
        return q.get()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(60)
    try:
        assert in_child(in_the_child) == "item"
    finally:
        over.set()
        thread.join()


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_in_a_running_loop_works(clock: Clock) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    def in_the_child() -> Any:
        with opm.run("child", resources=False) as own:
            q.put(1)
            clock.advance(10)
            q.get()
            with opm.stage("work"):
                clock.advance(1)
        return entries(own)

    async def main() -> Any:
        with opm.stage("work"):
            clock.advance(50)
        q.put(0)
        q.get()
        clock.advance(50)
        await asyncio.sleep(0)
        return in_child(in_the_child)

    mine = asyncio.run(main())
    assert (
        mine["work"]["time_s"].items()
        >= {"wall": 1.0, "busy": 1.0, "idle": 0.0, "blocked": 0.0}.items()
    )


def test_the_clock_is_the_same_for_all_processes() -> None:
    """`perf_counter` is the machine's monotonic clock here."""
    before = _clock.now()
    there = in_child(_clock.now) if hasattr(os, "fork") else before
    assert before <= there <= _clock.now()
