"""Run each example as a user runs it, and test that it does what it says."""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]
STDLIB = Path(sysconfig.get_path("stdlib"))
SMALL = ("synchronous", "plain_asyncio", "manual_recording", "console_output")


def run_example(name: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an example with no OTEL_* but those given, in its own interpreter."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *map(str, arguments)],
        cwd=ROOT,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def report_of(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def stages_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in report["stages"]}


def rows_of(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_every_example_is_tested_here() -> None:
    found = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}
    # those of engines are tested with them
    engines = {"celery_pipeline", "ray_pipeline", "pyspark_pipeline"}
    assert found == {*SMALL, "stdlib_index", "through_collector", *engines}


@pytest.mark.parametrize("name", SMALL)
def test_the_small_ones_stay_small(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert f"python -m examples.{name}" in (ast.get_docstring(ast.parse(text)) or "")


# --- the standard library's index ------------------------------------------------------------


def test_the_index_of_a_package(tmp_path: Path) -> None:
    """Rows and numbers equal those that parsing the package again gives."""
    package = STDLIB / "json"
    done = run_example("stdlib_index", "--out", tmp_path, "--root", package)
    assert (done.returncode, done.stdout) == (0, "")

    trees = {
        "json" if path.stem == "__init__" else f"json.{path.stem}": ast.parse(path.read_bytes())
        for path in package.glob("*.py")
    }
    database = tmp_path / "index.db"
    assert sorted(trees) == [
        row[0] for row in rows_of(database, "SELECT name FROM module ORDER BY 1")
    ]
    defined = sorted(
        (module, type(node).__name__, node.name, node.lineno)
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    )
    assert defined == sorted(rows_of(database, "SELECT * FROM definition"))
    assert rows_of(database, "SELECT * FROM import WHERE imported = 'argparse'") == [
        ("json.tool", "argparse", 1)
    ]
    (imports,) = rows_of(database, "SELECT count(*), count(DISTINCT imported) FROM import")

    report = report_of(tmp_path / "export_metrics.json")
    assert tuple(report["run"][key] for key in ("pipeline", "result", "partial")) == (
        "stdlib-index",
        "success",
        False,
    )
    stages = stages_of(report)
    assert {"read_sources": 1, "parse": 1, "parse_module": len(trees), "store": 1} == {
        name: stage["count"] for name, stage in stages.items()
    }
    assert [
        stages[name]["kind"] for name in ("read_sources", "parse", "parse_module", "store")
    ] == ["fetch", "process", "process", "write"]
    assert len(trees) == stages["read_sources"]["items"]["out"]
    assert (
        sum(p.stat().st_size for p in package.glob("*.py")) == stages["read_sources"]["bytes"]["in"]
    )
    assert len(trees) == stages["parse"]["items"]["out"]
    assert len(trees) == stages["store"]["items"]["in"]
    assert len(trees) + len(defined) + imports[0] == stages["store"]["items"]["out"]

    (cache,) = report["caches"]
    # relative imports have no module of their own to resolve, and are left out of the rows too
    assert imports == (cache["hits"] + cache["misses"], cache["misses"])
    assert report["resources"]["rss_bytes"]["peak"] > 1_000_000


def test_the_index_prints_a_summary(tmp_path: Path) -> None:
    """The summary has every stage and the cache, and is all that is printed."""
    done = run_example("stdlib_index", "--out", tmp_path, "--limit", "60")
    assert done.returncode == 0
    assert rows_of(tmp_path / "index.db", "SELECT count(*) FROM module") == [(60,)]
    summary = done.stderr[done.stderr.index("run stdlib-index: success in ") :]
    for name in ("read_sources", "parse", "parse_module", "store", "resolved modules"):
        assert name in summary
    assert f"report: {tmp_path / 'export_metrics.json'}" in summary
    assert done.stderr.count("run stdlib-index: success in ") == 1
    assert done.stderr.startswith(summary)
    assert len(done.stderr.splitlines()) < 40


def test_the_index_shows_the_cache_among_the_metrics(tmp_path: Path) -> None:
    done = run_example(
        "stdlib_index",
        *("--out", tmp_path, "--root", STDLIB / "json"),
        OTEL_METRICS_EXPORTER="console",
    )
    (cache,) = report_of(tmp_path / "export_metrics.json")["caches"]
    requests = [line for line in done.stderr.splitlines() if "pipeline.cache.requests" in line]
    assert [f"{cache['hits']} requests", f"{cache['misses']} requests"] == [
        " ".join(line.split()[-2:]) for line in requests
    ]
    assert "pipeline.cache.hit.ratio" in done.stderr


def test_files_that_are_not_python_are_counted_and_left_out(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "good.py").write_text("import json\nimport nothing_of_the_kind\n")
    (sources / "broken.py").write_text("def\n")
    done = run_example("stdlib_index", "--out", tmp_path / "new" / "out", "--root", sources)
    assert done.returncode == 0
    database = tmp_path / "new" / "out" / "index.db"
    assert rows_of(database, "SELECT * FROM module") == [("good", 2)]
    assert rows_of(database, "SELECT imported, in_stdlib FROM import ORDER BY 1") == [
        ("json", 1),
        ("nothing_of_the_kind", 0),
    ]
    stages = stages_of(report_of(tmp_path / "new" / "out" / "export_metrics.json"))
    assert stages["parse_module"]["errors"] == {"total": 1, "by_type": {"SyntaxError": 1}}
    assert stages["parse"]["items"]["out"] == 1
    assert "1 (SyntaxError 1)" in done.stderr


def test_an_empty_folder_is_a_short_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_example("stdlib_index", "--out", tmp_path, "--root", tmp_path / "empty")
    assert done.returncode == 0
    report = report_of(tmp_path / "export_metrics.json")
    assert list(stages_of(report)) == ["read_sources"]
    (cache,) = report["caches"]
    assert (cache["hits"], cache["misses"], cache["hit_ratio"]) == (0, 0, None)
    assert rows_of(tmp_path / "index.db", "SELECT * FROM module") == []


def test_a_second_index_replaces_the_first(tmp_path: Path) -> None:
    for limit in (5, 3):
        assert run_example("stdlib_index", "--out", tmp_path, "--limit", limit).returncode == 0
    assert rows_of(tmp_path / "index.db", "SELECT count(*) FROM module") == [(3,)]
    assert stages_of(report_of(tmp_path / "export_metrics.json"))["parse_module"]["count"] == 3


def test_the_index_is_made_without_a_collector(tmp_path: Path) -> None:
    """A dead endpoint costs a log line and the flush's deadline, never the result."""
    done = run_example(
        "stdlib_index",
        *("--out", tmp_path, "--root", STDLIB / "json"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT="0.5",
    )
    assert done.returncode == 0
    assert report_of(tmp_path / "export_metrics.json")["run"]["result"] == "success"
    assert "could not be exported to http://127.0.0.1:9" in done.stderr


# --- the small ones ----------------------------------------------------------------------------


def test_synchronous(tmp_path: Path) -> None:
    done = run_example("synchronous", "--out", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "page 2 is left out: invalid literal for int() with base 10: 'five'",
        "download: 2 retries, 0 errors",
        "parse: 0 retries, 1 errors",
        "save: 0 retries, 0 errors",
    ]
    assert [int(line) for line in (tmp_path / "numbers.txt").read_text().splitlines()] == [
        3,
        1,
        4,
        1,
        5,
        9,
        2,
        5,
        8,
    ]
    report = report_of(tmp_path / "export_metrics.json")
    assert report["run"]["result"] == "success"  # the error was caught inside the run
    stages = stages_of(report)
    assert [(name, stage["count"]) for name, stage in stages.items()] == [
        ("download", 4),
        ("parse", 4),
        ("save", 3),
    ]
    assert stages["download"]["bytes"] == {"in": 5 + 7 + 8 + 3, "out": None}
    assert stages["parse"]["errors"] == {"total": 1, "by_type": {"ValueError": 1}}
    assert stages["parse"]["items"] == {"in": None, "out": 9}
    assert stages["save"]["items"] == {"in": None, "out": 9}
    assert stages["save"]["bytes"] == {"in": None, "out": 18}
    assert "error.type=ConnectionResetError  2 retries" in done.stderr  # the metrics' table
    assert "error  error.type=ValueError" in done.stderr  # the span's line


def test_plain_asyncio(tmp_path: Path) -> None:
    done = run_example("plain_asyncio", "--out", tmp_path)
    assert done.returncode == 0
    first, last = done.stdout.splitlines()
    assert first == "fetched 6 pages side by side"
    report = report_of(tmp_path / "export_metrics.json")
    stages = stages_of(report)
    pages = stages["page"]["duration_s"]["total"]
    assert last == f"6 pages took {pages:.2f} s in a run of {report['run']['wall_s']:.2f} s"
    assert (stages["page"]["count"], stages["page"]["errors"]["total"]) == (6, 0)
    assert stages["page"]["duration_s"]["min"] >= 0.045
    assert (stages["numbers"]["count"], stages["numbers"]["abandoned"]) == (1, 1)
    assert stages["numbers"]["items"]["out"] == 4
    # the consumer slept 60 ms while the generator waited
    assert stages["numbers"]["duration_s"]["total"] < report["run"]["wall_s"] - 0.06
    assert (stages["upload"]["count"], stages["upload"]["cancelled"]) == (1, 1)
    assert "0 (1 abandoned)" in done.stderr
    assert "0 (1 cancelled)" in done.stderr


def test_manual_recording(tmp_path: Path) -> None:
    done = run_example("manual_recording", "--out", tmp_path)
    assert done.returncode == 0
    data = report_of(tmp_path / "export_metrics.json")
    assert list(data) == ["start_time", "duration_s", "stages", "resources", "caches"]
    assert {name: (stage["count"], stage["errors"]) for name, stage in data["stages"].items()} == {
        "count words": (39, 0),
        "upload": (1, 1),
    }
    assert data["resources"] == {
        "avg_cpu_percent": 25.0,
        "peak_cpu_percent": 37.5,
        "avg_memory_mb": 72.0,
        "peak_memory_mb": 80.0,
        "avg_disk_io_mb": 0.5,
        "avg_network_io_mb": 0.0,
        "cpu_samples": 2,
        "memory_samples": 2,
    }
    assert data["caches"] == {
        "words": {
            "hits": 9,
            "misses": 30,
            "hit_rate_pct": pytest.approx(100 * 9 / 39),
            "evictions": 0,
            "expirations": 0,
            "size_mb": 4096 / 1024 / 1024,
        }
    }
    each = data["stages"]["count words"]["avg_duration_s"] * 1e6
    assert done.stdout.splitlines() == [
        f"count words: 39 items, {each:,.1f} µs each, 0 errors",
        "upload: 1 items, 250,000.0 µs each, 1 errors",
        "words: 23.1 % hits",
        "peak memory: 80.0 MB",
        f"written to {tmp_path / 'export_metrics.json'}",
    ]
    report = report_of(tmp_path / "report.json")
    assert {name: stage["items"]["out"] for name, stage in stages_of(report).items()} == {
        "count words": 39,
        "upload": 1,
    }


def test_console_output() -> None:
    """The README's way to check telemetry: spans, histograms, readings, the cache ratio."""
    done = run_example("console_output")
    assert (done.returncode, done.stdout) == (0, "")
    spans, _, rest = done.stderr.partition("\nmetrics at ")
    metrics, _, summary = rest.partition("\nrun prices: success in ")
    names = [line[14:].split("  ok")[0].rsplit("  ", 1)[0].rstrip() for line in spans.splitlines()]
    assert names[:5] == ["  download", "    look_up", "    look_up", "  convert", "  store"]
    assert (names.count("  download"), names.count("run prices")) == (20, 1)
    assert [line for line in spans.splitlines() if line.startswith("…")] == [
        f'… and 5 more "{name}" spans' for name in ("download", "convert", "store")
    ]
    rows = {
        " ".join(line[: line.index(value)].split()): value
        for line in metrics.splitlines()[2:]
        if (value := line.rsplit("   ", 1)[-1].strip())
    }
    of_stage = "kind=fetch pipeline=prices"
    assert rows[f"pipeline.stage.duration stage=download {of_stage}"].startswith("count 25  avg ")
    assert rows[f"pipeline.stage.items stage=download {of_stage} direction=out"] == "75 items"
    assert rows["pipeline.cache.hit.ratio cache=rates"] == f"{73 / 75:.3g}"
    assert rows["process.memory.usage"].endswith(" MiB")
    assert "process.cpu.utilization" in rows
    assert "rates" in summary


@pytest.mark.parametrize("name", [name for name in SMALL if name != "console_output"])
def test_without_arguments_only_the_temporary_folder_is_used(name: str, tmp_path: Path) -> None:
    before = sorted(ROOT.iterdir())
    assert run_example(name, TMPDIR=str(tmp_path)).returncode == 0
    (folder,) = tmp_path.iterdir()
    assert name.replace("_", "-") == folder.name
    assert sorted(ROOT.iterdir()) == before


def test_the_collector_demo_names_the_servers_it_lacks(tmp_path: Path) -> None:
    done = run_example("through_collector", "--out", tmp_path, XDG_CACHE_HOME=str(tmp_path / "no"))
    assert done.returncode == 1
    assert "make backends" in done.stdout
