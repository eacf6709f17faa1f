"""track_operation: every kind of block and function, and how each may end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import privacy
from otel_pipeline_metrics.service import MetricsManager, track_operation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.conftest import Clock

    Records = Callable[[], list[dict[str, Any]]]
    Found = Callable[[], "list[tuple[str, float, bool, str | None]]"]


@pytest.fixture
async def manager(tmp_path: Path, clock: Clock) -> AsyncIterator[MetricsManager]:
    async with MetricsManager(tmp_path, 3600.0) as running:
        yield running


def ended(manager: MetricsManager) -> list[tuple[str, float, bool, str | None]]:
    """Return name, milliseconds, success and message of what waits for its file."""
    return [
        (each.operation_name, round(each.duration_ms, 6), each.success, each.error_message)
        for each in manager._queue._waiting
    ]


async def test_blocks(manager: MetricsManager, clock: Clock) -> None:
    with manager.track_operation("test", "sync", {"rows": 1}):
        clock.advance(0.25)
    async with track_operation(manager, "test", "async"):
        clock.advance(0.5)
    for error in (KeyError("gone"), asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), manager.track_operation("test", "failing"):
            raise error
    with pytest.raises(ValueError, match="no"):
        async with manager.track_operation("test", "failing"):
            raise ValueError("no")
    assert ended(manager) == [
        ("sync", 250.0, True, None),
        ("async", 500.0, True, None),
        ("failing", 0.0, False, "'gone'"),
        ("failing", 0.0, False, "asyncio.exceptions.CancelledError"),
        ("failing", 0.0, False, "KeyboardInterrupt"),
        ("failing", 0.0, False, "no"),
    ]
    assert manager._queue._waiting[0].metadata == {"rows": 1}


async def test_functions(manager: MetricsManager, clock: Clock) -> None:
    @manager.track_operation("test", "function")
    def function(value: int) -> int:
        """Say what it does."""
        clock.advance(0.25)
        return value + 1

    @manager.track_operation("test", "coroutine")
    async def coroutine(value: int) -> int:
        clock.advance(0.5)
        return value + 1

    class Kind:
        @manager.track_operation("test", "method")
        def method(self) -> Kind:
            return self

        @manager.track_operation("test", "class method")
        @classmethod
        def of_class(cls) -> type[Kind]:
            return cls

        @staticmethod
        @manager.track_operation("test", "static method")
        def static(value: int) -> int:
            return value

    one = Kind()
    assert (function(1), await coroutine(1)) == (2, 2)
    assert (one.method(), Kind.of_class(), one.static(3)) == (one, Kind, 3)
    assert (function.__name__, function.__doc__) == ("function", "Say what it does.")
    assert ended(manager) == [
        ("function", 250.0, True, None),
        ("coroutine", 500.0, True, None),
        ("method", 0.0, True, None),
        ("class method", 0.0, True, None),
        ("static method", 0.0, True, None),
    ]
    for wrong in (3, Kind):
        with pytest.raises(TypeError, match="decorates"):
            manager.track_operation("test", "wrong")(wrong)  # type: ignore[type-var]


async def test_generators(manager: MetricsManager, clock: Clock) -> None:
    @manager.track_operation("test", "generator")
    def count() -> Iterator[int]:
        given: Any = 0
        while given is not None:
            clock.advance(0.25)
            try:
                given = yield given  # type: ignore[misc]
            except KeyError:
                given = "caught"
        return "the end"  # type: ignore[return-value]

    source: Any = count()
    assert (next(source), source.send(7), source.throw(KeyError())) == (0, 7, "caught")
    with pytest.raises(StopIteration) as stop:
        source.send(None)
    assert stop.value.value == "the end"
    left: Any = count()
    next(left)
    left.close()
    failing: Any = count()
    next(failing)
    with pytest.raises(ValueError, match="thrown"):
        failing.throw(ValueError("thrown"))
    assert ended(manager) == [
        ("generator", 750.0, True, None),
        ("generator", 250.0, True, None),
        ("generator", 250.0, False, "thrown"),
    ]


async def test_async_generators(manager: MetricsManager, clock: Clock) -> None:
    closed = []

    @manager.track_operation("test", "generator")
    async def count() -> AsyncIterator[Any]:
        given: Any = 0
        try:
            while given is not None:
                clock.advance(0.25)
                try:
                    given = yield given
                except KeyError:
                    given = "caught"
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    source: Any = count()
    found = [await source.asend(None), await source.asend(7), await source.athrow(KeyError())]
    assert found == [0, 7, "caught"]
    with pytest.raises(StopAsyncIteration):
        await source.asend(None)
    left: Any = count()
    await left.asend(None)
    await left.aclose()
    failing: Any = count()
    await failing.asend(None)
    with pytest.raises(ValueError, match="thrown"):
        await failing.athrow(ValueError("thrown"))
    assert closed == [True] * 3
    assert ended(manager) == [
        ("generator", 750.0, True, None),
        ("generator", 250.0, True, None),
        ("generator", 250.0, False, "thrown"),
    ]


async def test_one_tracker_in_many_tasks_and_threads(manager: MetricsManager, clock: Clock) -> None:
    tracker = manager.track_operation("test", "shared")
    turn = asyncio.Event()

    async def outer() -> None:
        async with tracker:
            turn.set()
            await asyncio.sleep(0)
            with tracker:
                clock.advance(0.25)

    async def other() -> None:
        await turn.wait()
        with tracker:
            clock.advance(0.5)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    def work() -> None:
        with tracker:
            clock.advance(1.0)

    await asyncio.gather(outer(), other())
    found = sorted(milliseconds for _, milliseconds, _, _ in ended(manager))
    assert found == [250.0, 1000.0, 1500.0, 1750.0]
    assert tracker._open == {}


async def test_blocks_that_overlap_keep_their_own_time(
    manager: MetricsManager, clock: Clock
) -> None:
    tracker = manager.track_operation("test", "shared")
    entered, left = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        with tracker:
            clock.advance(0.25)
            entered.set()
            await asyncio.sleep(0)
        left.set()

    async def second() -> None:
        await entered.wait()
        with tracker:
            await left.wait()
            clock.advance(0.5)

    await asyncio.gather(first(), second())
    assert [milliseconds for _, milliseconds, _, _ in ended(manager)] == [250.0, 500.0]


async def test_an_operation_without_room_is_counted_and_never_raises(tmp_path: Path) -> None:
    for overflow in ("drop", "raise", "block"):
        manager = MetricsManager(tmp_path, 3600.0, 1000, 1, overflow=overflow)
        tracker = manager.track_operation("test", "one")
        with tracker:  # not started yet
            pass
        await manager.start()
        manager.record_operation_nowait("test", "first", 1)
        with tracker:
            pass
        await manager.stop()
        async with tracker:  # stopped
            pass
        stats = await manager.get_stats()
        assert (stats.total_recorded, stats.total_persisted, stats.dropped) == (4, 1, 3), overflow


async def test_an_async_block_waits_for_room(tmp_path: Path, records: Records) -> None:
    async with MetricsManager(tmp_path, 3600.0, 1000, 1, overflow="block") as manager:
        for _ in range(5):
            async with manager.track_operation("test", "one"):
                pass
    assert len(records()) == 5


async def test_a_message_is_sanitized(manager: MetricsManager) -> None:
    before = privacy.cut_messages.value()
    for message in ("x" * 3000, "http://me:word@host/", ""):
        with pytest.raises(RuntimeError), manager.track_operation("test", "one"):
            raise RuntimeError(message)
    assert [message for *_, message in ended(manager)] == [
        "x" * 999 + "…",
        "http://host/",
        "RuntimeError",
    ]
    assert privacy.cut_messages.value() == before + 1


async def test_bad_arguments_are_refused_at_the_definition(manager: MetricsManager) -> None:
    with pytest.raises(TypeError, match="manager must be a MetricsManager"):
        track_operation("folder", "test", "one")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operation_type"):
        manager.track_operation("", "one")
    with pytest.raises(ValueError, match="operation_name"):
        track_operation(manager, "test", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="forbidden"):
        manager.track_operation("test", "one", {"password": 1})
