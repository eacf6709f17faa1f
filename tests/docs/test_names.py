"""Every public name is documented, in the code and in the documents; every link leads somewhere."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.docs.markdown import DOCUMENTS, ROOT, anchors, in_code, links, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docs

PUBLIC = sorted(set(opm.__all__) - {"__version__"})


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring(name: str) -> None:
    documented(name, getattr(opm, name))


@pytest.mark.parametrize("name", [n for n in PUBLIC if inspect.isclass(getattr(opm, n))])
def test_so_do_the_public_methods_and_properties(name: str) -> None:
    cls = getattr(opm, name)
    for member, value in vars(cls).items():
        if member.startswith("_") or not (callable(value) or isinstance(value, property)):
            continue
        documented(f"{name}.{member}", value)


def documented(name: str, value: Any) -> None:
    doc = inspect.getdoc(value)
    assert doc, f"{name} has no docstring"
    # a dataclass without a docstring gets its signature as one
    assert not (dataclasses.is_dataclass(value) and doc.startswith(f"{name}(")), name
    assert doc.splitlines()[0].rstrip().endswith((".", ":", "…")), f"{name}: {doc.splitlines()[0]}"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_in_the_documents(name: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert f"`{name}" in text or f"opm.{name}" in text, f"{name} is nowhere in README.md and docs/"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target}"


def test_every_room_is_in_the_architecture() -> None:
    """What lies in the package and what the table of rooms names are the same."""
    package = ROOT / "otel_pipeline_metrics"
    there = {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem != "__init__"
    }
    table = rows(ROOT / "docs" / "architecture.md")
    named = {word.rstrip("/") for cells in table for word in in_code(cells[0])}
    assert named == there - {"_version"}
