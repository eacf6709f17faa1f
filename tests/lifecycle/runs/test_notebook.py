"""A real notebook kernel: what its cells show, and what they do not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PREPARE = """
import logging, os, threading, time
os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = "20"
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors

@opm.process
def load(n):
    return n
"""


def outputs(folder: Path, *cells: str) -> list[list[dict[str, Any]]]:
    """Run the cells in a new kernel; return the outputs of each."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell["outputs"] for cell in book.cells]


def written(found: list[dict[str, Any]], name: str = "stderr") -> str:
    return "".join(one["text"] for one in found if one.get("name") == name)


def test_reports_are_shown_as_pages_and_a_run_writes_its_summary(tmp_path: Path) -> None:
    _, ran, of_report, of_run, going_on, without = outputs(
        tmp_path,
        PREPARE + "opm.configure()",
        "with opm.run('nightly', resources=False) as run:\n    load(1)",
        "run.report",
        "run",
        "with opm.run('second', resources=False) as second:\n    load(2); display(second)",
        "import sys; sys.modules['jinja2'] = None\n"
        "from otel_pipeline_metrics.report import page; page._environment.cache_clear()\n"
        "run.report",
    )
    assert "run nightly: success" in written(ran)
    for found, name, result in ((of_report, "nightly", "success"), (of_run, "nightly", "success")):
        (shown,) = found
        html = shown["data"]["text/html"]
        assert re.search(rf"<h1>{name}</h1>", html)
        assert result in html
        assert "<script" not in html
        assert "<html" not in html
        assert shown["data"]["text/plain"].startswith("<Run")
    first = next(one for one in going_on if "data" in one)
    assert "partial report" in first["data"]["text/html"]
    (plain,) = without
    assert plain["data"].keys() == {"text/plain"}


def test_background_threads_write_into_no_cell_that_did_not_ask(tmp_path: Path) -> None:
    _, started, quiet, again, asked = outputs(
        tmp_path,
        PREPARE + 'opm.configure(exporter="console", console="all")',
        """
        go_on = threading.Event()
        done = threading.Event()

        def work():
            go_on.wait()
            for n in range(30):
                load(n)
            errors.logger.warning("from the background")
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        """.replace("\n        ", "\n"),
        # an interval of 20 ms passes many times
        "go_on.set(); done.wait(10); time.sleep(0.3); print('mine')",
        "1 + 1",
        "thread.join(); opm.flush().ok",
    )
    assert started == []
    assert written(quiet, "stdout") == "mine\n"
    assert written(quiet) == ""
    assert [one["output_type"] for one in again] == ["execute_result"]
    text = written(asked)
    assert text.count("  load  ") == 30
    assert "from the background\n" in text
    assert "pipeline.stage.duration" in text


def test_a_run_shows_what_its_threads_had_to_say(tmp_path: Path) -> None:
    _, ran, quiet = outputs(
        tmp_path,
        PREPARE + 'opm.configure(exporter="console", console="all")',
        """
        from concurrent.futures import ThreadPoolExecutor
        with opm.run("nightly", resources=False), ThreadPoolExecutor(2) as pool:
            list(pool.map(load, range(7)))
        """.replace("\n        ", "\n"),
        "time.sleep(0.3)",
    )
    text = written(ran)
    assert text.count("  load  ") == 7
    assert text.index("  load  ") < text.index("run nightly: success")
    assert quiet == []
