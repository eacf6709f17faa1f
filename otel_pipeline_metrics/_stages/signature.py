"""Gives a wrapper the parameters of the function that it wraps.

A wrapper that takes `*args, **kwargs` makes a tuple and a dict in every call, a seventh of what a
measured call costs. So the maker of wrappers, as it stands in its source, is compiled once more
for each list of parameters, with these in the place of the stars. The wrapper keeps its stars
where that cannot be: the function takes stars itself or is not written in Python, one of its
parameters has a name that the wrapper uses, or the source is not there (a frozen program).
"""

from __future__ import annotations
import __future__

import ast
import inspect
import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[..., Callable[..., Any]]


_STARS: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


class Parameters(NamedTuple):
    """Names of parameters by kind."""

    positional_only: tuple[str, ...]
    either: tuple[str, ...]
    keyword_only: tuple[str, ...]


def with_signature_of(make: Maker, function: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
    """Return what `make(function, *rest)` does, with the parameters of `function` if possible.

    Args:
        make: a function of a module, whose one nested function takes `*args, **kwargs` and
            calls `function` with them.
        function: what is wrapped.
        rest: further arguments of `make`.
    """
    try:
        fitting = _fitting(make, function)
    except Exception:  # it is wrapped with stars
        errors.log_internal_error("fitting a wrapper")
        fitting = None
    if fitting is None or not isinstance(function, FunctionType):
        return make(function, *rest)
    wrapper: Any = fitting(function, *rest)
    wrapper.__defaults__ = function.__defaults__
    wrapper.__kwdefaults__ = function.__kwdefaults__
    fitted: Callable[..., Any] = wrapper
    return fitted


_sources: dict[Maker, _Source | None] = {}
_made: dict[tuple[Maker, Parameters], Maker | None] = {}
_compiling = threading.Lock()


def _fitting(make: Maker, function: object) -> Maker | None:
    if type(function) is not FunctionType or function.__code__.co_flags & _STARS:
        return None
    key = (make, _parameters(function))
    # whoever comes in between, as a gc callback may, does without
    if key not in _made and _compiling.acquire(blocking=False):
        try:
            if make not in _sources:
                _sources[make] = _read(make)
            source = _sources[make]
            _made[key] = None if source is None else source.compiled(key[1])
        finally:
            _compiling.release()
    return _made.get(key)


def _parameters(function: FunctionType) -> Parameters:
    code = function.__code__
    only, positional = code.co_posonlyargcount, code.co_argcount
    end = positional + code.co_kwonlyargcount
    names = code.co_varnames
    return Parameters(names[:only], names[only:positional], names[positional:end])


class _Source:
    """The syntax tree of a maker, and the two places in it that tell the parameters."""

    def __init__(self, maker: ast.FunctionDef, make: FunctionType) -> None:
        self._maker = maker
        self._make = make
        nodes = list(ast.walk(maker))
        (self._wrapper,) = (
            node
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node is not maker
        )
        (self._call,) = (
            node
            for node in nodes
            if isinstance(node, ast.Call) and any(isinstance(a, ast.Starred) for a in node.args)
        )
        self._taken = {node.id for node in nodes if isinstance(node, ast.Name)} - {"args", "kwargs"}

    def compiled(self, parameters: Parameters) -> Maker | None:
        """Return the maker of wrappers with these parameters; None where a name is taken."""
        if self._taken.intersection(*[sum(parameters, ())]):
            return None
        only, either, keyword = ([ast.arg(name) for name in names] for names in parameters)
        self._wrapper.args = ast.arguments(
            posonlyargs=only,
            args=either,
            vararg=None,
            kwonlyargs=keyword,
            kw_defaults=[None] * len(keyword),
            kwarg=None,
            defaults=[],
        )
        self._call.args = [_read_name(argument) for argument in (*only, *either)]
        self._call.keywords = [ast.keyword(each.arg, _read_name(each)) for each in keyword]
        ast.fix_missing_locations(self._maker)
        code = compile(
            ast.Module([self._maker], []),
            self._make.__code__.co_filename,
            "exec",
            flags=__future__.annotations.compiler_flag,
            dont_inherit=True,
        )
        made: dict[str, Maker] = {}
        exec(code, self._make.__globals__, made)  # noqa: S102 - our own source, with other names
        return made[self._maker.name]


def _read_name(argument: ast.arg) -> ast.Name:
    return ast.Name(argument.arg, ast.Load())


def _read(make: Any) -> _Source | None:
    try:
        # not by pathlib, which takes as long to import as a tenth of all that is imported here
        with open(make.__code__.co_filename, encoding="utf-8") as file:  # noqa: PTH123 - as said
            module = ast.parse(file.read())
    except OSError:
        return None
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == make.__name__:
            return _Source(node, make)
    return None
