"""Make the wrapper of a function from a maker, with the function's own parameters and globals.

A wrapper that takes `*args, **kwargs` makes a tuple and a dict in every call, a seventh of what a
measured call costs, and takes wrong arguments until it is awaited or iterated. So the source of
the function that makes wrappers, the maker, is compiled again for each list of parameters, with
these in place of the stars. Names of the maker that are parameters too are changed. What it reads
of its module it closes over, so that the wrapper has the globals of the user's function: what
pickles one by value (dill) copies the globals. The wrapper stays as the maker makes it if the
function is not written in Python, or if the source is not available (a frozen program).
"""

from __future__ import annotations
import __future__

import ast
import builtins
import copy
import functools
import inspect
import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Maker = Callable[..., Callable[..., Any]]


class Parameters(NamedTuple):
    """The names of a function's parameters."""

    positional_only: tuple[str, ...]
    positional: tuple[str, ...]
    star: tuple[str, ...]
    keyword_only: tuple[str, ...]
    two_stars: tuple[str, ...]


def with_signature_of(make: Maker, function: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
    """Return `make(function, *rest)`, with the parameters of `function` if possible.

    Args:
        make: a function of a module, whose one nested function takes `*args, **kwargs` and
            calls `function` with them.
        function: the function to wrap.
        rest: further arguments of `make`.
    """
    wrapper = cast("FunctionType", make(function, *rest))
    if type(function) is FunctionType:
        try:
            compiled = _compiled(make, function)
        except Exception:  # the wrapper keeps its stars
            errors.log_internal_error("giving a wrapper its function's parameters")
        else:
            if compiled is not None:
                made = cast("FunctionType", compiled(function, *rest))
                wrapper = FunctionType(
                    # a copy: the interpreter keeps in it what it found out of one stage's calls
                    made.__code__.replace(),
                    function.__globals__,
                    function.__name__,
                    function.__defaults__,
                    made.__closure__,
                )
                wrapper.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(wrapper, function)


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
    after = end + bool(code.co_flags & inspect.CO_VARARGS)
    last = after + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return Parameters(
        names[:only], names[only:positional], names[end:after], names[positional:end],
        names[after:last],
    )  # fmt: skip


class _Source:
    """The syntax tree of a maker."""

    def __init__(self, maker: ast.FunctionDef, make: FunctionType) -> None:
        self._maker = maker
        self._make = make
        own = {node.id for node in _read_and_set(maker) if isinstance(node.ctx, ast.Store)}
        own |= {argument.arg for argument in maker.args.args}
        own |= {
            node.name
            for node in ast.walk(maker)
            if isinstance(node, ast.ExceptHandler) and node.name
        }
        (wrapper,) = _nested(maker)
        read = {node.id for node in _read_and_set(wrapper)}
        # what it reads of its module and of the builtins
        self._outside: Final = sorted(read - own - {"args", "kwargs"})
        self._taken: Final = own | {*self._outside}

    def compiled(self, parameters: Parameters) -> Maker:
        """Compile the maker with these parameters."""
        maker = copy.deepcopy(self._maker)
        given = set(sum(parameters, ()))
        renamed = {name: _free(name, given | self._taken) for name in given & self._taken}
        _Plainly(parameters, renamed).visit(maker)
        maker.args.kwonlyargs = [ast.arg(renamed.get(name, name)) for name in self._outside]
        maker.args.kw_defaults = [None] * len(self._outside)
        ast.fix_missing_locations(maker)
        code = compile(
            ast.Module([maker], []),
            self._make.__code__.co_filename,
            "exec",
            flags=__future__.annotations.compiler_flag,
            dont_inherit=True,
        )
        made: dict[str, Maker] = {}
        known = self._make.__globals__
        exec(code, known, made)  # noqa: S102 - our own source, with other names
        (found,) = made.values()
        return functools.partial(
            found,
            **{
                renamed.get(name, name): known[name] if name in known else getattr(builtins, name)
                for name in self._outside
            },
        )


class _Plainly(ast.NodeTransformer):
    """Puts parameters in place of the stars, and other names in place of those they have."""

    def __init__(self, parameters: Parameters, renamed: dict[str, str]) -> None:
        self._parameters = parameters
        self._renamed = renamed

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        if node.vararg is None:
            node.args = [ast.arg(self._renamed.get(each.arg, each.arg)) for each in node.args]
            return node
        only, either, star, keyword, stars = (
            [ast.arg(name) for name in names] for names in self._parameters
        )
        return ast.arguments(
            posonlyargs=only,
            args=either,
            vararg=star[0] if star else None,
            kwonlyargs=keyword,
            kw_defaults=[None] * len(keyword),
            kwarg=stars[0] if stars else None,
            defaults=[],
        )

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if any(isinstance(each, ast.Starred) for each in node.args):
            only, either, star, keyword, stars = self._parameters
            node.func = self.visit(node.func)
            node.args = [_read_name(name) for name in (*only, *either)]
            node.args += [ast.Starred(_read_name(name), ast.Load()) for name in star]
            node.keywords = [ast.keyword(name, _read_name(name)) for name in keyword]
            node.keywords += [ast.keyword(None, _read_name(name)) for name in stars]
            return node
        return self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        """Let go of the arguments."""
        if not isinstance(node.targets[0], ast.Name):
            return self.generic_visit(node)  # an item of a list
        names = sum(self._parameters, ())
        return ast.Delete([ast.Name(name, ast.Del()) for name in names]) if names else ast.Pass()

    def visit_Try(self, node: ast.Try) -> ast.AST:
        """Put `try:` into the line of what follows it.

        Python does not guard a line of its own, where a debugger or a tracer may raise.
        """
        ast.copy_location(node, node.body[0])
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._renamed.get(node.id, node.id)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = node.name and self._renamed.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Drop the annotation, which may use a name that is changed."""
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign([node.target], node.value))


def _nested(maker: ast.FunctionDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.walk(maker)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node is not maker
    ]


def _read_and_set(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the names in a tree, without those in annotations, which are not evaluated."""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns"}:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.Name):
                yield each
            elif isinstance(each, ast.AST):
                yield from _read_and_set(each)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _read_name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


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
