"""Make JSON Schemas of TypedDicts, whose fields are annotated with what they mean."""

import types
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

Number: TypeAlias = float | None
Count: TypeAlias = int | None
Text: TypeAlias = str | None

Schema: TypeAlias = dict[str, Any]

_SCALARS: Final[dict[Any, Schema]] = {
    Any: {},
    str: {"type": "string"},
    float: {"type": "number"},
    # all are counts
    int: {"type": "integer", "minimum": 0},
    bool: {"type": "boolean"},
}


def schema_of(kind: Any, *, closed: bool = False) -> Schema:
    """Return the JSON Schema (draft 2020-12) of an annotation.

    `closed` objects have all of their keys and no others.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        note = {"description": args[1]} if isinstance(args[1], str) else args[1]
        return schema_of(args[0], closed=closed) | note
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if origin in (Union, types.UnionType):
        return _union([schema_of(one, closed=closed) for one in args if one is not types.NoneType])
    if origin is list:
        items = schema_of(args[0], closed=closed)
        return {"type": "array", "items": items} | _described(items)
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(args[1], closed=closed)}
    fields = {name: schema_of(one, closed=closed) for name, one in kind.__annotations__.items()}
    whole = {"required": list(fields), "additionalProperties": False} if closed else {}
    # without one of its own, or with `python -OO`, `__doc__` is that of dict
    doc = kind.__doc__ if kind.__doc__ != dict.__doc__ else None
    return {"type": "object", "properties": fields} | whole | ({"description": doc} if doc else {})


def _union(schemas: list[Schema]) -> Schema:
    """Return the schema of one of several types, or of null."""
    merged: Schema = {}
    for schema in schemas:
        merged |= schema
    return merged | {"type": [*(schema["type"] for schema in schemas), "null"]}


def _described(schema: Schema) -> Schema:
    return {"description": schema["description"]} if "description" in schema else {}
