"""The page in a real browser without a network: no console message, nothing too wide."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.report import samples

if TYPE_CHECKING:
    from pathlib import Path

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
            "--host-resolver-rules=MAP * ~NOTFOUND",
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


REPORTS = {"full": samples.full, "hostile": samples.hostile, "bare": samples.bare}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
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


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [400, 700, 1400])
def test_nothing_is_too_wide_and_nothing_runs(
    browser: str, tmp_path: Path, name: str, width: int
) -> None:
    html = page(REPORTS[name](), tmp_path / "report.html")
    # this copy may run a script that measures
    probe = (
        "<script>onload = () => parent.postMessage(JSON.stringify({"
        "inner: document.documentElement.clientWidth,"
        "needed: document.documentElement.scrollWidth,"
        "stages: document.querySelectorAll('.stage').length,"
        "data: JSON.parse(document.getElementById('report').textContent).schema"
        "}), '*')</script></body>"
    )
    text = POLICY.sub("", html.read_text("utf-8"))
    html.write_text(text.replace("</body>", probe), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>onmessage = event => document.title = event.data</script>"
        f'<iframe src="report.html" width="{width}" height="{HEIGHT}" frameborder="0"></iframe>',
        "utf-8",
    )
    dom, log = run(browser, tmp_path, "--dump-dom", "--virtual-time-budget=2000", frame.as_uri())
    found = re.search(r"<title>(.*)</title>", dom)
    assert found is not None
    measured = json.loads(found[1])
    assert measured["needed"] <= measured["inner"] <= width
    assert measured["stages"] == (0 if name == "bare" else 3)
    assert measured["data"] == "otel_pipeline_metrics/report/2"
    assert ":CONSOLE" not in log
