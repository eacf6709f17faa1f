"""Build the attributes that spans and metrics of a stage have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import metric_definitions as defs

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import AttributeValue, StageKey


def stage_attributes(key: StageKey) -> dict[str, AttributeValue]:
    """Return the attributes that every metric of a stage carries."""
    attributes: dict[str, AttributeValue] = {defs.STAGE_NAME: key.stage}
    if key.kind is not None:
        attributes[defs.STAGE_KIND] = key.kind
    if key.pipeline is not None:
        attributes[defs.PIPELINE_NAME] = key.pipeline
    return attributes
