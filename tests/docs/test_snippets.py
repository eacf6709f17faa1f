"""Every block of Python in the documents runs, and prints what the document says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import DOCUMENTS, python_blocks, without_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.markdown import Block

pytestmark = pytest.mark.docs

BLOCKS = python_blocks()


def test_the_documents_have_blocks_to_run() -> None:
    """Without blocks, the other tests would pass without checking anything."""
    assert {block.document for block in BLOCKS if block.run} >= {"README.md", "docs/guide.md"}
    assert len(DOCUMENTS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run], ids=str)
def test_a_block_runs(block: Block, tmp_path: Path) -> None:
    """Each runs in a process and a folder of its own, without OTEL_* variables."""
    program = tmp_path / "test_block.py"
    program.write_text(block.code, encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env={**inherited, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert not re.search("internal (fault|error)", done.stderr), done.stderr
    if block.expected:
        printed = [line.rstrip() for line in done.stdout.splitlines()]
        missing = [line for line in block.expected if line.rstrip() not in printed]
        assert not missing, f"not printed: {missing}\nprinted:\n{done.stdout}"
    if block.shown:
        printed = [without_numbers(line) for line in (done.stdout + done.stderr).splitlines()]
        missing = [line for line in block.shown if without_numbers(line) not in printed]
        assert not missing, f"not printed: {missing}\nprinted:\n{done.stdout}{done.stderr}"


def test_numbers_and_alignment_may_differ() -> None:
    assert without_numbers("fetch   1.07 s  21.4 ms  9 %") == without_numbers(
        "fetch 2 ms 3 µs 99 %"
    )
    assert without_numbers("trace 27d81a48") == without_numbers("trace 501aec9b")
    assert without_numbers("fetch  1 s") != without_numbers("write  1 s")


def test_the_readme_shows_real_output() -> None:
    assert sum(bool(block.shown) for block in BLOCKS if block.document == "README.md") >= 2
