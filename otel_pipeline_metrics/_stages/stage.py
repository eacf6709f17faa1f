"""Define `stage`, `fetch`, `process` and `write`: decorators that are context managers."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, Union, cast, overload

from otel_pipeline_metrics._core import cardinality, privacy, stage_id
from otel_pipeline_metrics._core.abandoned import abandon
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin
from otel_pipeline_metrics._core.validation import check_attributes, check_name
from otel_pipeline_metrics._stages import hints, invocation
from otel_pipeline_metrics._stages.workers.worker import in_task, tasks
from otel_pipeline_metrics._stages.wrappers import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from otel_pipeline_metrics._core.records import AttributeValue
    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._stages.execution import Execution

    ItemCounter = Callable[[Any], int]


# Quoted, since Python 3.10 cannot subscript classmethod at run time.
F = TypeVar(
    "F", bound=Union["Callable[..., Any]", "classmethod[Any, Any, Any]", "staticmethod[Any, Any]"]
)


# By valid name and kind, so that a `with` block need not check them again: its stage.
_blocks: dict[tuple[str, str | None], tuple[StageId, StageId]] = {}

_NO_ATTRIBUTES: Final[Mapping[str, AttributeValue]] = {}


class Stage(AsyncContextMixin):
    """One stage of a pipeline, as `stage(...)` returns it.

    Use it as a decorator on a function, coroutine function, generator function, async
    generator function, method, `classmethod` or `staticmethod`, or with `with` and
    `async with`, which return an `Execution`. It may be entered again, also while open.
    """

    __slots__ = ("_attributes", "_id", "_items", "_kind", "_name", "_open", "_others")

    def __init__(
        self,
        name: str | None,
        kind: str | None,
        items: ItemCounter | None,
        attributes: Mapping[str, AttributeValue] | None,
    ) -> None:
        self._items = items
        # the execution of its block, and those of other blocks that are open at the same time
        self._open: Execution | None = None
        self._others: dict[Execution, None] | None = None
        found: tuple[StageId, StageId] | None = None
        if items is None and not attributes and name.__class__ is str:
            found = _blocks.get((name, kind)) if kind is None or kind.__class__ is str else None
        # in a thread, and in a task
        self._id = found
        self._name: str | None
        self._kind: str | None
        if found is not None:
            self._name, self._kind, self._attributes = name, kind, _NO_ATTRIBUTES
            return
        self._name = None if name is None else check_name(name, "name")
        self._kind = None if kind is None else check_name(kind, "kind")
        if kind is not None:
            hints.check_kind(kind)
        if items is not None and not callable(items):
            raise TypeError(f"items must be callable or None, not {type(items).__name__}")
        self._attributes = check_attributes(attributes)

    def __call__(self, function: F) -> F:
        """Return a wrapper of `function` that measures it as this stage.

        Raises:
            TypeError: `function` is not callable, or is a class.
            ValueError: `strict` is in force, and an attribute's key is forbidden.
        """
        return cast("F", self._decorate(function))

    def __enter__(self) -> Execution:
        """Open an execution of this stage.

        Raises:
            TypeError: the stage has neither a name nor a kind.
        """
        thread, task = self._id or self._block_ids()
        # few programs without a loop can have tasks, and the look takes as long as all else here
        stage = task if (tasks or "trio" in sys.modules) and in_task() else thread
        execution: Any = None
        try:
            execution = invocation.begin_block(stage)
            if self._attributes:
                # Part of the execution and not of the identity: each block may have other values.
                where = f"stage {stage.name!r}"
                for key, value in privacy.drop_forbidden(self._attributes, where).items():
                    execution.set_attribute(key, value)
            execution.block = self
            if self._open is None:
                self._open = execution
            else:
                self._others = self._others or {}
                self._others[execution] = None
            opened: Execution = execution
            return opened  # noqa: TRY300 - a signal handler may raise here
        except BaseException:
            self._give_up(execution)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the execution that this block opened; an error is raised further."""
        execution: Any = None
        try:
            execution, others = self._open, self._others
            if others:
                # One Stage may be open in many tasks. The block's own execution is the current
                # one, unless another task or context closes it: then the latest is the best guess.
                current = invocation.current_execution()
                is_own = current is execution or current in others
                execution = current if is_own else next(reversed(others))
            if execution is None:
                return  # one exit too many: the current execution is another stage's
            invocation.end(execution.cell, error)
            execution.block = None
            if execution is self._open:
                self._open = None
            elif others:
                others.pop(execution, None)
        except BaseException:
            self._give_up(execution or self._open)
            raise

    def _give_up(self, execution: Execution | None) -> None:
        if execution is None:
            return
        abandon(execution.cell)
        if execution is self._open:
            self._open = None
        elif self._others:
            self._others.pop(execution, None)

    def _block_ids(self) -> tuple[StageId, StageId]:
        name = self._name or self._kind
        if name is None:
            raise TypeError("name is missing: a stage used with `with` has no function's name")
        if self._items is not None:
            raise TypeError("items is for decorators: in a `with` block call add_items()")
        block = stage_id.stage_id(name, self._kind, form="block")
        found = self._id = block, block.of("task block")
        if self._name is not None and len(_blocks) < cardinality.MAX_NAMES:
            _blocks[self._name, self._kind] = found
        return found

    def _decorate(self, function: Any) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self._decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise TypeError(
                f"a stage decorates a function or a method, not {function!r:.80}; "
                "a name is given as a string"
            )
        name = self._name or check_name(_name_of(function), "name")
        privacy.rules().check(self._attributes, "attributes")
        attributes = privacy.drop_forbidden_at_definition(self._attributes, f"stage {name!r}")
        code = stage_id.code_of(function)
        stage = stage_id.stage_id(name, self._kind, attributes, code=code)
        hints.check_decorated_once(function, stage)
        wrapper = wrap(function, stage, self._items)
        hints.mark(wrapper, stage)
        return wrapper


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


@overload
def stage(name: F, /) -> F: ...


@overload
def stage(
    name: str | None = None,
    *,
    kind: str | None = None,
    items: Callable[[Any], int] | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Stage: ...


def stage(
    name: F | str | None = None,
    *,
    kind: str | None = None,
    items: Callable[[Any], int] | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> F | Stage:
    """Measure a function or a block as one stage of a pipeline.

    Bare (`@stage`), with arguments (`@stage("parse", items=len)`) or as a block
    (`with stage("parse") as s:`, `async with` too).

    Args:
        name: the stage's name, up to 128 characters; the function's name unless given.
        kind: what it does: "fetch", "process", "write" or a word of your own.
        items: counts the items that came out, given the return value, or each value that a
            generator yields. Without it a function's items are unknown, and a generator's
            are the values it yields.
        attributes: set on each span; on metrics only those named in
            `configure(metric_attributes=)`. Keys that may identify a person or reveal a secret
            are left out, or refused where a function is decorated and `strict` is in force.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the name or kind is empty or too long.
    """
    if name is None or isinstance(name, str):
        return Stage(name, kind, items, attributes)
    given: object = name
    if not isinstance(given, (classmethod, staticmethod)) and not callable(given):
        check_name(given, "name")  # raises TypeError
    return Stage(None, kind, items, attributes)(name)


class _KindOfStage(Protocol):
    @overload
    def __call__(self, name: F, /) -> F: ...

    @overload
    def __call__(
        self,
        name: str | None = None,
        *,
        items: Callable[[Any], int] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Stage: ...


def _kind_of_stage(kind: str, doc: str) -> _KindOfStage:
    def of_kind(
        name: F | str | None = None,
        *,
        items: Callable[[Any], int] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> F | Stage:
        return stage(name, kind=kind, items=items, attributes=attributes)  # type: ignore[arg-type]

    of_kind.__name__ = of_kind.__qualname__ = kind
    of_kind.__doc__ = (
        f"{doc}\n\n`stage(..., kind={kind!r})`, with the other arguments of `stage`.\n"
    )
    return cast("_KindOfStage", of_kind)


fetch = _kind_of_stage("fetch", "Measure a stage that gets data into the pipeline.")
process = _kind_of_stage("process", "Measure a stage that transforms data.")
write = _kind_of_stage("write", "Measure a stage that stores data.")


def current_stage() -> Execution:
    """Return the execution of the innermost stage, to count items or record retries.

    Outside a stage the returned object takes every call and keeps nothing.
    """
    return invocation.current_execution()
