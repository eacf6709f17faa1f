"""Test anyio's memory object streams on both of its backends, and trio's channels."""

from __future__ import annotations

import gc
import math
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.queues import registry
from tests.probes.queues.support import queue_of, states
from tests.probes.queues.test_queue_numbers import waits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel

blocked = anyio.wait_all_tasks_blocked


def streams(size: float = 8, **options: Any) -> tuple[Any, Any]:
    return opm.wrap_queue(anyio.create_memory_object_stream[Any](size), name="q", **options)


@pytest.fixture(params=["asyncio", "trio"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    return lambda main: anyio.run(main, backend=request.param)


def test_wrapped_streams_behave_like_the_bare_ones(play: Any) -> None:
    async def main() -> None:
        send, receive = streams()
        assert isinstance(send, MemoryObjectSendStream)
        assert isinstance(receive, MemoryObjectReceiveStream)
        async with send, receive:
            with send.clone() as sending, receive.clone() as receiving:
                assert (type(sending), type(receiving)) == (type(send), type(receive))
                sending.send_nowait("a")
                await sending.send("b")
                now = receive.statistics()
                assert (now.current_buffer_used, now.open_send_streams) == (2, 2)
                assert [receiving.receive_nowait(), await receive.receive()] == ["a", "b"]
                with pytest.raises(anyio.WouldBlock):
                    receive.receive_nowait()
                await sending.aclose()
                receiving.close()
                with pytest.raises(anyio.ClosedResourceError):
                    await receiving.receive()
                with pytest.raises(anyio.ClosedResourceError):
                    sending.clone()
        assert now == now._replace(open_receive_streams=2)

    play(main)


def test_iteration_ends_with_the_senders(play: Any) -> None:
    async def main() -> list[Any]:
        send, receive = streams()
        async with receive:
            async with send:
                for n in range(3):
                    await send.send(n)
            return [item async for item in receive]

    assert play(main) == [0, 1, 2]


def test_a_send_without_a_receiver_fails_like_the_bare_one(play: Any) -> None:
    async def main() -> None:
        send, receive = streams(1)
        async with send:
            async with receive:
                pass
            with pytest.raises(anyio.BrokenResourceError):
                await send.send(1)
            with pytest.raises(anyio.BrokenResourceError):
                send.send_nowait(1)

    play(main)


def test_counts_waits_and_states_are_exact(
    clock: Clock, make_run: Callable[[], opm.Run], play: Any
) -> None:
    """The second send waits for room, the third receive for an item."""

    async def make(send: Any) -> None:
        async with send:
            for item in ("a", "b"):
                with opm.stage("make"):
                    clock.advance(1)
                    await send.send(item)

    async def send_late(send: Any) -> None:
        async with send:
            await blocked()
            clock.advance(16)
            await send.send("c")

    async def main() -> None:
        send, receive = streams(1)
        async with receive, anyio.create_task_group() as group:
            group.start_soon(make, send.clone())
            await blocked()
            clock.advance(4)
            got = []
            with opm.stage("use"):
                got.append(await receive.receive())
                await blocked()
                got.append(await receive.receive())
                group.start_soon(send_late, send)
                got.append(await receive.receive())
            assert got == ["a", "b", "c"]

    with make_run() as run:
        play(main)
    found = queue_of(run, "q")
    assert (found["put"], found["got"], found["depth_peak"], found["capacity"]) == (3, 3, 1, 1)
    assert (found["put_blocked_s"], found["get_waited_s"]) == (4.0, 16.0)
    # a is in from 1, b is sent at 2 and blocked until 6
    assert (found["wait_s"]["max"], found["wait_s"]["avg"] * 3) == (5.0, 5.0)
    assert states(run, "make") == (2.0, 0.0, 4.0)
    assert states(run, "use") == (0.0, 16.0, 0.0)
    # a task that a stage started sends on the stage's behalf
    assert (found["producers"], found["consumers"]) == (["make", "use"], ["use"])


def test_turns_of_other_tasks_do_not_count_as_waits(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """A send and a receive let other tasks run, even if they need not wait.

    Not on trio, which lets chance decide whose turn is first.
    """

    async def other() -> None:
        clock.advance(8)

    async def main() -> None:
        send, receive = streams(2)
        async with send, receive, anyio.create_task_group() as group:
            with opm.stage("work"):
                group.start_soon(other)
                await send.send("a")
                group.start_soon(other)
                await receive.receive()

    with make_run() as run:
        anyio.run(main)
    assert states(run, "work") == (16.0, 0.0, 0.0)
    found = queue_of(run, "q")
    # it got in after the first turn of other tasks, and out after the second
    assert (found["put_blocked_s"], found["get_waited_s"]) == (0.0, 0.0)
    assert found["wait_s"]["max"] == 8.0


def test_a_task_that_loses_its_item_at_the_checkpoint_waits(
    clock: Clock, make_run: Callable[[], opm.Run], play: Any
) -> None:
    """There was one item when both began, and none when the second one looked."""

    async def use(receive: Any) -> None:
        with opm.stage("use"):
            await receive.receive()

    async def main() -> None:
        send, receive = streams(2)
        async with send, receive, anyio.create_task_group() as group:
            await send.send("a")
            group.start_soon(use, receive)
            group.start_soon(use, receive)
            await blocked()
            clock.advance(8)
            await send.send("b")

    with make_run() as run:
        play(main)
    assert states(run, "use") == (0.0, 8.0, 0.0)


def test_a_cancelled_send_or_receive_loses_no_item(play: Any) -> None:
    async def main() -> None:
        send, receive = streams(1)
        async with send, receive:
            with anyio.move_on_after(0.01) as scope:
                await receive.receive()
            assert scope.cancelled_caught
            await send.send("a")
            with anyio.move_on_after(0.01) as scope:
                await send.send("b")
            assert scope.cancelled_caught
            assert receive.receive_nowait() == "a"
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()
            await send.send("c")
            assert await receive.receive() == "c"

    with opm.run("test", resources=False) as run:
        play(main)
    found = queue_of(run, "q")
    assert (found["put"], found["got"]) == (2, 2)


def test_one_object_in_the_buffer_twice_has_no_known_wait(
    clock: Clock, results: Results, play: Any
) -> None:
    """A send lets other tasks run, which may send the same object first."""

    async def main() -> None:
        send, receive = streams()
        async with send, receive:
            for _ in range(2):
                await send.send(1)
                clock.advance(1)
            await receive.receive()
            await receive.receive()
            await send.send(1)
            clock.advance(4)
            await receive.receive()

    play(main)
    assert waits(results) == [4.0]


def test_a_sentinel_of_a_stream_is_not_counted(play: Any) -> None:
    async def main() -> None:
        send, receive = streams(sentinel=None)
        async with send, receive:
            await send.send(1)
            await send.send(None)
            assert [await receive.receive(), await receive.receive()] == [1, None]

    with opm.run("test", resources=False) as run:
        play(main)
    assert (queue_of(run, "q")["put"], queue_of(run, "q")["got"]) == (1, 1)


def test_spans_link_to_the_sender(otel: Otel, play: Any) -> None:
    async def main() -> None:
        send, receive = streams()
        async with send, receive:
            with opm.stage("make"):
                await send.send("a")
            with opm.stage("use"):
                await receive.receive()

    play(main)
    (link,) = otel.span("use").links
    assert otel.span("make").context.span_id == link.context.span_id


def test_capacity_and_depth_are_the_buffers(play: Any) -> None:
    async def main() -> None:
        for size, capacity in ((0, 0), (3, 3), (math.inf, None)):
            send, receive = streams(size)
            async with send, receive:
                assert registry.capacities().get("q") == capacity
                if size:
                    send.send_nowait(1)
                assert registry.sizes() == {"q": int(size > 0)}
            del send, receive
            gc.collect()
            assert registry.sizes() == {}

    play(main)


def test_an_end_is_freed_once_it_is_unused(play: Any) -> None:
    """A clone of it still counts after that."""

    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[int](1)
        dead = [weakref.ref(send), weakref.ref(receive)]
        sending, receiving = opm.wrap_queue((send, receive), name="q")
        cloned = sending.clone()
        with send, receive:
            del send, receive
        sending.close()
        receiving.close()
        del sending, receiving
        gc.collect()
        assert [ref() for ref in dead] == [None, None]
        assert registry.sizes() == {"q": 0}
        cloned.close()

    play(main)


def test_trios_channels_count_like_streams() -> None:
    async def main() -> list[int]:
        send, receive = opm.wrap_queue(trio.open_memory_channel[int](1), name="q")
        got = []

        async def use() -> None:
            async with receive:
                async for item in receive:
                    got.append(item)  # noqa: PERF401 - as a consumer does

        async with trio.open_nursery() as nursery, send:
            nursery.start_soon(use)
            for n in range(5):
                await send.send(1000 + n)
        return got

    with opm.run("test", resources=False) as run:
        assert trio.run(main) == [1000, 1001, 1002, 1003, 1004]
    assert (queue_of(run, "q")["put"], queue_of(run, "q")["got"]) == (5, 5)


def test_other_pairs_are_refused(play: Any) -> None:
    async def main() -> None:
        send, receive = pair = anyio.create_memory_object_stream[int](1)
        wrapped = opm.wrap_queue(pair, name="q")
        async with send, receive:
            for again in (pair, wrapped, (send, wrapped[1])):
                with pytest.raises(TypeError, match="queue is instrumented already"):
                    opm.wrap_queue(again, name="r")
        other = anyio.create_memory_object_stream[int](1)
        async with other[0], other[1]:
            with pytest.raises(
                TypeError, match=r"it has no the first.send, no .*the second.receive"
            ):
                opm.wrap_queue((other[1], other[0]), name="r")
            with pytest.raises(TypeError, match="pair of memory object streams, not 3 objects"):
                opm.wrap_queue((*other, 1), name="r")

    play(main)
