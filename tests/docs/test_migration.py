"""Each line of our side of docs/migration.md is run, in the order of the page."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.docs.markdown import ROOT, python_blocks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docs

PAGE = ROOT / "docs" / "migration.md"
_CODE = re.compile(r"`([^`]+)`")
# Names that the issue of this page asks for.
ASKED = {
    "total_duration_seconds", "total_duration_s", "interval_seconds", "interval_s", "hit_rate",
    "hit_rate_pct", "get_performance_monitor", "get_enhanced_metrics_collector",
    "get_prometheus_collector", "record_event_processed", "record_processing_time",
    "update_system_metrics",
}  # fmt: skip

# Runs a line and, where the page says what it gives, compares; all in one event loop.
RUNNER = """
import ast, asyncio, inspect, sys

wrong = []


async def run(line, code, expected):
    try:
        tree = compile(code, line, "eval" if expected else "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        found = eval(tree, page)
        if inspect.iscoroutine(found):
            found = await found
    except BaseException as error:
        wrong.append(f"{line}: {code}: {error!r}")
        return
    if expected and found != ast.literal_eval(expected):
        wrong.append(f"{line}: {code} gives {found!r}, not {expected}")


async def main():
    for row in ROWS:
        await run(*row)


page = {"__name__": "page"}
exec(SETUP, page)
asyncio.run(main())
print(*wrong, sep="\\n")
sys.exit(len(wrong) > 0)
"""


class Row(NamedTuple):
    line: int
    older: str
    here: str
    gives: str


def rows() -> list[Row]:
    """The rows of all tables, without their heads."""
    found = []
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("| ") and not line.startswith("| older"):
            older, here, gives = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Row(number, older, here, gives))
    return found


def code_of(cell: str) -> str:
    found = _CODE.fullmatch(cell)
    assert found, f"not one piece of code: {cell}"
    return found[1]


@pytest.mark.slow
def test_every_line_of_our_side_runs(tmp_path: Path) -> None:
    (block,) = [each for each in python_blocks() if each.document == "docs/migration.md"]
    lines = [
        (f"docs/migration.md:{row.line}", code_of(row.here), row.gives and code_of(row.gives))
        for row in rows()
    ]
    program = f"ROWS = {lines!r}\nSETUP = {block.code!r}\n{RUNNER}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"OTEL_EXPORTER_PROMETHEUS_PORT": "0", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "internal" not in done.stderr, done.stderr


def test_the_page_has_the_names_that_were_asked_for() -> None:
    older = " ".join(row.older for row in rows())
    assert {name for name in ASKED if not re.search(rf"\b{name}\b", older)} == set()
    assert len(rows()) > 100
