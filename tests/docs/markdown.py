"""Read the documents: their Python blocks, output blocks, tables and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WITH_LINKS: Final = (
    *DOCUMENTS,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "collector-config" / "README.md",
)

NOT_RUN: Final = "<!-- not run -->"
_PRINTED_BY: Final = re.compile(r"<!-- printed by: (.+) -->")
_EXAMPLE: Final = re.compile(r"python -m examples\.\w+")
_FENCE: Final = re.compile(r"^```(\w*)\s*$")
_EXPECTED: Final = re.compile(r"^\s*# ?> ?(.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


class Fence(NamedTuple):
    """A fenced block, and the last line of text above it."""

    document: str
    line: int
    language: str
    text: str
    above: str


class Block(NamedTuple):
    """A fenced block of Python."""

    document: str
    line: int
    code: str
    run: bool
    # lines that the document shows as its output; numbers may differ
    shown: tuple[str, ...] = ()

    @property
    def expected(self) -> list[str]:
        """The lines that the document says it prints; each follows `# >`."""
        return _EXPECTED.findall(self.code)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def python_blocks() -> list[Block]:
    """Return every block of Python in the README and in docs/."""
    return [block for path in DOCUMENTS for block in _blocks_of(path)]


def _blocks_of(path: Path) -> list[Block]:
    fences = _fences_of(path)
    outputs = [
        (printed[1], fence)
        for fence in fences
        if fence.language == "text" and (printed := _PRINTED_BY.fullmatch(fence.above))
    ]
    python = [fence for fence in fences if fence.language == "python"]
    examples = {mark for mark, _ in outputs if _EXAMPLE.fullmatch(mark)}
    python += [_example(mark, path) for mark in examples]
    for mark, output in outputs:
        printing = [fence for fence in python if mark in fence.text]
        assert len(printing) == 1, (
            f"{output.document}:{output.line}: no single block prints this: {mark}"
        )
    return [
        Block(
            fence.document,
            fence.line,
            fence.text,
            fence.above != NOT_RUN,
            tuple(
                line
                for mark, output in outputs
                if mark in fence.text
                for line in output.text.splitlines()
                if line.strip()
            ),
        )
        for fence in python
    ]


def _example(mark: str, document: Path) -> Fence:
    """Return the program that `python -m examples.NAME` runs, as if the document had it."""
    name = f"{mark.removeprefix('python -m ').replace('.', '/')}.py"
    code = (ROOT / name).read_text(encoding="utf-8")
    assert mark in code, f"{name} does not say how it is run"
    return Fence(document.relative_to(ROOT).as_posix(), 0, "python", code, name)


def _fences_of(path: Path) -> list[Fence]:
    found: list[Fence] = []
    name = path.relative_to(ROOT).as_posix()
    language: str | None = None
    began, above, text = 0, "", list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if language is None:
            if fence is not None:
                language, began, text = fence[1], number, []
            elif line.strip():
                above = line.strip()
        elif fence is not None:
            found.append(Fence(name, began, language, "\n".join(text) + "\n", above))
            language, above = None, ""
        else:
            text.append(line)
    assert language is None, f"{path}: the fence of line {began} is not closed"
    return found


def without_numbers(line: str) -> str:
    """Replace what differs between runs: ids, bars, numbers with their units, and the alignment."""
    line = re.sub(r"[▏▎▍▌▋▊▉█]+", "", line)  # bars
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,32}\b", "<id>", line)
    line = re.sub(r"~?\b\d[\d,.:]*(?: ?(?:ns|µs|ms|s|min|B|KiB|MiB|GiB|%))?(?!\w)", "<n>", line)
    return " ".join(line.split())


def rows(path: Path) -> list[list[str]]:
    """Return the cells of every table row."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        for line in lines
        if line.startswith("|")
    ]


def in_code(cell: str) -> list[str]:
    """Return the words of a cell that are in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def prose(path: Path) -> str:
    """Return the document without its fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[str]:
    """Return every link's target."""
    return _LINK.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
