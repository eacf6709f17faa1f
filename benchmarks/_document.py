"""Write measured figures into their part of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_BEGIN: Final = "<!-- figures: written by benchmarks/{program}.py -->"
_END: Final = "<!-- end of figures -->"


def put(path: Path, program: str, text: str) -> None:
    """Replace the figures that `program` wrote into a document the last time.

    Raises:
        ValueError: the document has no place for them.
    """
    begin = _BEGIN.format(program=program)
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(_END)
    if not (found and ended):
        raise ValueError(f"{path} has no place for the figures of benchmarks/{program}.py")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{_END}{after}", encoding="utf-8")
