"""The JSON Schemas of reports and of what a collector exports; `report.rows` has their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics.report.rows import Collected, Report
from otel_pipeline_metrics.report.typed_rows import schema_of

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.typed_rows import Schema

# name and version of the report's format; incompatible changes raise the number
SCHEMA: Final = "otel_pipeline_metrics/report/2"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# what a report consists of beside its `schema`
PARTS: Final[dict[str, Schema]] = schema_of(Report)["properties"]
# lists whose entries have a name; other keys that are unknown hold numbers there, so that they can
# be compared and merged
for _name in ("stages", "queues", "limits", "caches"):
    PARTS[_name]["items"] |= {
        "additionalProperties": {"$ref": "#/$defs/numbers"},
        "required": ["name"],
    }

# parts that reports of earlier releases lack
OPTIONAL_PARTS: Final = frozenset({"limits", "pools", "windows", "processes"})

# fields of entries that hold text; all others hold numbers
TEXT_FIELDS: Final = frozenset(
    name
    for part in PARTS.values()
    for name, field in part.get("items", {}).get("properties", {}).items()
    if "string" in (*field["type"], field["type"]) or "array" in field["type"]
)


def report_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `RunReport.to_dict()`."""
    numbers = {"$ref": "#/$defs/numbers"}
    return {
        "$schema": _DIALECT,
        "title": SCHEMA,
        "description": "A report of otel-pipeline-metrics. Seconds, bytes, ratios from 0 to 1.",
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, **PARTS},
        "required": ["schema", *(name for name in PARTS if name not in OPTIONAL_PARTS)],
        "$defs": {
            "numbers": {
                "type": ["number", "boolean", "object", "null"],
                "additionalProperties": numbers,
            }
        },
    }


def collector_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `MetricsCollector.export_json()`."""
    title = "otel_pipeline_metrics MetricsCollector.export_json"
    return {"$schema": _DIALECT, "title": title, **schema_of(Collected, closed=True)}
