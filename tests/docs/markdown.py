"""What the documents hold: their Python blocks, tables and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

NOT_RUN: Final = "<!-- not run -->"
_FENCE: Final = re.compile(r"^```(\w*)\s*$")
_EXPECTED: Final = re.compile(r"^\s*# ?> ?(.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of Python."""

    document: str
    line: int
    code: str
    run: bool

    @property
    def expected(self) -> list[str]:
        """The lines that it says it prints; each follows `# >`."""
        return _EXPECTED.findall(self.code)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def python_blocks() -> list[Block]:
    """Every block of Python in the README and in docs/."""
    return [block for path in DOCUMENTS for block in _blocks_of(path)]


def _blocks_of(path: Path) -> list[Block]:
    found: list[Block] = []
    language: str | None = None
    began, above, code = 0, "", list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if language is None:
            if fence is not None:
                language, began, code = fence[1], number, []
            elif line.strip():
                above = line.strip()
        elif fence is not None:
            if language == "python":
                name = path.relative_to(ROOT).as_posix()
                found.append(Block(name, began, "\n".join(code) + "\n", above != NOT_RUN))
            language, above = None, ""
        else:
            code.append(line)
    assert language is None, f"{path}: the fence of line {began} is not closed"
    return found


def rows(path: Path) -> list[list[str]]:
    """The cells of every table row."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        for line in lines
        if line.startswith("|")
    ]


def in_code(cell: str) -> list[str]:
    """The words of a cell that stand in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[str]:
    """Every link's target."""
    return _LINK.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
