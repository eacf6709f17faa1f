"""Identify a stage: its name, kind and attributes, and the form in which it is used."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.cleaning import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue


# What is known of a call's time depends on it: a call runs until it ends, a coroutine awaits in
# between, and of a block in a task it is unknown. "by hand" was measured by the program.
# A step is a call of `__next__`, which raises at the end of its iteration.
Form = Literal[
    "call", "coroutine", "step", "async step", "generator", "async generator", "block",
    "task block", "by hand",
]  # fmt: skip

# Forms of stages all of whose time runs.
RUNS: Final = frozenset({"call", "step", "generator", "block"})


class Code(NamedTuple):
    """Where a decorated function is defined."""

    # its module and qualified name
    function: str
    # unknown without Python code
    file: str | None
    line: int | None


def code_of(function: Any) -> Code:
    """Return where a function is defined, inside of its decorators."""
    while isinstance(function, functools.partial):
        function = function.func
    with contextlib.suppress(ValueError):  # a circle of decorators
        function = inspect.unwrap(function)
    if not isinstance(getattr(function, "__qualname__", None), str):
        function = type(function).__call__
    name, module = function.__qualname__, getattr(function, "__module__", None)
    code = getattr(function, "__code__", None)
    file = getattr(code, "co_filename", None)
    return Code(
        clean_text(f"{module}.{name}" if isinstance(module, str) else name),
        clean_text(file) if isinstance(file, str) else None,
        getattr(code, "co_firstlineno", None),
    )


class StageId:
    """Identity of a stage: name, kind, fixed attributes and form; equal ones are one object."""

    __slots__ = ("attributes", "code", "form", "identity", "kind", "name")

    def __init__(
        self,
        name: str,
        kind: str | None,
        attributes: dict[str, AttributeValue],
        form: Form,
        code: Code | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes  # shared by all forms
        self.form: Form = form
        # of the decorated function; functions of one name are one stage
        self.code = code
        # the same for every form and function of one stage
        self.identity: Hashable = (name, kind, repr(sorted(attributes.items())))

    def of(self, form: Form) -> StageId:
        """Return the same stage in another form."""
        return self if form == self.form else self._variant(form, self.code)

    def at(self, code: Code | None) -> StageId:
        """Return the same stage of another function, unless there are very many."""
        if code == self.code or len(_forms) >= _MAX_VARIANTS:
            return self
        return self._variant(self.form, code)

    def _variant(self, form: Form, code: Code | None) -> StageId:
        key = self.identity, form, code
        return _forms.get(key) or _forms.setdefault(
            key, StageId(self.name, self.kind, self.attributes, form, code)
        )

    def __reduce__(self) -> tuple[Callable[..., StageId], tuple[Any, ...]]:
        """Pickle as a call of `stage_id`, which keeps equal ones one object."""
        return stage_id, (self.name, self.kind, dict(self.attributes), self.form, self.code)


_stage_ids: dict[Hashable, StageId] = {}

# Those with fixed attributes have a limit of their own, so that they leave room for mere names.
_described: dict[Hashable, StageId] = {}

# All of them in other forms than "call", and of functions.
_forms: dict[Hashable, StageId] = {}
_MAX_VARIANTS: Final = 10 * cardinality.MAX_NAMES


def stage_id(
    name: str,
    kind: str | None,
    attributes: Mapping[str, AttributeValue] | None = None,
    form: Form = "call",
    code: Code | None = None,
) -> StageId:
    """Return the one `StageId` with this name, kind, attributes, form and function.

    There are `MAX_NAMES` of them at most in each form. Above that, one with attributes loses them,
    and one without becomes the stage `_OTHER`.
    """
    known, key = _stage_ids, (name, kind, "")
    if attributes:
        known, key = _described, (name, kind, repr(sorted(attributes.items())))
    found = known.get(key)
    if found is not None:
        return found.of(form).at(code)
    if len(known) < cardinality.MAX_NAMES:
        made = StageId(name, kind, dict(attributes or {}), "call")
        return known.setdefault(key, made).of(form).at(code)
    if attributes:
        cardinality.overflow("sets of fixed attributes of stages", cardinality.MAX_NAMES)
        return stage_id(name, kind, form=form, code=code)
    other = cardinality.overflow("stage names", cardinality.MAX_NAMES)
    return known.setdefault((other, None, ""), StageId(other, None, {}, "call")).of(form)


def with_attribute(found: Callable[[str], bool]) -> list[tuple[StageId, str]]:
    """Return the stages' fixed attributes whose key `found` accepts."""
    stages = list(_described.values())
    return [(stage, key) for stage in stages for key in list(stage.attributes) if found(key)]
