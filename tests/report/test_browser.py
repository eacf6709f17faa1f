"""The page in a real browser without a network: no console message, nothing too wide."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.report import samples

if TYPE_CHECKING:
    from otel_pipeline_metrics.report import RunReport

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
HEIGHT = 1200

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have chromium")
        pytest.skip("no chromium")
    return found


def run(browser: str, folder: Path, *arguments: str) -> tuple[str, str]:
    """Run the browser headless and offline with a new profile; return its output and log."""
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-device-scale-factor=1",
            f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--enable-logging=stderr",
            "--v=0",
            *arguments,
        ],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def pixels(png: Path) -> tuple[int, int, list[bytes]]:
    """Decode an 8-bit RGB or RGBA picture into rows of RGB."""
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", content[16:29])
    assert (depth, rest) == (8, [0, 0, 0])
    size = {2: 3, 6: 4}[colour]
    packed, at = b"", 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(packed), width * size
    rows, before = [], bytes(stride)
    for y in range(height):
        kind, *line = raw[y * (stride + 1) : (y + 1) * (stride + 1)]
        row = bytearray(line)
        for x in range(stride if kind else 0):
            a = row[x - size] if x >= size else 0
            b, c = before[x], before[x - size] if x >= size else 0
            row[x] = (row[x] + (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) & 255
        before = bytes(row)
        rows.append(b"".join(before[i : i + 3] for i in range(0, stride, size)))
    return width, height, rows


def paeth(a: int, b: int, c: int) -> int:
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    return a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c


def page(report: RunReport, path: Path) -> Path:
    path.write_text(report.render("html"), "utf-8")
    return path


REPORTS = {
    "full": samples.full,
    "hostile": samples.hostile,
    "bare": samples.bare,
    "in_turn": samples.in_turn,
}
WIDTHS = (390, 700, 1280)

# runs in a copy of a page without its policy
PROBE = (Path(__file__).parent / "look.js").read_text("utf-8")


class Pages(ThreadingHTTPServer):
    """Serves pages, takes what the probe found in each, and tells when all have answered."""

    def __init__(self, pages: dict[str, str], awaited: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages = pages
        self.awaited = awaited
        self.found: dict[str, dict[str, Any]] = {}
        self.complete = threading.Event()


class Answer(BaseHTTPRequestHandler):
    """One request to `Pages`."""

    server: Pages

    def do_GET(self) -> None:
        # a browser prints a page once all its parts are there: this one comes last
        if self.path == "/last":
            self.server.complete.wait(60)
        body = self.server.pages.get(self.path.lstrip("/"), "").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.found[found["name"]] = found
        if len(self.server.found) == self.server.awaited:
            self.server.complete.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def looked_at(browser: str, folder: Path, scheme: str) -> dict[str, dict[str, Any]]:
    """Return what the probe tells of each report at each width, by "name-width"."""
    pages, frames = {}, []
    for name, made in REPORTS.items():
        html = POLICY.sub("", made().render("html"))
        pages[name] = html.replace("</body>", f"<script>{PROBE}</script></body>")
        frames += [
            f'<iframe src="{name}#{name}-{width}" width="{width}" height="{HEIGHT}" '
            'frameborder="0"></iframe>'
            for width in WIDTHS
        ]
    pages["all"] = (
        f'<meta name="color-scheme" content="{scheme}"><link rel="icon" href="data:,">'
        f"{''.join(frames)}<iframe src='last'></iframe>"
    )
    with Pages(pages, len(frames)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _, log = run(
                browser,
                folder,
                "--dump-dom",
                # frames out of sight are not drawn
                f"--window-size={sum(WIDTHS) + 200},{HEIGHT * (len(REPORTS) + 1)}",
                f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
                f"http://127.0.0.1:{server.server_port}/all",
            )
        finally:
            server.complete.set()
            server.shutdown()
            thread.join()
    assert ":CONSOLE" not in log
    return server.found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_screenshot_has_the_colours_of_the_scheme(
    browser: str, tmp_path: Path, width: int, scheme: str
) -> None:
    # in a frame, since a headless window is at least 500 pixels wide
    page(samples.full(), tmp_path / "report.html")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<meta name="color-scheme" content="{scheme}"><style>body {{ margin: 0 }} iframe '
        f"{{ border: 0; width: {width}px; height: {HEIGHT}px }}</style>"
        '<iframe src="report.html"></iframe>',
        "utf-8",
    )
    shot = tmp_path / "shot.png"
    _, log = run(
        browser,
        tmp_path,
        f"--screenshot={shot}",
        f"--window-size={max(width, 500)},{HEIGHT}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        frame.as_uri(),
    )
    assert ":CONSOLE" not in log
    _, _, rows = pixels(shot)
    seen = [row[: 3 * width] for row in rows]
    colours = {row[x : x + 3] for row in seen for x in range(0, len(row), 3)}
    paper, busy, mark = {
        "light": (b"\xf6\xf7\xf9", b"\x1f\x6f\x8b", b"\xb3\x26\x1e"),
        "dark": (b"\x10\x15\x1b", b"\x4f\xb3\xd1", b"\xff\x9a\x8f"),
    }[scheme]
    # text and hatching have hundreds of shades, a blank page has one
    assert len(colours) > 100
    assert {paper, busy, mark} <= colours


def test_the_policy_stops_scripts_and_the_browser_logs_it(browser: str, tmp_path: Path) -> None:
    html = page(samples.full(), tmp_path / "report.html")
    text = html.read_text("utf-8").replace("</body>", "<script>document.title = 1</script></body>")
    html.write_text(text, "utf-8")
    dom, log = run(browser, tmp_path, "--dump-dom", html.as_uri())
    assert "<title>nightly: success</title>" in dom
    assert ":CONSOLE" in log


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_too_wide_covered_cut_or_faint(
    browser: str, tmp_path: Path, scheme: str
) -> None:
    measured = looked_at(browser, tmp_path, scheme)
    assert measured.keys() == {f"{name}-{width}" for name in REPORTS for width in WIDTHS}
    for name, found in measured.items():
        width = int(name.rpartition("-")[2])
        assert found["needed"] <= found["width"] <= width, name
        for fault in ("outside", "cut", "faint", "overlaps"):
            assert found[fault] == [], (name, fault)
        assert found["stages"] == (0 if name.startswith("bare") else 3)
        assert found["texts"] > (5 if name.startswith("bare") else 100)
        assert found["data"] == "otel_pipeline_metrics/report/2"
        # a string without a place to break has to break somewhere
        if not name.startswith("hostile"):
            assert found["broken"] == [], name
        assert [one["says"] for one in found["frames"]] == [
            one["scrolls"] for one in found["frames"]
        ], name
    assert any(one["scrolls"] for one in measured["full-390"]["frames"])
    assert not any(one["scrolls"] for one in measured["full-1280"]["frames"])


HOST = """
<div class="jp-Notebook" id="host">
  <h1>Title</h1><h2>Part</h2><p class="note">With <a href="#x">a link</a> and <b>weight</b>.</p>
  <table class="frame"><thead><tr><th>a</th></tr></thead>
  <tbody><tr><td class="text">1</td></tr></tbody></table>
  <ul class="legend"><li>one</li></ul><ol class="flow"><li class="stage">two</li></ol>
  <div class="bar head verdict scroll"><span class="running busy idle">three</span></div>
  <dl class="facts"><dt>k</dt><dd class="code">v</dd></dl><section>s</section><figure>f</figure>
</div>
"""
STYLES = """
onload = () => {
  const styles = () => JSON.stringify([...document.querySelectorAll('body, #host, #host *')].map(
    node => [...getComputedStyle(node)].map(key => getComputedStyle(node).getPropertyValue(key))))
  const shown = document.getElementById('shown'), before = styles()
  shown.style.display = 'none'
  shown.innerHTML = document.getElementById('output').innerHTML
  const same = before === styles()
  shown.style.display = ''
  const bar = getComputedStyle(shown.querySelector('.opm .bar'))
  document.title = JSON.stringify({same, bar: bar.display, count: JSON.parse(before).length})
}
"""


def test_a_report_in_a_notebook_changes_nothing_around_it(browser: str, tmp_path: Path) -> None:
    html = samples.full()._repr_html_()
    assert html is not None
    book = tmp_path / "book.html"
    book.write_text(
        f"<!DOCTYPE html>{HOST}<div id='shown'></div>"
        f"<template id='output'>{html}</template><script>{STYLES}</script>",
        "utf-8",
    )
    dom, log = run(browser, tmp_path, "--dump-dom", book.as_uri())
    found = re.search(r"<title>(.*)</title>", dom)
    assert found is not None
    assert json.loads(found[1]) == {"same": True, "bar": "flex", "count": 25}
    assert ":CONSOLE" not in log
