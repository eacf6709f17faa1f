"""The example service, driven for a short time without servers."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

for needed in ("fastapi", "pybreaker", "tenacity", "uvicorn"):
    pytest.importorskip(needed)

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def test_no_order_is_lost_while_what_it_depends_on_is_broken(tmp_path: Path) -> None:
    """With less time, the breaker would not open."""
    more = ["--no-servers", "--seconds", "8", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "examples.service", *more],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("OTEL_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout
    assert (done.returncode, done.stderr) == (0, ""), said + done.stderr
    assert "left out: the Collector, Prometheus, Alertmanager and alerts (not asked for)" in said
    assert "answers 500" in said
    assert re.search("^The verdict on the whole run: .+", said, re.MULTILINE)
    found = re.search(r"([\d,]+) orders were accepted; ([\d,]+) are in SQLite", said)
    assert found is not None
    out = tmp_path / "service"
    with closing(sqlite3.connect(out / "orders.sqlite")) as database:
        (rows,) = database.execute("SELECT count(*) FROM orders").fetchone()
    assert [int(each.replace(",", "")) for each in found.groups()] == [rows, rows]
    stages = {row["name"]: row for row in json.loads((out / "report.json").read_text())["stages"]}
    assert stages["store"]["count"] == rows
    # the other service was broken, and orders waited for it
    assert stages["look_up"]["errors"]["total"] > 0
    assert stages["enrich"]["errors"]["total"] == 0
