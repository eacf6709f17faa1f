"""Build the attributes that spans and metrics of a stage have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core import settings

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import AttributeValue, StageKey
    from otel_pipeline_metrics._core.stage_id import Code


def code_attributes(code: Code | None) -> dict[str, AttributeValue]:
    """Return the attributes that name a decorated function, by the semantic conventions."""
    if code is None:
        return {}
    attributes: dict[str, AttributeValue] = {defs.CODE_FUNCTION_NAME: code.function}
    if settings.settings().code_location and code.file is not None:
        attributes[defs.CODE_FILE_PATH] = code.file
        if code.line is not None:
            attributes[defs.CODE_LINE_NUMBER] = code.line
    return attributes


def stage_attributes(key: StageKey) -> dict[str, AttributeValue]:
    """Return the attributes that every metric of a stage carries."""
    attributes: dict[str, AttributeValue] = {defs.STAGE_NAME: key.stage}
    if key.kind is not None:
        attributes[defs.STAGE_KIND] = key.kind
    if key.pipeline is not None:
        attributes[defs.PIPELINE_NAME] = key.pipeline
    return attributes
