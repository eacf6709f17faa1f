"""Test that the tests that the promises of the documents name exist, and test something."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "\n".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reliability.md", "failures.md")
)
# where the paths of a table begin
FOLDERS = (
    ROOT / "tests", ROOT / "tests/system/faults", ROOT / "tests/lifecycle",
)  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, cell by cell, without its own two."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def named_in(cell: str) -> list[str]:
    """Return the paths of tests that a cell names."""
    return re.findall(r"`([\w/]+(?:\.py|/\w+))`", cell)


def count(path: Path) -> int:
    """Return how many tests a file or the files of a folder have."""
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    found = 0
    for file in files:
        tree = ast.parse(file.read_text())
        names = [str(getattr(node, "name", "")) for node in ast.walk(tree)]
        names += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        found += sum(name.startswith(("test_", "Test")) for name in names)
    return found


NAMED = [
    (row[0], row[-1])
    for heading in ("What is promised", "Stages in unusual places")
    for row in rows(heading)
]


def test_the_tables_are_found() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("promise", "cell"), NAMED, ids=[row[0][:40] for row in NAMED])
def test_each_promise_names_a_test_that_exists(promise: str, cell: str) -> None:
    named = named_in(cell)
    assert named, f"no test holds: {promise}"
    for name in named:
        found = [folder / name for folder in FOLDERS if (folder / name).exists()]
        assert found, f"{name} does not exist, for: {promise}"
        assert count(found[0]), f"{name} has no test, for: {promise}"


def test_each_command_names_a_test_that_exists() -> None:
    commands = re.findall(r"pytest ((?:tests[\w/.]*\s?)+)", PAGE)
    paths = [path for command in commands for path in command.split()]
    assert len(paths) > 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
