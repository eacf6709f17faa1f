"""Define `stage`, `fetch`, `process` and `write`: decorators that are context managers."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union, cast, overload

from otel_pipeline_metrics._core import cardinality, clock, hooks, nesting, privacy, stage_id
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.abandoned import abandon, was_left
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin
from otel_pipeline_metrics._core.process.gc_safety import extras
from otel_pipeline_metrics._core.validation import check_attributes, check_name
from otel_pipeline_metrics._stages import hints, invocation
from otel_pipeline_metrics._stages.execution import NOOP_EXECUTION, Execution, execution_of
from otel_pipeline_metrics._stages.workers.worker import in_task, tasks
from otel_pipeline_metrics._stages.wrappers import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from otel_pipeline_metrics._core.records import AttributeValue
    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._core.stage_id import StageId

    ItemCounter = Callable[[Any], int]


# Quoted, since Python 3.10 cannot subscript classmethod at run time.
F = TypeVar(
    "F", bound=Union["Callable[..., Any]", "classmethod[Any, Any, Any]", "staticmethod[Any, Any]"]
)


class _Given:
    """What `stage(...)` was given, checked, and what its blocks are measured as."""

    __slots__ = ("attributes", "in_task", "in_thread", "items", "kind", "name")

    # what a block is there, once there was one
    in_task: StageId
    in_thread: StageId | None

    def __init__(
        self,
        name: str | None,
        kind: str | None,
        items: ItemCounter | None,
        attributes: Mapping[str, AttributeValue] | None,
    ) -> None:
        self.name = None if name is None else check_name(name, "name")
        self.kind = None if kind is None else check_name(kind, "kind")
        if kind is not None:
            hints.check_kind(kind)
        if items is not None and not callable(items):
            raise TypeError(f"items must be callable or None, not {type(items).__name__}")
        self.items = items
        self.attributes = check_attributes(attributes)
        self.in_thread = None

    def prepare_blocks(self) -> StageId:
        """Set what a block is measured as; return what it is in a thread."""
        name = self.name or self.kind
        if name is None:
            raise TypeError("name is missing: a stage used with `with` has no function's name")
        if self.items is not None:
            raise TypeError("items is for decorators: in a `with` block call add_items()")
        block = stage_id.stage_id(name, self.kind, form="block")
        self.in_task = block.of("task block")
        self.in_thread = block
        if self.name is not None and not self.attributes and len(_blocks) < cardinality.MAX_NAMES:
            _blocks[self.name if self.kind is None else (self.name, self.kind)] = self
        return block


# Of blocks without attributes, by valid name, and kind if there is one: those that follow need not
# check and find the same again.
_blocks: dict[str | tuple[str, str], _Given] = {}


class Stage(AsyncContextMixin):
    """One stage of a pipeline, as `stage(...)` returns it.

    Use it as a decorator on a function, coroutine function, generator function, async
    generator function, method, `classmethod` or `staticmethod`, or with `with` and
    `async with`, which return an `Execution`. It may be entered again, also while open.
    """

    __slots__ = ("_given", "_open", "_others")

    # There is no `__init__`: Python 3.11 needs as long for it as for the rest of a Stage.
    _given: _Given
    # the execution of its block, and those of other blocks that are open at the same time
    _open: Execution | None
    _others: dict[Execution, None] | None

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
        given = self._given
        thread = given.in_thread or given.prepare_blocks()
        # few programs without a loop can have tasks, and the look takes as long as all else here
        stage = given.in_task if (tasks or "trio" in sys.modules) and in_task() else thread
        return self._begin(stage)

    async def __aenter__(self) -> Execution:
        """Open an execution of this stage; nothing is awaited."""
        given = self._given
        if given.in_thread is None:
            given.prepare_blocks()
        # without a look for the task: what runs a coroutine may run others while it awaits
        return self._begin(given.in_task)

    def _begin(self, stage: StageId) -> Execution:  # noqa: C901, PLR0912 - the hot path of blocks
        cell: Any = None
        execution: Any = None
        try:
            parent: Any = _series.active_cell.get()
            if parent is None:
                parent = _series.default_cell
            elif parent[1] is None:
                parent = _series.goes_on(parent)
            while parent[3] is not None and was_left(parent):
                abandon(parent)
                parent = _series.goes_on(parent)
            try:
                series = next(parent[0].turns[stage])
            except hooks.NO_TURN:
                cell = _series.cell_of_due(parent, stage)
                invocation.begin(cell, due=True)
                execution = execution_of(cell)
            else:
                if extras:
                    cell = [series, None, 0.0, None, parent, None, None, None]
                    invocation.begin(cell, due=False)
                    execution = execution_of(cell)
                else:
                    execution = Execution()
                    cell = [series, None, 0.0, execution, parent, None, None, None]
                    execution.cell, execution.series, execution.bare = cell, series, True
                    cell[1] = _series.active_cell.set(cell)
                    began = cell[2] = clock.now()
                    # last, since nothing may come between that and the end
                    if parent[5] is None and not extras:
                        parent[5] = cell
                    else:
                        nesting.enter(cell, began)
            if self._given.attributes:
                self._describe(execution)
            execution.block = self
            if self._open is None:
                self._open = execution
            else:
                self._note(execution)
            opened: Execution = execution
            return opened  # noqa: TRY300 - a signal handler may raise here
        except BaseException as error:
            self._give_up(cell, execution)
            if not isinstance(error, Exception):
                raise
            # an internal error must not stop the stage
            invocation.unmeasured("beginning a stage")
            # its exit must end no block of another thread or task
            self._note(NOOP_EXECUTION)
            return NOOP_EXECUTION

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the execution that this block opened; an error is raised further."""
        execution: Any = None
        try:
            execution = self._open
            if self._others:
                execution = self._own()
            if execution is None:
                return  # one exit too many: the current execution is another stage's
            invocation.end(execution.cell, error)
            execution.block = None
            if execution is self._open:
                self._open = None
            elif self._others:
                self._others.pop(execution, None)
        except BaseException:
            execution = execution or self._open
            if execution is not None:
                self._give_up(execution.cell, execution)
            raise

    def _note(self, execution: Execution) -> None:
        """Keep the execution of one more block."""
        if self._open is None:
            self._open = execution
        else:
            self._others = self._others or {}
            self._others[execution] = None

    def _own(self) -> Execution | None:
        """Return the execution of the block that ends, of several.

        It is the current one, unless another task or context closes it: then the latest is the
        best guess.
        """
        others: Any = self._others
        current = invocation.current_execution()
        return current if current is self._open or current in others else next(reversed(others))

    def _give_up(self, cell: Cell | None, execution: Execution | None) -> None:
        """Forget a block whose begin or end was interrupted."""
        abandon(cell)
        if execution is self._open:
            self._open = None
        elif self._others and execution is not None:
            self._others.pop(execution, None)

    def _describe(self, execution: Execution) -> None:
        # Part of the execution and not of the identity: each block may have other values.
        where = f"stage {execution.cell[0].stage.name!r}"
        for key, value in privacy.drop_forbidden(self._given.attributes, where).items():
            execution.set_attribute(key, value)

    def _decorate(self, function: Any) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self._decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise TypeError(
                f"a stage decorates a function or a method, not {function!r:.80}; "
                "a name is given as a string"
            )
        given = self._given
        name = given.name or check_name(_name_of(function), "name")
        privacy.rules().check(given.attributes, "attributes")
        attributes = privacy.drop_forbidden_at_definition(given.attributes, f"stage {name!r}")
        code = stage_id.code_of(function)
        stage = stage_id.stage_id(name, given.kind, attributes, code=code)
        hints.check_decorated_once(function, stage)
        wrapper = wrap(function, stage, given.items)
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
    made = Stage()
    made._open = made._others = None
    if items is None and attributes is None and type(name) is str:
        if kind is None:
            found = _blocks.get(name)
        else:
            found = _blocks.get((name, kind)) if type(kind) is str else None
        if found is not None:
            made._given = found
            return made
    if name is None or isinstance(name, str):
        made._given = _Given(name, kind, items, attributes)
        return made
    function: object = name
    # a property has `__get__` too: it is refused as what a stage cannot decorate, not as a name
    if not callable(function) and not hasattr(type(function), "__get__"):
        check_name(function, "name")  # raises TypeError
    made._given = _Given(None, kind, items, attributes)
    return made(name)


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
