"""Give a wrapper the parameters of the function that it wraps.

A wrapper that takes `*args, **kwargs` makes a tuple and a dict in every call, a seventh of what a
measured call costs. So the source of the function that makes wrappers, the maker, is compiled
again for each list of parameters, with these in place of the stars. The wrapper keeps its stars if
the function takes stars itself or is not written in Python, if a parameter has a name that the
wrapper uses, or if the source is not available (a frozen program).
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[..., Callable[..., Any]]
    # names: positional only, positional or keyword, keyword only
    Parameters = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


_STARS: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def with_signature_of(make: Maker, function: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
    """Return `make(function, *rest)`, with the parameters of `function` if possible.

    Args:
        make: a function of a module, whose one nested function takes `*args, **kwargs` and
            calls `function` with them.
        function: the function to wrap.
        rest: further arguments of `make`.
    """
    if type(function) is FunctionType and not function.__code__.co_flags & _STARS:
        try:
            compiled = _compiled(make, function)
        except Exception:  # the wrapper keeps its stars
            errors.log_internal_error("giving a wrapper its function's parameters")
        else:
            if compiled is not None:
                wrapper = cast("FunctionType", compiled(function, *rest))
                wrapper.__defaults__ = function.__defaults__
                wrapper.__kwdefaults__ = function.__kwdefaults__
                return wrapper
    return make(function, *rest)


_made: dict[tuple[Maker, Parameters], Maker | None] = {}
_compiling = threading.Lock()


def _compiled(make: Maker, function: FunctionType) -> Maker | None:
    key = (make, _parameters(function))
    # without waiting: a thread or gc callback that comes in between gets a wrapper with stars
    if key not in _made and _compiling.acquire(blocking=False):
        try:
            source = _read(make)
            _made[key] = None if source is None else source.compiled(key[1])
        finally:
            _compiling.release()
    return _made.get(key)


def _parameters(function: FunctionType) -> Parameters:
    code = function.__code__
    only, positional = code.co_posonlyargcount, code.co_argcount
    end = positional + code.co_kwonlyargcount
    names = code.co_varnames
    return names[:only], names[only:positional], names[positional:end]


class _Source:
    """The syntax tree of a maker, and the two nodes in it that name the parameters."""

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
        """Compile the maker with these parameters; None if it uses one of their names."""
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


@functools.cache
def _read(make: Any) -> _Source | None:
    try:
        # without pathlib, whose import takes a tenth of the time that importing this package takes
        with open(make.__code__.co_filename, encoding="utf-8") as file:  # noqa: PTH123 - see there
            module = ast.parse(file.read())
    except OSError:
        return None
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == make.__name__:
            return _Source(node, make)
    return None
