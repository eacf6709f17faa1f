"""Test that a stand-in behaves like the object that it stands in for."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import threading
import warnings
from typing import Any

import anyio
import pytest

import otel_pipeline_metrics as opm

MAKERS = [
    threading.Lock,
    threading.RLock,
    threading.Condition,
    lambda: threading.Semaphore(2),
    lambda: threading.BoundedSemaphore(2),
    asyncio.Lock,
    asyncio.Condition,
    lambda: asyncio.Semaphore(2),
    lambda: asyncio.BoundedSemaphore(2),
    lambda: anyio.CapacityLimiter(2),
    lambda: anyio.Semaphore(2),
]


def fails() -> None:
    raise KeyError("mine")


async def pair(make: Any) -> tuple[Any, Any]:
    """Return a bare object and a wrapped one; some need an event loop."""
    return make(), opm.wrap_limit(make(), name="x")


@pytest.mark.parametrize("make", MAKERS)
async def test_its_class_and_attributes_are_those_of_the_wrapped_object(make: Any) -> None:
    bare, limit = await pair(make)
    assert isinstance(limit, type(bare))
    assert limit.__class__ is type(bare)
    assert dir(limit) == dir(bare)
    # before Python 3.12 only asyncio knows the mark
    is_coroutine = asyncio.iscoroutinefunction
    for name in dir(bare):
        if not name.startswith("__"):
            one, other = getattr(bare, name), getattr(limit, name)
            assert callable(one) == callable(other), name
            assert is_coroutine(one) == is_coroutine(other), name
    assert hasattr(type(limit), "__enter__") == hasattr(type(bare), "__enter__")
    assert hasattr(type(limit), "__aenter__") == hasattr(type(bare), "__aenter__")
    assert repr(limit).startswith("<instrumented 'x' <")
    assert bool(limit) is True


@pytest.mark.parametrize("make", MAKERS)
async def test_what_a_block_gives_and_lets_through(make: Any) -> None:
    bare, limit = await pair(make)

    async def outcomes(one: Any) -> list[object]:
        found: list[object] = []
        try:
            if hasattr(type(one), "__enter__"):
                with one as got:
                    found.append("itself" if got is one else got)
                    fails()
            async with one as got:
                found.append("itself" if got is one else got)
                fails()
        except KeyError as error:
            found.append(error.args)
        taken = one.acquire()
        found += [await taken if inspect.isawaitable(taken) else taken, one.release()]
        return found

    assert await outcomes(limit) == await outcomes(bare)


@pytest.mark.parametrize("make", MAKERS)
async def test_releasing_what_is_not_held_is_the_same_error(make: Any) -> None:
    bare, limit = await pair(make)
    for one in (bare, limit):
        if isinstance(one, (threading.Semaphore, asyncio.Semaphore, anyio.Semaphore)) and not (
            isinstance(one, (threading.BoundedSemaphore, asyncio.BoundedSemaphore))
        ):
            one.release()
        else:
            with pytest.raises((RuntimeError, ValueError)):
                one.release()


@pytest.mark.parametrize("make", [asyncio.Lock, lambda: asyncio.Semaphore(2)])
async def test_a_method_of_the_object_itself_is_called(make: Any) -> None:
    bare = make()
    acquire, called = bare.acquire, []

    async def own() -> Any:
        called.append(1)
        return await acquire()

    bare.acquire = own
    limit = opm.wrap_limit(bare, name="x")
    assert await limit.acquire() is True
    assert called == [1]


def test_a_method_of_the_condition_itself_is_called() -> None:
    bare: Any = threading.Condition()
    acquire, called = bare.acquire, []
    bare.acquire = lambda *given: called.append(given) or acquire(*given)
    limit = opm.wrap_limit(bare, name="x")
    assert limit.acquire() is True
    assert called == [(False,)]
    limit.release()


def test_attributes_may_be_set_and_deleted() -> None:
    semaphore: Any = opm.wrap_limit(threading.Semaphore(2), name="x")
    semaphore.label = "mine"
    assert semaphore._opm_queue.label == "mine"
    del semaphore.label
    assert not hasattr(semaphore, "label")


@pytest.mark.parametrize("make", MAKERS)
async def test_an_exit_stack_enters_it_through_its_class(make: Any) -> None:
    _, limit = await pair(make)
    assert isinstance(
        limit, (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager)
    )
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(type(limit), "__enter__"):
            stack.enter_context(limit)
        else:
            await stack.enter_async_context(limit)
    # it is free again
    taken = limit.acquire()
    assert (await taken if inspect.isawaitable(taken) else taken) in {True, None}
    limit.release()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_lock_of_c_has_no_attributes_of_its_own(make: Any) -> None:
    limit = opm.wrap_limit(make(), name="x")
    with pytest.raises(AttributeError):
        limit.label = "mine"
    with pytest.raises(AttributeError):
        limit.label  # noqa: B018 - reading it is the test
    with pytest.raises(TypeError):
        limit.release(1)
    for name in dir(limit):
        assert hasattr(limit, name), name


def test_a_copy_is_as_good_as_the_bare_one() -> None:
    with pytest.raises(TypeError):
        copy.deepcopy(opm.wrap_limit(threading.Lock(), name="x"))


async def test_an_acquire_that_is_never_run_warns_once() -> None:
    limit = opm.wrap_limit(asyncio.Lock(), name="x")
    task = asyncio.ensure_future(limit.acquire())
    task.cancel()  # before its first step
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not limit.locked()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_thrown_into_a_wait_comes_out(error: type[BaseException]) -> None:
    limit = opm.wrap_limit(asyncio.Lock(), name="x")
    async with limit:
        waits = limit.acquire()
        waits.send(None)
        with pytest.raises(error):
            waits.throw(error())
    async with limit:
        pass


async def test_a_wait_that_is_closed_holds_nothing() -> None:
    limit = opm.wrap_limit(asyncio.Semaphore(1), name="x")
    async with limit:
        waits = limit.acquire()
        waits.send(None)
        waits.close()
    assert not limit.locked()
