"""Identify a stage: its name, direction, function and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import cardinality

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue


class StageId:
    """Identity of a stage: name, kind and fixed attributes; equal ones are one object."""

    __slots__ = ("attributes", "kind", "name")

    def __init__(self, name: str, kind: str | None, attributes: dict[str, AttributeValue]):
        self.name = name
        self.kind = kind
        self.attributes = attributes

    def __reduce__(self) -> tuple[Callable[..., StageId], tuple[Any, ...]]:
        """Pickle as a call of `stage_id`, which keeps equal ones one object."""
        return stage_id, (self.name, self.kind, dict(self.attributes))


_stage_ids: dict[Hashable, StageId] = {}

# Those with fixed attributes have a limit of their own, so that they leave room for mere names.
_described: dict[Hashable, StageId] = {}


def stage_id(
    name: str, kind: str | None, attributes: Mapping[str, AttributeValue] | None = None
) -> StageId:
    """Return the one `StageId` with this name, kind and attributes.

    There are `MAX_NAMES` of them at most. Above that, one with attributes loses them, and one
    without becomes the stage `_OTHER`.
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
    """Return the stages' fixed attributes whose key `found` accepts."""
    stages = list(_described.values())
    return [(stage, key) for stage in stages for key in list(stage.attributes) if found(key)]
