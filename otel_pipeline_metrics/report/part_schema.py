"""Describe the parts that other processes send, and check what came.

A part may come from anybody, so nothing in it is trusted: what passes is a copy that has the known
keys alone, with finite numbers of zero or more, and text of a bounded length.
"""

from __future__ import annotations

import functools
import json
import zlib
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import quantile_sketch
from otel_pipeline_metrics._core.cleaning import clean_text
from otel_pipeline_metrics._core.quantile_sketch import Sketch
from otel_pipeline_metrics.report.schema import parts

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.typed_rows import Schema

PART: Final = "otel_pipeline_metrics/part/1"

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_STAGES: Final = 10_000

# what `unpacked` raises
UNREADABLE: Final = (ValueError, zlib.error)

_MAX_TEXT: Final = 512
# more than any count, number of bytes or seconds
_MAX_NUMBER: Final = 2.0**63
# 1 ns to 10**18 s; the bounds of a bucket must be floats
_MAX_INDEX: Final = 4096

# the lists of entries that a part has, as in a report
ENTRIES: Final = ("stages", "queues", "limits")


# by kind, in the order in which they are recognized: True is an int as well
_PYTHON: Final = (
    ("null", type(None)),
    ("boolean", bool),
    ("integer", int),
    ("number", float),
    ("string", str),
    ("array", list),
    ("object", dict),
)


def _known(*kinds: str) -> Schema:
    return {"type": kinds}


_TEXT: Final = _known("string")
_WORKERS: Final = {"type": "array", "items": _TEXT}


@functools.cache
def _fields() -> dict[str, Schema]:
    known = parts()
    entry = {name: known[name]["items"]["properties"] for name in ENTRIES}
    entry["stages"] = {**entry["stages"], "worker_ids": _WORKERS}
    return {
        "id": _TEXT,
        "part": _TEXT,
        "run": _TEXT,
        "number": _known("integer"),
        "final": _known("boolean"),
        "covers": _known("integer"),
        "earlier": _known("integer"),
        "retried": _known("integer"),
        "wall_s": _known("number"),
        "process": {"type": "object", "properties": known["processes"]["items"]["properties"]},
        **{
            name: {"type": "array", "items": {"type": "object", "properties": entry[name]}}
            for name in ENTRIES
        },
    }


def packed(part: dict[str, Any]) -> bytes:
    """Return a part as it travels beside an engine's results."""
    return zlib.compress(json.dumps(part).encode())


def unpacked(content: bytes) -> Any:
    """Return what came as a part, unchecked, and at most a little too large for one.

    Raises:
        ValueError, zlib.error: it is not compressed JSON, or too large.
    """
    return json.loads(zlib.decompressobj().decompress(content, MAX_BYTES + 1))


def checked(data: object) -> dict[str, Any]:
    """Return a copy of a part with its known keys.

    Raises:
        ValueError: it is not a part, or too large.
    """
    if not isinstance(data, dict) or data.get("schema") != PART:
        raise ValueError(f"not a part: its schema is not {PART!r}")
    try:
        size = len(json.dumps(data, allow_nan=False, ensure_ascii=False))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not plain data: {error}") from None
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes as JSON; at most {MAX_BYTES:,} are taken")
    part: dict[str, Any] = {}
    for key, schema in _fields().items():
        if key not in data:
            raise ValueError(f"{key!r} is missing")
        part[key] = _copy(data[key], schema, key)
    if sum(len(part[name]) for name in ENTRIES) > MAX_STAGES:
        raise ValueError(f"it has over {MAX_STAGES:,} stages, queues and limits")
    for name in ENTRIES:
        for entry in part[name]:
            if not entry.get("name"):
                raise ValueError(f"{name} has an entry without a name")
            _check_whole(entry, name)
    return part


def _copy(value: Any, schema: Schema, where: str) -> Any:
    kinds = schema["type"]
    kind = next((name for name, python in _PYTHON if isinstance(value, python)), None)
    if kind == "integer" and kind not in kinds:
        kind = "number"
    if kind is None or kind not in ((kinds,) if isinstance(kinds, str) else kinds):
        raise ValueError(f"{where} has a value of the wrong kind")
    if kind == "array":
        return [_copy(one, schema["items"], where) for one in value]
    if kind == "object":
        return _copy_object(value, schema, where)
    if kind == "string":
        return _text(value, where)
    if kind in ("integer", "number") and not 0 <= value < _MAX_NUMBER:  # nor a NaN
        raise ValueError(f"{where} has a number out of bounds")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"{where} has a text of the wrong kind or size")
    return clean_text(value)


def _copy_object(value: dict[str, Any], schema: Schema, where: str) -> dict[str, Any]:
    every = schema.get("additionalProperties", {})
    if "properties" not in schema:
        return {_text(key, where): _copy(one, every, where) for key, one in value.items()}
    fields = schema["properties"]
    return {
        key: _copy(one, fields[key], f"{where}, {key}")
        for key, one in value.items()
        if key in fields
    }


def _check_whole(entry: dict[str, Any], where: str) -> None:
    """Raise if what is needed to add an entry up is missing or broken."""
    measure = "duration_s" if where == "stages" else "wait_s"
    counted = {"stages": "count", "queues": "got", "limits": "acquired"}[where]
    times = entry.get(measure)
    if not isinstance(times, dict) or not isinstance(entry.get(counted), int):
        raise ValueError(f"{where} has an entry without {measure!r} or {counted!r}")
    for key in ("time_s", "share", "errors", "items", "bytes") if where == "stages" else ():
        if not isinstance(entry.get(key), dict):
            raise ValueError(f"{where} has an entry without {key!r}")
    if times.get("sketch") is None:
        return
    buckets = times["sketch"].get("buckets")
    if not isinstance(buckets, dict) or len(buckets) > quantile_sketch.MAX_BUCKETS:
        raise ValueError(f"{where} has a sketch without buckets, or with too many")
    Sketch.from_dict(times["sketch"])
    if any(abs(int(index)) > _MAX_INDEX for index in buckets):
        raise ValueError(f"{where} has a sketch with a bucket out of bounds")
