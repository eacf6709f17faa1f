"""The README, followed word by word by somebody who has nothing but a checkout and Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import ROOT, python_blocks, without_numbers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.docs, pytest.mark.xdist_group("readme")]

README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_OUT = shutil.ignore_patterns(
    ".*", "*.egg-info", "__pycache__", "demo-out", "tests", "benchmarks"
)


def shell_block(with_line: str) -> str:
    """Return the README's shell commands that have this line among them."""
    (block,) = (b for b in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if with_line in b)
    return block


class Reader:
    """Somebody with a fresh virtual environment, a checkout and an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.folder = folder / "work"
        self.folder.mkdir()
        shutil.copytree(ROOT, self.checkout, ignore=LEFT_OUT)
        subprocess.run([sys.executable, "-m", "venv", folder / "fresh"], check=True)
        # `make` would make another one there, of the same Python
        (self.checkout / ".venv").symlink_to(folder / "fresh")
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PYTHON", "VIRTUAL"))
        }
        self.env = {**kept, "PATH": f"{folder / 'fresh' / 'bin'}:{os.defpath}"}

    def types(self, commands: str, where: Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", commands],
            cwd=where,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    made = Reader(tmp_path_factory.mktemp("reader"))
    made.types(
        re.sub("^make.*\n", "", shell_block("pip install ."), flags=re.MULTILINE), made.checkout
    )
    return made


def test_the_demo(reader: Reader) -> None:
    """`make demo` needs no server, and shows the summary."""
    assert "\nmake demo " in shell_block("pip install .")
    done = reader.types("make demo", reader.checkout)
    assert "run stdlib-index: success in " in done.stderr
    assert (reader.checkout / "demo-out" / "export_metrics.json").is_file()


def test_the_first_program_prints_what_is_shown(reader: Reader) -> None:
    assert "Save this as `app.py` and run it with `python app.py`" in README
    block = next(block for block in python_blocks() if block.document == "README.md")
    (reader.folder / "app.py").write_text(block.code, encoding="utf-8")
    done = reader.types("python app.py", reader.folder)
    assert done.stdout == ""
    printed = [without_numbers(line) for line in done.stderr.splitlines()]
    assert block.shown
    assert [line for line in block.shown if without_numbers(line) not in printed] == []
    assert len(printed) < 20
    assert (reader.folder / "out" / "export_metrics.json").is_file()
    # the same program, with the variables of the README and no collector
    sent = reader.types(shell_block("OTEL_EXPORTER_OTLP_ENDPOINT"), reader.folder)
    assert "Traceback" not in sent.stderr


def test_every_other_block_runs_with_the_base_installation(reader: Reader) -> None:
    blocks = [block for block in python_blocks() if block.document == "README.md" and block.run]
    assert len(blocks) > 3
    for number, block in enumerate(blocks):
        (reader.folder / f"block_{number}.py").write_text(block.code, encoding="utf-8")
        done = reader.types(f"python block_{number}.py", reader.folder)
        missing = [line for line in block.expected if line not in done.stdout.splitlines()]
        assert missing == [], done.stdout + done.stderr
