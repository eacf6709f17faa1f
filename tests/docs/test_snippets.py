"""Every block of Python in the documents runs, and prints what it says it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import DOCUMENTS, python_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.markdown import Block

pytestmark = pytest.mark.docs

BLOCKS = python_blocks()


def test_the_documents_have_blocks_to_run() -> None:
    """Else the tests below would pass on nothing."""
    assert {block.document for block in BLOCKS if block.run} >= {"README.md", "docs/guide.md"}
    assert len(DOCUMENTS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run], ids=str)
def test_a_block_runs(block: Block, tmp_path: Path) -> None:
    """Each in a process and a folder of its own, with no OTEL_* set."""
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
    assert "internal fault" not in done.stderr, done.stderr
    if block.expected:
        printed = [line.rstrip() for line in done.stdout.splitlines()]
        missing = [line for line in block.expected if line.rstrip() not in printed]
        assert not missing, f"not printed: {missing}\nprinted:\n{done.stdout}"
