"""Test that a wrapper has the parameters of its function, and behaves like it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._stages import signature as _signature
from otel_pipeline_metrics._stages import wrappers
from tests.stages.support import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stages.conftest import Results

NAMES = ("a", "b", "c", "self", "batch", "args", "kwargs", "items", "cell", "end", "len", "__x")
"""Some are names that the wrapper uses itself."""
KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Return any signature that Python allows, with defaults that are distinct objects."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), min_size=len(names), max_size=len(names))))
    parameters, defaulted = [], False
    for name, kind in zip(names, kinds, strict=True):
        stars = kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        if stars and any(each.kind == kind for each in parameters):
            continue
        keyword = kind == inspect.Parameter.KEYWORD_ONLY
        has_default = not stars and ((defaulted and not keyword) or draw(st.booleans()))
        defaulted = defaulted or (has_default and not keyword)
        default = f"default of {name}" if has_default else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def function_with(signature: inspect.Signature, kind: str = "def") -> Callable[..., Any]:
    """Return a function that returns its arguments."""
    given_names = ", ".join(f"{name!r}: {name}" for name in signature.parameters)
    made: dict[str, Any] = {}
    exec(f"{kind} told{signature}:\n    return {{{given_names}}}", made)  # noqa: S102 - the point
    function: Callable[..., Any] = made["told"]
    return function


def outcome(function: Callable[..., Any], args: list[int], kwargs: dict[str, int]) -> Any:
    try:
        returned = function(*args, **kwargs)
        return asyncio.run(returned) if inspect.iscoroutine(returned) else returned
    except TypeError as error:
        return str(error)


@given(
    signature=signatures(),
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=3),
    kind=st.sampled_from(["def", "async def"]),
)
def test_a_wrapper_takes_what_the_function_takes(
    signature: inspect.Signature, args: list[int], kwargs: dict[str, int], kind: str
) -> None:
    """With the same result, or the same message about what is wrong with the call."""
    bare = function_with(signature, kind)
    wrapped = stage("told")(function_with(signature, kind))
    assert outcome(bare, args, kwargs) == outcome(wrapped, args, kwargs)
    assert inspect.signature(wrapped) == inspect.signature(bare)


def stars(function: Any) -> bool:
    return bool(function.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def test_a_wrapper_has_stars_only_if_its_function_has() -> None:
    def usual(a: int, /, b: int = 2, *, c: int = 3) -> int:
        return a + b + c

    def starred(*cells: int, **items: int) -> tuple[int, int]:
        return sum(cells), sum(items.values())

    wrapped = stage("w")(usual)
    assert not stars(wrapped)
    assert wrapped(1) == 6
    assert wrapped(1, 1, c=1) == 3
    assert stars(stage("w")(starred))
    assert stage("w")(starred)(1, 2, cells=3, items=4) == (3, 7)


OWN_NAMES = (
    "function", "stage", "items", "internals", "wrapper", "cell", "series", "parent", "returned",
    "error", "now", "len", "Exception", "BaseException", "KeyError", "self", "given", "step",
    "source", "held", "stop", "execution", "suspended", "type", "args", "kwargs", "_function",
)  # fmt: skip


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.parametrize("kind", ["def", "async def", "generator", "async generator"])
def test_a_parameter_may_have_any_name(name: str, kind: str, results: Results) -> None:
    """Also one that the wrapper uses itself, and with its parts failing."""
    made: dict[str, Any] = {}
    does = "return" if kind.endswith("def") else "yield"
    start = "async def" if kind.startswith("async") else "def"
    exec(f"{start} told(fails, *, {name}=1):\n    1 / fails\n    {does} {name}", made)  # noqa: S102
    wrapped = stage("told")(made["told"])
    assert (call(wrapped, 1), call(functools.partial(wrapped, 1, **{name: 2}))) == (1, 2)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call(wrapped, 0)
    assert [r.outcome for r in results.of("told") if r.outcome != "ok"] == ["error"] * 2


def test_the_globals_of_the_program_may_have_any_name(results: Results) -> None:
    """A wrapper has those of its function, and must not read its own names there."""
    names = dict.fromkeys((*OWN_NAMES, "list", "StopIteration", "GeneratorExit"))
    text = "def told(n): return n\ndef steps(n): yield n\nasync def waits(n): return n"
    exec(text, names)  # noqa: S102 - the point
    for name in ("told", "steps", "waits"):
        wrapped = stage(name)(names[name])
        assert wrapped.__globals__ is names
        assert call(wrapped, 3) == 3
        assert len(results.durations(name)) == 1


@pytest.mark.parametrize("given", [(), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("kind", ["def", "async def", "generator", "async generator"])
@pytest.mark.parametrize("way", ["function", "stars", "partial", "instance", "partial of it"])
def test_wrong_arguments_raise_at_the_call(
    kind: str, way: str, given: tuple[int, ...], results: Results
) -> None:
    """And not when a coroutine is awaited or a generator iterated; with the same message."""
    made: dict[str, Any] = {}
    does = "return" if kind.endswith("def") else "yield"
    start = "async def" if kind.startswith("async") else "def"
    extra = ", **more" if way == "stars" else ""
    exec(f"{start} told(a, *, items=1{extra}):\n    {does} a", made)  # noqa: S102
    exec(f"class Made:\n    {start} __call__(self, a, *, items=1):\n        {does} a", made)  # noqa: S102
    bare = {"instance": made["Made"](), "partial of it": functools.partial(made["Made"]())}.get(
        way, functools.partial(made["told"], items=2) if way == "partial" else made["told"]
    )
    messages = []
    for function in (bare, stage("told")(bare)):
        with pytest.raises(TypeError) as caught:
            function(*given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert call(stage("told")(bare), 3) == 3


def test_functions_with_the_same_parameters_share_one_maker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiling takes half a millisecond; a thousand stages pay for it once.

    Each has code of its own, since the interpreter keeps in it what it found out of one stage.
    """
    compiled: list[object] = []
    compile_once = _signature._Source.compiled

    def counted(source: Any, parameters: Any) -> Any:
        compiled.append(parameters)
        return compile_once(source, parameters)

    monkeypatch.setattr(_signature._Source, "compiled", counted)

    def one(shared_maker: Any, size: int = 1) -> Any:
        return shared_maker, size

    def two(shared_maker: Any, size: int = 2) -> Any:
        return shared_maker, size

    wrapped = stage("w")(one), stage("w")(two)
    assert len(compiled) == 1
    assert wrapped[0].__code__ == wrapped[1].__code__
    assert wrapped[0].__code__ is not wrapped[1].__code__
    assert [each(0) for each in wrapped] == [(0, 1), (0, 2)]


def test_what_is_positional_only_stays_so() -> None:
    def only(a: int, /, b: int) -> int:
        return a - b

    wrapped: Any = stage("w")(only)
    assert wrapped(3, b=1) == 2
    with pytest.raises(TypeError, match="positional-only"):
        wrapped(a=3, b=1)


def test_the_stars_own_names_are_free() -> None:
    def named(args: int, kwargs: int) -> int:
        return args - kwargs

    wrapped = stage("w")(named)
    assert not stars(wrapped)
    assert wrapped(3, kwargs=1) == 2


def test_the_source_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_seen(path: str, **how: Any) -> Any:
        opened.append(path)
        return Path(path).open(**how)

    _signature._read.cache_clear()
    monkeypatch.setattr(_signature, "open", open_seen, raising=False)
    monkeypatch.setattr(_signature, "_made", {})
    for shape in (lambda a: a, lambda b: b, lambda a: -a):
        stage("w")(shape)
    assert opened == [wrappers.__file__]


def test_who_comes_in_between_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gc callback that defines a stage in the middle of a compilation must not wait for it."""

    class Taken:
        def acquire(self, *, blocking: bool = True) -> bool:
            assert not blocking
            return False

    def shape(taken_meanwhile: int) -> int:
        return taken_meanwhile

    monkeypatch.setattr(_signature, "_compiling", Taken())
    assert stars(stage("w")(shape))
    monkeypatch.undo()
    assert not stars(stage("w")(shape))


def nothing_to_open(*_: object, **__: object) -> None:
    raise FileNotFoundError


@pytest.mark.parametrize("breaking", ["no source", "a fault"])
def test_stars_are_kept_if_compiling_fails(
    breaking: str, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    def unlike(any_other: int) -> int:
        return any_other

    if breaking == "no source":
        monkeypatch.setattr(_signature, "_read", _signature._read.__wrapped__)
        monkeypatch.setattr(_signature, "open", nothing_to_open, raising=False)
    else:
        monkeypatch.setattr(_signature.errors, "raise_faults", False)
        monkeypatch.setattr(_signature, "_compiled", lambda *_: 1 / 0)
    wrapped = stage("unlike")(unlike)
    assert stars(wrapped)
    assert wrapped(3) == 3
    assert len(results.durations("unlike")) == 1


def test_a_traceback_shows_the_line_of_the_wrapper() -> None:
    @stage("fails")
    def fails(batch: list[int]) -> int:
        return batch[0]

    with pytest.raises(IndexError) as caught:
        fails([])
    frame = traceback.extract_tb(caught.value.__traceback__)[1]
    assert frame.filename == wrappers.__file__
    assert frame.line == "returned = function(*args, **kwargs)"
