"""Make the pictures of `docs/images/`: captures of a terminal, and the page in Chromium.

`python -m tests.docs.images` runs real programs on a pseudo-terminal and writes what it shows as
SVG. With names, such as `python -m tests.docs.images page live`, it makes these only.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyte
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from otel_pipeline_metrics.report import RunReport
from tests.docs.markdown import ROOT, python_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES: Final = ROOT / "docs" / "images"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
ROWS: Final = 60
# of a program that must end by itself
SECONDS: Final = 120.0

_COLOURS: Final = {"brown": "yellow", "brightbrown": "bright_yellow"}
_THEME: Final = TerminalTheme(
    (23, 28, 36),
    (222, 227, 234),
    [(70, 78, 90), (255, 128, 116), (126, 211, 142), (240, 196, 104), (110, 180, 255),
     (205, 150, 235), (90, 205, 215), (222, 227, 234)],
    [(140, 150, 165), (255, 160, 150), (160, 230, 170), (250, 215, 140), (150, 205, 255),
     (225, 180, 245), (130, 225, 232), (255, 255, 255)],
)  # fmt: skip


class Program(NamedTuple):
    """A program, and the moment of its picture: once a text is there, or its end."""

    title: str
    code: str
    columns: int = 132
    until: str = ""
    wait_s: float = 0.0


QUEUES: Final = """
import queue, threading, time
import otel_pipeline_metrics as opm

@opm.fetch
def download(i):
    time.sleep(0.004)
    return i

@opm.process(name="parse")
def parse(i):
    time.sleep(0.006 + (0.02 if i > 250 else 0))
    return i

@opm.write(items=lambda _: 3)
def store(i):
    time.sleep(0.01)
    if i % 97 == 5:
        opm.current_stage().set_attribute("file.name", f"part-{i}.parquet")
        time.sleep(0.2)
    if i == 13:
        raise ValueError(i)

def passing(take, do, give):
    while (item := take.get()) is not None:
        try:
            found = do(item)
        except ValueError:
            continue
        if give is not None:
            give.put(found)
    if give is not None:
        give.put(None)

def main(count, **more):
    opm.configure(trace_url="https://tempo.example/trace/{trace_id}")
    with opm.run("nightly-import", total=3 * count, **more) as run:
        documents = opm.wrap_queue(queue.Queue(8), name="documents")
        rows = opm.wrap_queue(queue.Queue(8), name="rows")
        threads = [
            threading.Thread(target=passing, args=(documents, parse, rows)),
            threading.Thread(target=passing, args=(rows, store, None)),
        ]
        for thread in threads:
            thread.start()
        for i in range(count):
            if more.get("live") and i % 60 == 20:
                print(f"half of batch {i // 60} is there")
                log.warning("document %d has no date", i)
            documents.put(download(i))
        documents.put(None)
        for thread in threads:
            thread.join()
    return run

import logging
logging.basicConfig(format="%(levelname)s %(message)s")
log = logging.getLogger("nightly")
"""

SEQUENTIAL: Final = """
import time
import otel_pipeline_metrics as opm

@opm.fetch
def load(n):
    time.sleep(0.3)
    return list(range(n))

@opm.process
def clean(row):
    time.sleep(0.002 + (0.05 if row == 77 else 0))
    return row

@opm.process
def aggregate(rows):
    time.sleep(0.2)

@opm.write
def save(rows):
    time.sleep(0.4)
    raise ConnectionResetError

opm.configure()
try:
    with opm.run("orders"):
        rows = [clean(row) for row in load(300)]
        time.sleep(0.2)
        aggregate(rows)
        save(rows)
except ConnectionResetError:
    pass  # its traceback would show paths of this machine
"""


def quick_start() -> str:
    """Return the first program of the README."""
    mark = 'service_name="quick-start"'
    return next(block.code for block in python_blocks() if mark in block.code)


PROGRAMS: Final[dict[str, Callable[[], Program]]] = {
    "quick-start": lambda: Program("python app.py", quick_start(), 160),
    "demo": lambda: Program(
        "python -m examples.stdlib_index",
        "import runpy, sys\nsys.argv = ['stdlib_index', '--out', 'demo-out', '--limit', '400']\n"
        "runpy.run_module('examples.stdlib_index', run_name='__main__')",
        160,
    ),
    "queues": lambda: Program("python nightly.py", f"{QUEUES}\nmain(300)", 160),
    "failed": lambda: Program("python orders.py", SEQUENTIAL, 132),
    "live": lambda: Program(
        "python nightly.py", f"{QUEUES}\nmain(2000, live=True)", 110, "no date", 6.0
    ),
}


# --- terminals ------------------------------------------------------------------------------


def terminal(program: Program, folder: Path) -> pyte.Screen:
    """Run a program on a terminal; return its screen at the moment of the picture."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, program.columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    running = subprocess.Popen(
        [sys.executable, "-c", program.code],
        cwd=folder,
        env={**kept, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = pyte.Screen(program.columns, ROWS)
    stream = pyte.ByteStream(screen)
    end, last = time.monotonic() + SECONDS, None
    try:
        while time.monotonic() < (end if last is None else last):
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                stream.feed(os.read(ours, 65536))
            except OSError:  # Linux says so once the program has ended
                break
            if program.until and last is None and program.until in "\n".join(screen.display):
                last = time.monotonic() + program.wait_s
        return screen
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def drawn(screen: pyte.Screen, title: str) -> str:
    """Return a screen as SVG, without what it would load from elsewhere."""
    lines = [_line(screen.buffer[row], screen.columns) for row in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    width = max(len(line.plain.rstrip()) for line in lines) + 1
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True)
        for line in lines:
            line.truncate(width)
            console.print(line, soft_wrap=True)
        console.print()  # the picture ends within the last line
    svg = console.export_svg(title=title, theme=_THEME, unique_id="terminal")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _line(cells: Any, columns: int) -> Text:
    line = Text()
    for column in range(columns):
        cell = cells[column]
        words = [name for name in ("bold", "italics", "reverse") if getattr(cell, name)]
        words = ["italic" if word == "italics" else word for word in words]
        if cell.fg != "default":
            words.append(_colour(cell.fg))
        line.append(cell.data, " ".join(words))
    return line


def _colour(name: str) -> str:
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = _COLOURS.get(name, name)
    return re.sub("^bright(?=[a-z])", "bright_", name)


# --- pages ----------------------------------------------------------------------------------


def report_of(code: str, folder: Path) -> RunReport:
    """Run a program that writes `report.json`; return the report."""
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OTEL_PIPELINE_METRICS_CONSOLE": "off"},
        check=False,
        stderr=subprocess.DEVNULL,
    )
    return RunReport.load(folder / "report.json")


def photograph(html: str, target: Path, width: int, height: int, scheme: str) -> None:
    """Write a picture of a page, in a frame: a headless window is at least 500 pixels wide.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError("chromium is needed for pictures of the page")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.html").write_text(html, "utf-8")
        frame = folder / "frame.html"
        frame.write_text(
            f'<meta name="color-scheme" content="{scheme}"><style>body {{ margin: 0 }} iframe '
            f"{{ border: 0; width: {width}px; height: {height}px }}</style>"
            '<iframe src="page.html" scrolling="no"></iframe>',
            "utf-8",
        )
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                f"--user-data-dir={folder / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
                f"--window-size={width},{height}",
                f"--screenshot={target}",
                frame.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


# spans that go nowhere, so that calls have traces
TRACED: Final = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
{QUEUES}
main(400, report="report.json")
"""
PAGES: Final = {
    # of the README's first screen: one stage is the slowest all the time
    "page": (TRACED.replace("0.006 + (0.02 if i > 250 else 0)", "0.018"), 1280, 880, "light"),
    "page-whole": (TRACED, 1280, 1900, "light"),
    "page-dark": (TRACED, 1280, 1900, "dark"),
    "page-phone": (TRACED, 500, 1500, "dark"),
    "page-in-turn": (
        SEQUENTIAL.replace('opm.run("orders")', 'opm.run("orders", report="report.json")'),
        1280,
        1100,
        "light",
    ),
}


def main(names: list[str]) -> None:
    """Make the pictures with these names, or all."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, program in PROGRAMS.items():
            if not names or key in names:
                found = program()
                (IMAGES / f"{key}.svg").write_text(
                    drawn(terminal(found, folder), found.title), "utf-8"
                )
                print(f"docs/images/{key}.svg")
        made: dict[str, str] = {}
        for key, (code, width, height, scheme) in PAGES.items():
            if not names or key in names:
                if code not in made:
                    made[code] = report_of(code, folder).render("html")
                photograph(made[code], IMAGES / f"{key}.png", width, height, scheme)
                print(f"docs/images/{key}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
