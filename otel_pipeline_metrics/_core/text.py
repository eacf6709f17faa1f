"""Quantities, lists and tables as people read them; the one format of each."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


# what stands where a value is not known
UNKNOWN: Final = "-"

# JSON's own line ends and ASCII need no closer look
_NOT_PLAIN: Final = re.compile(r"[^\n\x20-\x7e]")


def duration(seconds: float | None) -> str:
    """Return `1 h 02 min`, `2 min 03 s`, `1.23 s`, `12.3 ms`, `450 µs` or `12 ns`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if minutes > 0:
        return f"{minutes} min {rest:02d} s"
    # 999.6 µs is 1.00 ms, not 1000 µs
    seconds = float(f"{seconds:.3g}")
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0 s"


def size(amount: float | None) -> str:
    """Return `512 B`, `1.43 MiB`: bytes in the binary unit that suits them."""
    if amount is None or not math.isfinite(amount):
        return UNKNOWN
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while round(abs(amount)) >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{round(amount) if units[0] == 'B' else _three_digits(amount)} {units[0]}"


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"


def number(value: float | None) -> str:
    """Return `1,234` of a count or a rate, and `0.988` of a fraction."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(ratio: float | None) -> str:
    """Return `12 %`, and `0.4 %` below one per cent."""
    if ratio is None:
        return UNKNOWN
    return f"{ratio * 100:.{int(0 < abs(ratio) < 0.01)}f} %"


def signed_percent(ratio: float | None) -> str:
    """Return `+12.3 %`: by how much something has changed."""
    return UNKNOWN if ratio is None else f"{ratio * 100:+.1f} %"


def counted(amount: float, noun: str) -> str:
    """Return `1 batch` or `1,200 batches`."""
    if amount != 1 and noun:
        if noun.endswith("y") and noun[-2:-1] not in "aeiou":
            noun = f"{noun[:-1]}ies"
        else:
            noun += "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{number(amount)} {noun}"


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return aligned columns under a head, the first `left` of them aligned to the left."""
    return "\n".join("  ".join(row).rstrip() for row in aligned(head, rows, left=left))


def aligned(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int
) -> list[tuple[str, ...]]:
    """Return the head and the rows with each column's cells of the same width."""
    columns = []
    for place, column in enumerate(zip(head, *rows, strict=True)):
        cells = [printable(cell) for cell in column]
        room = max(map(width, cells))
        pads = [" " * (room - width(cell)) for cell in cells]
        pairs = zip(cells, pads, strict=True) if place < left else zip(pads, cells, strict=True)
        columns.append(["".join(pair) for pair in pairs])
    return list(zip(*columns, strict=True))


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def printable(text: object, keep: str = "") -> str:
    """Replace characters that would move a terminal's cursor or colour its text.

    Args:
        text: what is shown; also a path or an exception.
        keep: characters to leave, such as the ends of lines that are the text's own.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    keep += "\u00a0"  # a space that breaks no line
    return "".join(one if one.isprintable() or one in keep else "\ufffd" for one in shown)


def printable_json(text: str) -> str:
    """Escape in JSON what `printable` would replace: it reads as the same data."""
    return _NOT_PLAIN.sub(_escaped_json, text)


def _escaped_json(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    number = ord(character)
    if number > 0xFFFF:
        pair = character.encode("utf-16-be")
        return f"\\u{pair[:2].hex()}\\u{pair[2:].hex()}"
    return f"\\u{number:04x}"
