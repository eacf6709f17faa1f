"""Identify a stage: its name, direction, function and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import cardinality

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue


class StageId:
    """Identity of a stage: name, kind and fixed attributes. Equal ones are one object."""

    __slots__ = ("attributes", "kind", "name")

    def __init__(self, name: str, kind: str | None, attributes: dict[str, AttributeValue]):
        self.name = name
        self.kind = kind
        self.attributes = attributes

    def __reduce__(self) -> tuple[Callable[..., StageId], tuple[Any, ...]]:
        """Pickle as the call that interns it, so that identity holds in another process."""
        return stage_id, (self.name, self.kind, dict(self.attributes))


_stage_ids: dict[Hashable, StageId] = {}
_described: dict[Hashable, StageId] = {}
"""Those with fixed attributes, counted apart: they must not take the room of plain names."""


def stage_id(
    name: str, kind: str | None, attributes: Mapping[str, AttributeValue] | None = None
) -> StageId:
    """Return the one `StageId` for these; comparing two is then comparing addresses.

    There are `MAX_NAMES` of them at most. What is one too many goes without its attributes if
    it has some, and else is the stage `_OTHER`.
    """
    known, key = _stage_ids, (name, kind, "")
    if attributes:
        known, key = _described, (name, kind, repr(sorted(attributes.items())))
    found = known.get(key)
    if found is not None:
        return found
    if len(known) < cardinality.MAX_NAMES:
        return known.setdefault(key, StageId(name, kind, dict(attributes or {})))
    if attributes:
        cardinality.overflow("sets of fixed attributes of stages", cardinality.MAX_NAMES)
        return stage_id(name, kind)
    other = cardinality.overflow("stage names", cardinality.MAX_NAMES)
    return known.setdefault((other, None, ""), StageId(other, None, {}))


def with_attribute(found: Callable[[str], bool]) -> list[tuple[StageId, str]]:
    """Return the fixed attributes of stages defined so far whose key is `found`."""
    stages = list(_described.values())
    return [(stage, key) for stage in stages for key in list(stage.attributes) if found(key)]
