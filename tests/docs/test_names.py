"""Every public name is documented, in the code and in the documents; links have targets."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import service
from tests.docs.markdown import DOCUMENTS, ROOT, WITH_LINKS, anchors, in_code, links, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docs

PUBLIC = {
    name: getattr(room, name)
    for room in (opm, service)
    for name in sorted(set(room.__all__) - {"__version__"})
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring(name: str) -> None:
    documented(name, PUBLIC[name])


@pytest.mark.parametrize("name", [n for n in PUBLIC if inspect.isclass(PUBLIC[n])])
def test_a_public_method_or_property_has_a_docstring(name: str) -> None:
    cls = PUBLIC[name]
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


@pytest.mark.parametrize("path", WITH_LINKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_have_targets(path: Path) -> None:
    for target in links(path):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target}"


def test_the_table_of_rooms_matches_the_package() -> None:
    package = ROOT / "otel_pipeline_metrics"
    there = {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file())
        and not path.stem.startswith("__")
    }
    table = rows(ROOT / "docs" / "architecture.md")
    named = {word.rstrip("/") for cells in table for word in in_code(cells[0])}
    assert named == there - {"_version"}


def test_every_file_in_the_architecture_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 40
    assert [file for file in files if not (ROOT / "otel_pipeline_metrics" / file).is_file()] == []
