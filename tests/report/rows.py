"""Write `report/rows.py`, the rows of a report as TypedDicts, from the schema.

`python -m tests.report.rows` does it.
"""

from __future__ import annotations

import keyword
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics.report.schema import PARTS
from tests.support.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path


FILE: Final[Path] = ROOT / "otel_pipeline_metrics" / "report" / "rows.py"

_HEAD: Final = '''\
"""Describe the rows of a report to type checkers; `schema` says what each field means.

Written by `python -m tests.report.rows`. Unknown values are None. A report of several runs has more
keys than that of one, and one from an earlier version may lack some: `row.get(...)`.
"""

from __future__ import annotations

from typing import Any, TypedDict

'''
_SCALARS: Final = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"}
# of an entry in a list; the others keep the part's name
_SINGULAR: Final = {
    "stages": "stage", "queues": "queue", "limits": "limit", "pools": "pool", "caches": "cache",
    "windows": "window", "processes": "process",
}  # fmt: skip


class _Classes:
    """The classes found so far, those that others need first."""

    def __init__(self) -> None:
        self._names: dict[tuple[tuple[str, str], ...], str] = {}
        self.text = ""

    def name_of(self, schema: dict[str, Any], name: str) -> str:
        """Return the name of an object's class; objects with the same fields share one."""
        fields = tuple(
            (key, self._type(value, f"{name}_{key}")) for key, value in schema["properties"].items()
        )
        if fields not in self._names:
            self._names[fields] = made = "".join(map(str.capitalize, f"{name}_row".split("_")))
            self.text += _class(made, schema.get("description", name), fields)
        return self._names[fields]

    def _type(self, schema: dict[str, Any], name: str) -> str:
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        known = [self._known(kind, schema, name) for kind in kinds if kind != "null"]
        return " | ".join([*known, *["None"] * ("null" in kinds)]) or "Any"

    def _known(self, kind: str, schema: dict[str, Any], name: str) -> str:
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "array":
            return f"list[{self._type(schema.get('items', {}), name)}]"
        if "properties" in schema:
            return self.name_of(schema, name)
        values = schema.get("additionalProperties")
        return f"dict[str, {self._type(values, name) if isinstance(values, dict) else 'Any'}]"


def _class(name: str, description: str, fields: tuple[tuple[str, str], ...]) -> str:
    doc = f"{description[0].upper()}{description[1:]}."
    if any(keyword.iskeyword(key) for key, _ in fields):
        entries = "".join(f'"{key}": "{kind}",' for key, kind in fields)
        return f'# {doc}\n{name} = TypedDict("{name}", {{{entries}}})\n\n'
    return f'class {name}(TypedDict):\n    """{doc}"""\n\n' + "".join(
        f"    {key}: {kind}\n" for key, kind in fields
    )


def text() -> str:
    """Return what the file has to hold, but for its format."""
    classes = _Classes()
    for name, part in PARTS.items():
        classes.name_of(part.get("items", part), _SINGULAR.get(name, name))
    return _HEAD + classes.text


if __name__ == "__main__":
    FILE.write_text(text())
    subprocess.run([sys.executable, "-m", "ruff", "format", str(FILE)], check=True, cwd=ROOT)
