"""Tables as plain text: as wide as there is room, in colours where they show."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import output, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


GAP: Final = "  "
# a name is never cut to fewer columns than these
MIN_NAME: Final = 16

# SGR codes (ECMA-48, 8.3.117)
BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"

_NUMBER: Final = re.compile(r"(?<=\d) (?=\S)")
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class Look(NamedTuple):
    """Where a text is shown."""

    # None: as many as it needs
    columns: int | None = None
    colours: bool = False

    def paint(self, shown: str, tone: str) -> str:
        """Return the text in a colour, if there are colours."""
        return f"\x1b[{tone}m{shown}\x1b[0m" if self.colours and tone and shown else shown

    def wrap(self, line: str, indent: str = "") -> str:
        """Return a sentence on as many lines as it needs; further ones are indented by two."""
        if self.columns is None:
            return f"{indent}{line}"
        # a number and its unit stay on one line
        line = _NUMBER.sub("\u00a0", line)
        return "\n".join(
            textwrap.wrap(
                line,
                max(20, self.columns),
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        ).replace("\u00a0", " ")


PLAIN: Final = Look()


def look_of(stream: Any) -> Look:
    """Return how a stream shows text; one that is no terminal is plain."""
    return Look(output.columns(stream), output.has_colours(stream))


class Table(NamedTuple):
    """Cells under a head; the first `left` columns are aligned to the left."""

    head: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    left: int
    # the titles of columns that may be left out, those of least worth first
    leave: Sequence[str] = ()
    # colours by row and title
    tones: Mapping[tuple[int, str], str] = {}

    def __str__(self) -> str:
        return self.render()

    def fits(self, look: Look) -> bool:
        """Tell whether all columns find room."""
        if look.columns is None:
            return True
        rows = text.aligned(self.head, self.rows, left=self.left)
        return text.width(GAP.join(rows[0])) <= look.columns

    def render(self, look: Look = PLAIN) -> str:
        """Return the table; columns go by their worth until the others fit.

        Where not even those fit that stay, each row becomes a paragraph. Only names are cut.
        """
        if not self.rows:
            return ""
        table = _with_short_names(self, look)
        for title in ("", *self.leave):
            table = _without(table, title) if title else table
            if table.fits(look):
                return _lines(table, look)
        return _paragraphs(table, look)


def _without(table: Table, title: str) -> Table:
    if title not in table.head:
        return table
    place = list(table.head).index(title)
    head, *rows = ((*row[:place], *row[place + 1 :]) for row in (tuple(table.head), *table.rows))
    return table._replace(head=head, rows=rows, left=table.left - (place < table.left))


def _with_short_names(table: Table, look: Look) -> Table:
    if look.columns is None:
        return table
    most = max(MIN_NAME, look.columns // 3)
    return table._replace(rows=[(shortened(row[0], most), *row[1:]) for row in table.rows])


def _lines(table: Table, look: Look) -> str:
    lines = []
    for number, row in enumerate(text.aligned(table.head, table.rows, left=table.left), -1):
        if number < 0 and not any(table.head):
            continue
        cells = (
            look.paint(cell, DIM if number < 0 else table.tones.get((number, title), ""))
            for title, cell in zip(table.head, row, strict=True)
        )
        lines.append(GAP.join(cells).rstrip())
    return "\n".join(lines)


def _paragraphs(table: Table, look: Look) -> str:
    made = []
    for number, (name, *cells) in enumerate(table.rows):
        # a title and its number stay on one line
        pairs = [
            f"{text.printable(title)} {text.printable(cell)}".strip().replace(" ", "\u00a0")
            for title, cell in zip(table.head[1:], cells, strict=True)
            if cell
        ]
        tone = table.tones.get((number, table.head[0]), BOLD)
        made.append(look.paint(text.printable(name), tone))
        made.append(look.wrap(", ".join(pairs), GAP))
    return "\n".join(made)


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many columns, with its begin and its end."""
    if text.width(name) <= most:
        return name
    head, tail = name, name
    while text.width(head) > most - most // 2 - 1:
        head = head[:-1]
    while text.width(tail) > most // 2:
        tail = tail[1:]
    return f"{head}…{tail}"


def bar(share: float | None, width: int = 6) -> str:
    """Return a share, 0 to 1, as a bar."""
    eighths = round(min(max(share or 0.0, 0.0), 1.0) * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
