"""Random programs of nested, concurrent, generating and queueing stages."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

Ops = tuple["Op", ...]


class Op(NamedTuple):
    """One operation; where nothing can be awaited, the nearest that can be done at once."""

    kind: str
    name: str = ""
    seconds: float = 0.0
    inside: tuple[Ops, ...] = ()
    cancelled_after: float | None = None


class Program(NamedTuple):
    """The operations of the first workers, and the bodies of generators between their yields."""

    workers: tuple[Ops, ...]
    generators: tuple[tuple[Ops, ...], ...]
    ends_after: float


# eighths add up exactly in any order
seconds = st.integers(0, 12).map(lambda n: n / 8)
_later = st.one_of(st.none(), st.none(), st.integers(0, 40).map(lambda n: n / 8))

# of two slots in three, the generators are of one stage
GENERATORS = 6
_slots = st.sampled_from([str(n) for n in range(GENERATORS)])
_taking_time = st.tuples(st.sampled_from(["compute", "sleep", "sleep"]), st.just(""), seconds)
_pulling = st.tuples(st.sampled_from(["pull", "pull", "pull many", "close"]), _slots)
_waits = st.one_of(
    st.tuples(st.sampled_from(["get", "put"]), st.sampled_from(["q0", "q1"])),
    st.tuples(st.sampled_from(["waiting", "waiting idle"]), st.just(""), seconds),
)
_rarely = st.tuples(st.sampled_from(["raise", "report"]))
_calls = [
    ("coroutine", "c0"),
    ("coroutine", "c1"),
    ("coroutine", "c2"),
    ("function", "f0"),
    ("function", "f1"),
    ("block", "b0"),
    ("coroutine", "m"),
    ("function", "m"),
    ("block", "m"),
]


def programs(*, waits: bool) -> st.SearchStrategy[Program]:
    """Return programs, with or without known waits."""
    simple = [_taking_time, _taking_time, _pulling, _rarely]
    if waits:
        simple += [_waits, _waits]
    leaf = st.one_of(*simple).map(lambda parts: Op(*parts))

    def larger(ops: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
        some = st.lists(ops, max_size=4).map(tuple)
        several = st.lists(some, min_size=1, max_size=3).map(tuple)
        call = st.builds(
            lambda call, inside: Op(call[0], call[1], inside=(inside,)),
            st.sampled_from(_calls),
            some,
        )
        together = st.builds(
            lambda kind, inside, later: Op(kind, inside=inside, cancelled_after=later),
            st.sampled_from(["gather", "spawn", "group"]),
            several,
            _later,
        )
        # a task that goes on while its stage awaits, and after it
        outliving = st.builds(
            lambda inside, before, after: Op(
                "coroutine",
                "c0",
                inside=((Op("spawn", inside=(inside,)), Op("sleep", "", before), *after),),
            ),
            some,
            seconds,
            some,
        )
        return st.one_of(call, call, call, together, together, outliving)

    ops = st.recursive(leaf, larger, max_leaves=8)
    some = st.lists(ops, min_size=1, max_size=4).map(tuple)
    if waits:
        # workers that get, call stages one after the other, and put
        wait = _waits.map(lambda parts: Op(*parts))
        moves = st.tuples(wait, leaf, ops, wait, ops)
        some = st.one_of(some, st.lists(moves, min_size=1, max_size=2).map(_flat))
    body = st.lists(st.lists(ops, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple)
    return st.builds(
        Program,
        st.lists(some, min_size=1, max_size=3).map(tuple),
        st.tuples(*[body] * GENERATORS),
        st.integers(8, 160).map(lambda n: n / 8),
    )


def _flat(several: list[Ops]) -> Ops:
    return tuple(op for ops in several for op in ops)
