"""Test that a consumer's span links to the spans of its items' producers."""

from __future__ import annotations

import asyncio
import queue as thread_queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import series as _series
from tests.probes.queues.support import play, queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.stages.conftest import Otel


def spans_of(otel: Otel, name: str) -> list[Any]:
    return [span for span in otel.spans() if span.name == name]


def linked(span: Any) -> list[int]:
    """Return the ids of the linked spans."""
    return [link.context.span_id for link in span.links]


def ids(spans: list[Any]) -> list[int]:
    return [span.context.span_id for span in spans]


@pytest.mark.parametrize("consuming", ["around", "inside"])
@pytest.mark.parametrize("producing", ["around", "inside"])
def test_spans_of_tasks_link_to_producers(
    producing: str, consuming: str, clock: Clock, otel: Otel
) -> None:
    async def main() -> None:
        q = opm.wrap_queue(asyncio.Queue(2), name="parsed")

        async def produce() -> None:
            for n in range(3):
                if producing == "inside":
                    async with opm.stage("make"):
                        await q.put(n)
                else:
                    with opm.stage("make"):
                        pass
                    await asyncio.sleep(0.25)
                    await q.put(n)

        async def consume() -> None:
            await asyncio.sleep(2)
            for _ in range(3):
                if consuming == "inside":
                    async with opm.stage("use"):
                        await q.get()
                else:
                    await q.get()
                    with opm.stage("use"):
                        await asyncio.sleep(1)

        await asyncio.gather(produce(), consume())

    play(clock, main())
    made, used = spans_of(otel, "make"), spans_of(otel, "use")
    assert [[i] for i in ids(made)] == [linked(span) for span in used]
    attributes: list[Any] = [dict(span.links[0].attributes) for span in used]
    assert [a["pipeline.queue.name"] for a in attributes] == ["parsed"] * 3
    assert [{"pipeline.queue.name", "pipeline.queue.wait"}] * 3 == [set(a) for a in attributes]
    first = 2.0 if producing == "inside" else 1.75
    assert first == attributes[0]["pipeline.queue.wait"]
    assert all("pipeline.links.dropped" not in span.attributes for span in used)


@pytest.mark.parametrize("consuming", ["around", "inside"])
@pytest.mark.parametrize("kind", [thread_queue.Queue, thread_queue.SimpleQueue])
def test_spans_of_threads_link_to_producers(kind: Any, consuming: str, otel: Otel) -> None:
    q = opm.wrap_queue(kind(), name="q")

    def produce() -> None:
        for n in range(3):
            with opm.stage("make"):
                q.put(n)
        q.put(None)

    def consume() -> None:
        going = True
        while going:
            if consuming == "around":
                going = q.get() is not None
                with opm.stage("use"):
                    pass
            else:
                with opm.stage("use"):
                    going = q.get() is not None

    threads = [threading.Thread(target=target) for target in (consume, produce)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made, used = spans_of(otel, "make"), spans_of(otel, "use")
    # the sentinel is put after the last stage, so it counts as that stage's
    assert [*([i] for i in ids(made)), [made[-1].context.span_id]] == [linked(s) for s in used]


@pytest.mark.parametrize("inside", [0, 1, 63, 100, 150, 300])
@pytest.mark.parametrize(("count", "dropped"), [(127, None), (128, 1), (300, 173)])
def test_a_span_links_to_all_producers(
    count: int, dropped: int | None, inside: int, otel: Otel
) -> None:
    """Items are taken before the stage, in it, or both."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    for n in range(count):
        with opm.stage("make"):
            q.put(n)
    inside = min(inside, count)
    for _ in range(count - inside):
        q.get()
    with opm.stage("use"):
        for _ in range(inside):
            q.get()
    made = ids(spans_of(otel, "make"))
    (used,) = spans_of(otel, "use")
    if inside in {0, count} or count - inside <= 64:
        assert linked(used) == [*made[:64], *made[64:][-63:]]
    else:  # links from the begin of a stage stay
        assert linked(used)[:64] == made[:64]
        assert len(used.links) == 127
    assert dropped == used.attributes.get("pipeline.links.dropped")
    assert used.dropped_links == 0


def test_only_the_next_stage_gets_the_links(otel: Otel) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    with opm.stage("make"):
        q.put(1)
    q.get()
    for name in ("use", "later"):
        with opm.stage(name):
            pass
    assert len(otel.span("use").links) == 1
    assert len(otel.span("later").links) == 0


def test_the_links_of_a_generator_stage_are_bounded(otel: Otel) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    for n in range(300):
        with opm.stage("make"):
            q.put(n)

    @opm.stage
    def use() -> Any:
        for _ in range(30):
            yield [q.get() for _ in range(10)]

    assert len(list(use())) == 30
    used = otel.span("use")
    # at a pause, later items are unknown
    assert linked(used)[:120] == ids(spans_of(otel, "make"))[:120]
    assert len(used.links) == 127
    assert used.attributes["pipeline.links.dropped"] == 173


def test_a_generator_stage_links_to_its_items(otel: Otel) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    with opm.stage("make"):
        q.put(1)
        q.put(2)
        q.put(3)

    @opm.stage
    def use() -> Any:
        for _ in range(2):
            yield q.get()

    q.get()
    assert list(use()) == [2, 3]
    (made,) = ids(spans_of(otel, "make"))
    assert [made] * 3 == linked(otel.span("use"))


@pytest.mark.parametrize("how", ["wait_for", "to_thread", "task"])
def test_a_get_in_another_task_links_to_the_producer(how: str, clock: Clock, otel: Otel) -> None:
    async def main() -> None:
        aq = opm.wrap_queue(asyncio.Queue(), name="q")
        tq = opm.wrap_queue(thread_queue.Queue(), name="q")

        async def get() -> Any:
            if how == "wait_for":
                return await asyncio.wait_for(aq.get(), 60)
            if how == "to_thread":
                return await asyncio.to_thread(tq.get)
            return await asyncio.create_task(aq.get())

        async def put() -> Any:
            if how == "wait_for":
                await asyncio.wait_for(aq.put(1), 60)
            elif how == "to_thread":
                await asyncio.to_thread(tq.put, 1)
            else:
                await asyncio.create_task(aq.put(1))

        async def produce() -> None:
            async with opm.stage("make"):
                await put()
            async with opm.stage("make"):
                pass
            await put()

        async def consume() -> None:
            async with opm.stage("use"):
                await get()
            await get()
            async with opm.stage("use"):
                pass

        await asyncio.create_task(produce())
        await asyncio.create_task(consume())

    play(clock, main())
    made = ids(spans_of(otel, "make"))
    assert [[i] for i in made] == [linked(span) for span in spans_of(otel, "use")]


def test_puts_of_child_tasks_count_as_the_stages(
    clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]
) -> None:
    """Unless the children have stages of their own."""

    async def main() -> None:
        q = opm.wrap_queue(asyncio.Queue(), name="q")

        async def child(with_stage: bool) -> None:
            if with_stage:
                async with opm.stage("inner"):
                    pass
            await q.put(with_stage)

        async with opm.stage("outer"):
            await asyncio.create_task(child(False))
            await asyncio.create_task(child(True))
        async with opm.stage("use"):
            await q.get()
            await q.get()

    with make_run() as run:
        play(clock, main())
    outer, inner = otel.span("outer"), otel.span("inner")
    assert ids([outer, inner]) == linked(otel.span("use"))
    assert queue_of(run, "q")["producers"] == ["outer", "inner"]


def test_an_item_put_outside_stages_has_no_link(otel: Otel) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    q.put(1)
    q.get()
    with opm.stage("use"):
        pass
    assert otel.span("use").links == ()


def test_an_item_put_into_the_bare_queue_has_no_link(otel: Otel) -> None:
    raw: Any = thread_queue.Queue()
    q = opm.wrap_queue(raw, name="q")
    with opm.stage("make"):
        raw.put(1)
    with opm.stage("use"):
        q.get()
    assert otel.span("use").links == ()


def test_without_tracing_there_are_no_links(make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(tracer_provider=trace.NoOpTracerProvider())
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    with opm.stage("make"):
        q.put(1)
    assert not q._opm_probe.linked
    with opm.stage("use") as s:
        q.get()
    assert (s.span, s.links) == (None, ())
    assert otel.spans() == []


def test_unsampled_spans_are_not_linked(make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    with opm.stage("make"):
        q.put(1)
        q.put(2)
    q.get()
    with opm.stage("use"):
        q.get()
    assert otel.spans() == []


def test_an_item_of_a_call_without_a_span_has_no_link_to_an_earlier_call(otel: Otel) -> None:
    """The budget of spans may be spent."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    @opm.stage
    def make() -> None:
        """Nothing."""

    make()
    (series,) = [s for s in _series.all_series() if s.key.stage == "make"]
    series.budget.spans_left = 0
    make()
    q.put(1)
    q.get()
    with opm.stage("use"):
        pass
    series.budget.reset_budget()
    assert len(spans_of(otel, "make")) == 1
    assert otel.span("use").links == ()
