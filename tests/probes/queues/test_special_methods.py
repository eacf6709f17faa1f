"""Test that Python's operators find the methods of what is wrapped."""

from __future__ import annotations

import asyncio
import contextlib
import queue as thread_queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.limits.registry import limits
from tests.probes.queues.support import play, queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


class Operators:
    """Has special methods of every sort."""

    content: Any

    def __add__(self, other: object) -> Any:
        return ("add", other)

    def __iadd__(self, other: object) -> Any:
        self.content.append(other)
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return ("call", args, kwargs)

    def __setitem__(self, key: object, value: object) -> None:
        self.content.append((key, value))

    def __delitem__(self, key: object) -> None:
        self.content.remove(key)

    def __getitem__(self, key: int) -> Any:
        return self.content[key]

    def __len__(self) -> int:
        return len(self.content)

    def __bool__(self) -> bool:
        return False

    def __reversed__(self) -> Any:
        return reversed(list(self.content))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operators) and self.content == other.content

    def __hash__(self) -> int:
        return 7

    def __str__(self) -> str:
        return "as text"

    def __format__(self, spec: str) -> str:
        return f"as {spec}"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Own(Operators):
    def __init__(self) -> None:
        self.content = []

    def put(self, item: object) -> None:
        self.content.append(item)

    def get(self) -> Any:
        return self.content.pop(0)


class OfThreads(Operators, thread_queue.Queue):  # type: ignore[type-arg]
    @property
    def content(self) -> Any:
        return self.queue


class OfTasks(Operators, asyncio.Queue):  # type: ignore[type-arg]
    @property
    def content(self) -> Any:
        return self._queue  # type: ignore[attr-defined]


class Threads(Operators, threading.Semaphore):
    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self.content = []


class Tasks(Operators, asyncio.Semaphore):  # type: ignore[misc]
    __aenter__ = asyncio.Semaphore.__aenter__
    __aexit__ = asyncio.Semaphore.__aexit__

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self.content = []


class Pool(Operators):
    def __init__(self) -> None:
        self.content = []

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def wrapped(made: Any) -> Any:
    if hasattr(made, "put"):
        return opm.wrap_queue(made, name="q")
    return opm.wrap_limit(made, name="q")


@pytest.mark.parametrize("make", [Own, OfThreads, OfTasks, Threads, Tasks, Pool])
def test_operators_are_those_of_what_is_wrapped(make: Callable[[], Any]) -> None:
    raw = make()
    q = same = wrapped(raw)
    q += "a"
    assert q is same
    q["k"] = "v"
    assert (len(q), q[0], list(reversed(q))) == (2, "a", [("k", "v"), "a"])
    del q["a"]
    assert list(raw.content) == [("k", "v")]
    assert (q + 1, q(1, two=2), bool(q)) == (("add", 1), ("call", (1,), {"two": 2}), False)
    assert (q == raw, raw == q, q == make(), hash(q)) == (True, True, False, 7)
    assert (str(q), f"{q:text}") == ("as text", "as text")


@pytest.mark.parametrize("base", [Own, OfThreads, OfTasks, Threads, Tasks, Pool])
def test_what_goes_by_identity_is_equal_to_itself(base: Any) -> None:
    class ByIdentity(base):  # type: ignore[misc]
        def __eq__(self, other: object) -> bool:
            return self is other

        def __ne__(self, other: object) -> bool:
            return self is not other

        __hash__ = object.__hash__

    raw = ByIdentity()
    q = wrapped(raw)
    assert (q == q, q != q, q == raw, q == ByIdentity()) == (True, False, True, False)  # noqa: PLR0124
    assert hash(q) == hash(raw)
    assert {q: "found"}[raw] == "found"


class Hides(type):
    """Tells none of the names of its classes, and has one of its own."""

    @property
    def __config__(cls) -> object:
        raise RuntimeError("deprecated")

    def __dir__(cls) -> list[str]:
        raise RuntimeError("nobody asks for these")


class Refuses:
    """Cannot be read from the class."""

    def __get__(self, thing: object, _: object) -> object:
        if thing is None:
            raise RuntimeError("nobody reads this")
        return 5


@pytest.mark.parametrize("base", [Own, OfThreads, OfTasks, Threads, Tasks, Pool])
def test_classes_may_be_unusual(base: Any) -> None:
    class Unusual(base, metaclass=Hides):  # type: ignore[misc]
        attribute = Refuses()
        __config__ = 6
        __error__ = KeyError

    q = wrapped(Unusual())
    assert (q.attribute, q.__config__, q.__error__, q + 1) == (5, 6, KeyError, ("add", 1))


@pytest.mark.parametrize("make", [Own, OfThreads, OfTasks])
def test_a_block_of_the_queue_has_the_wrapped_one(make: Callable[[], Any], clock: Clock) -> None:
    async def entered() -> Any:
        async with q as found:
            return found

    q = wrapped(make())
    with q as found:
        assert found is q
    assert play(clock, entered()) is q


def test_what_has_no_hash_still_has_none() -> None:
    class Unhashable(Own):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="unhashable"):
        hash(wrapped(Unhashable()))


def test_a_subclass_that_adds_operators_only_is_a_limit_of_threads(
    make_run: Callable[[], opm.Run],
) -> None:
    class Counting(threading.Semaphore):
        def __len__(self) -> int:
            return self._value  # type: ignore[attr-defined,no-any-return]

    one, two = (opm.wrap_limit(Counting(2), name="permits") for _ in range(2))
    with make_run() as run, one:
        assert (len(one), len(two)) == (1, 2)
    (limit,) = run.report.limits
    assert (limit["kind"], limit["acquired"], limit["wait_s"]["total"]) == ("semaphore", 1, 0.0)


def test_an_item_got_in_a_block_is_counted(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run, wrapped(Own()) as q:
        q.put(1)
        clock.advance(1)
        assert q.get() == 1
    assert (queue_of(run, "q")["got"], queue_of(run, "q")["wait_s"]["max"]) == (1, 1.0)


# --- limits that decorate functions --------------------------------------------------------------


class Rate(contextlib.ContextDecorator, contextlib.AsyncContextDecorator):
    """Can be entered again and again; takes a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __enter__(self) -> Any:
        self.clock.advance(1)
        return self

    def __exit__(self, *error: object) -> bool:
        return error[0] is KeyError


def of_class(clock: Clock) -> Any:
    return Rate(clock)


def of_generator(clock: Clock) -> Any:
    @contextlib.contextmanager
    def connection() -> Any:
        clock.advance(1)
        with contextlib.suppress(KeyError):
            yield

    return connection()


@pytest.mark.parametrize("make", [of_class, of_generator])
def test_a_limit_that_decorates_a_function_is_passed_by_each_call(
    make: Callable[[Clock], Any], clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.wrap_limit(make(clock), name="rate", limit=1)
    def request(number: int) -> int:
        clock.advance(2)
        # what can be entered again is not wrapped anew
        assert limits.number("rate") == 1 or make is of_generator
        if not number:
            raise KeyError
        return number

    with make_run() as run:
        found = [request(7), request(8), request(0)]
    assert (found, request.__name__) == ([7, 8, None], "request")
    (limit,) = run.report.limits
    assert (limit["acquired"], limit["wait_s"]["total"], limit["usage_avg"]) == (3, 3.0, 6.0 / 9.0)


def test_an_asynchronous_limit_decorates_a_coroutine_function(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @contextlib.asynccontextmanager
    async def connection() -> Any:
        await asyncio.sleep(1)
        yield

    @opm.wrap_limit(connection(), name="rate", limit=1)
    async def request(number: int) -> int:
        await asyncio.sleep(2)
        return number

    async def main() -> list[int]:
        return [await request(7), await request(8)]

    with make_run() as run:
        assert play(clock, main()) == [7, 8]
    (limit,) = run.report.limits
    assert (limit["acquired"], limit["wait_s"]["total"], limit["usage_avg"]) == (2, 2.0, 4.0 / 6.0)


class OnlyOfObjects:
    """A descriptor that a class has not, but its objects."""

    def __get__(self, instance: object, owner: object) -> str:
        if instance is None:
            raise LookupError
        return "of the object"


def test_a_descriptor_that_refuses_the_class_is_no_method() -> None:
    class Own(deque):  # type: ignore[type-arg]
        __described__ = OnlyOfObjects()
        put = deque.append
        get = deque.popleft

    q: Any = opm.wrap_queue(Own(), name="q")
    assert q.__described__ == "of the object"
    q.put(1)
    assert q.get() == 1
