"""Define what hypothesis makes for these tests."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


class OwnError(Exception):
    """Raised by a scripted generator itself."""


class Turn:
    """Gives its driver one turn when awaited, like a future that is not done yet."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Step(NamedTuple):
    """One `yield` of a scripted generator, and its reaction to a thrown exception."""

    value: int
    catches: tuple[type[BaseException], ...]
    reaction: str


class Operation(NamedTuple):
    """One thing that a consumer does to a generator."""

    name: str
    argument: Any = None


THROWN: tuple[type[BaseException], ...] = (
    KeyError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    KeyboardInterrupt,
)

steps = st.builds(
    Step,
    value=st.integers(0, 9),
    catches=st.lists(st.sampled_from(THROWN), max_size=5, unique=True).map(tuple),
    reaction=st.sampled_from(["go on", "return", "raise", "raise again", "stop"]),
)
scripts = st.lists(steps, min_size=1, max_size=4)
endings = st.sampled_from(["return", "raise", "stop"])

_operation = st.one_of(
    st.just(Operation("next")),
    st.builds(Operation, st.just("send"), st.one_of(st.none(), st.integers(0, 9))),
    st.builds(Operation, st.just("throw"), st.sampled_from(THROWN)),
    st.just(Operation("close")),
)
operations = st.builds(
    # most generators are started before anything is done to them
    lambda started, more: [Operation("next")] * started + more,
    st.sampled_from([1, 1, 1, 2, 0]),
    st.lists(_operation, max_size=6),
)


class Call(NamedTuple):
    """One call of a stage, or one look at what has finished."""

    # "ok", "error", "cancelled", or "drain" for the look.
    outcome: str
    seconds: float = 0.0
    items: int | None = None


calls = st.lists(
    st.one_of(
        st.just(Call("drain")),
        st.builds(
            Call,
            outcome=st.sampled_from(["ok", "error", "cancelled"]),
            # eighths add up exactly, in any order
            seconds=st.integers(0, 800).map(lambda n: n / 8),
            items=st.one_of(st.none(), st.integers(0, 1000)),
        ),
    ),
    max_size=40,
)


def scripted(script: list[Step], ending: str) -> Callable[[], Generator[Any, Any, Any]]:
    """Return a generator function that acts as the script says."""

    def source() -> Generator[Any, Any, Any]:
        seen: list[Any] = []
        for step in script:
            try:
                seen.append((yield step.value))
            except step.catches as error:
                seen.append(type(error).__name__)
                if step.reaction == "return":
                    return tuple(seen)
                _react(step.reaction)
                if step.reaction == "raise again":
                    raise
            finally:
                seen.append("left")
        _react(ending)
        return tuple(seen)

    return source


def scripted_async(script: list[Step], ending: str) -> Callable[[], AsyncGenerator[Any, Any]]:
    """Return an async generator function that acts as the script says, awaiting at times."""

    async def source() -> AsyncGenerator[Any, Any]:
        seen: list[Any] = []
        for step in script:
            await Turn()
            try:
                seen.append((yield (step.value, tuple(seen))))
            except step.catches as error:
                seen.append(type(error).__name__)
                if step.reaction == "return":
                    return
                _react(step.reaction)
                if step.reaction == "raise again":
                    raise
            finally:
                await Turn()
        _react(ending)

    return source


def _react(reaction: str) -> None:
    if reaction == "raise":
        raise OwnError("on purpose")
    if reaction == "stop":
        # not allowed to leave a generator: it becomes a RuntimeError, decorated or not
        raise StopIteration("from inside")


# --- what is recorded, and who reads it -----------------------------------------------------------

# Boundaries of the explicit buckets that the readers below have.
EDGES = (1e-4, 0.005, 0.5, 1.0, 10.0, 600.0)


class Recorded(NamedTuple):
    """Durations of one batch of one stage; the first `shown` of them have a sampled span."""

    stage: str
    durations: list[float]
    shown: int = 0


class Read(NamedTuple):
    """A collection by one of the readers."""

    reader: int


def _near(edge: float) -> st.SearchStrategy[float]:
    """Return values at a bucket's bounds: it holds its upper bound, but nothing above."""
    return st.sampled_from([math.nextafter(edge, 0), edge, math.nextafter(edge, math.inf)])


durations = st.one_of(
    st.sampled_from([0.0, 5e-324, sys.float_info.min, 1e100]),
    st.sampled_from(EDGES).flatmap(_near),
    st.floats(1e-6, 1e4),
    st.floats(0, 1e100),
    # powers of two are the edges of exponential buckets
    st.integers(-40, 40).map(lambda n: 2.0**n),
)
_recorded = st.builds(
    Recorded,
    stage=st.sampled_from(["a", "b"]),
    # more than explicit buckets have bounds, as those are counted in another way
    durations=st.one_of(
        st.lists(durations, min_size=1, max_size=30),
        st.lists(durations, min_size=40, max_size=60),
    ),
    shown=st.sampled_from([0, 0, 1, 3]),
)
recordings = st.lists(
    st.one_of(_recorded, _recorded, st.builds(Read, st.integers(0, 2))), max_size=10
)
