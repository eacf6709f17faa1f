"""Identify a stage: its name, kind and attributes, and the form in which it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from otel_pipeline_metrics._core import cardinality

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue


# What is known of a call's time depends on it: a call runs until it ends, a coroutine awaits in
# between, and of a block in a task nobody can tell. "by hand" was measured by the program.
# A step is a call of `__next__`, which raises at the end of its iteration.
Form = Literal[
    "call", "coroutine", "step", "async step", "generator", "async generator", "block",
    "task block", "by hand",
]  # fmt: skip


class StageId:
    """Identity of a stage: name, kind, fixed attributes and form; equal ones are one object."""

    __slots__ = ("attributes", "form", "identity", "kind", "name")

    def __init__(
        self, name: str, kind: str | None, attributes: dict[str, AttributeValue], form: Form
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes  # shared by all forms
        self.form: Form = form
        # the same for every form of one stage
        self.identity: Hashable = (name, kind, repr(sorted(attributes.items())))

    def of(self, form: Form) -> StageId:
        """Return the same stage in another form."""
        key = self.identity, form
        if form == self.form:
            return self
        return _forms.get(key) or _forms.setdefault(
            key, StageId(self.name, self.kind, self.attributes, form)
        )

    def __reduce__(self) -> tuple[Callable[..., StageId], tuple[Any, ...]]:
        """Pickle as a call of `stage_id`, which keeps equal ones one object."""
        return stage_id, (self.name, self.kind, dict(self.attributes), self.form)


_stage_ids: dict[Hashable, StageId] = {}

# Those with fixed attributes have a limit of their own, so that they leave room for mere names.
_described: dict[Hashable, StageId] = {}

# All of them in other forms than "call".
_forms: dict[Hashable, StageId] = {}


def stage_id(
    name: str,
    kind: str | None,
    attributes: Mapping[str, AttributeValue] | None = None,
    form: Form = "call",
) -> StageId:
    """Return the one `StageId` with this name, kind, attributes and form.

    There are `MAX_NAMES` of them at most in each form. Above that, one with attributes loses them,
    and one without becomes the stage `_OTHER`.
    """
    known, key = _stage_ids, (name, kind, "")
    if attributes:
        known, key = _described, (name, kind, repr(sorted(attributes.items())))
    found = known.get(key)
    if found is not None:
        return found.of(form)
    if len(known) < cardinality.MAX_NAMES:
        made = StageId(name, kind, dict(attributes or {}), "call")
        return known.setdefault(key, made).of(form)
    if attributes:
        cardinality.overflow("sets of fixed attributes of stages", cardinality.MAX_NAMES)
        return stage_id(name, kind, form=form)
    other = cardinality.overflow("stage names", cardinality.MAX_NAMES)
    return known.setdefault((other, None, ""), StageId(other, None, {}, "call")).of(form)


def with_attribute(found: Callable[[str], bool]) -> list[tuple[StageId, str]]:
    """Return the stages' fixed attributes whose key `found` accepts."""
    stages = list(_described.values())
    return [(stage, key) for stage in stages for key in list(stage.attributes) if found(key)]
