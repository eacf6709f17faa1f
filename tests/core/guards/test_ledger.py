"""Test the ledger in a run's report: the process's, exact at the end of the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import configure

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.export.conftest import Received
    from tests.lifecycle.configure.support import Captured

COUNTS = ("created", "exported", "sampled_out", "dropped", "spooled", "pending")


def run(stages: int = 3) -> dict[str, Any]:
    """Run with so many spans, and the run's own."""
    with opm.run("r", resources=False) as made:
        for _ in range(stages):
            with opm.stage("s"):
                pass
    telemetry: dict[str, Any] = made.report.telemetry
    assert telemetry["spans"].pop("lost") == telemetry["spans"]["dropped"]
    for kind in ("spans", "metric_points"):
        ledger = telemetry[kind]
        assert tuple(ledger) == COUNTS
        assert ledger["created"] == sum(ledger[count] for count in COUNTS[1:])
    return telemetry


def flush() -> None:
    assert configure._export is not None
    configure._export.flush(10)


def test_the_ledger_is_exact_at_each_runs_end(
    http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    opm.configure(console=False)
    first = run()
    assert first["spans"] == dict.fromkeys(COUNTS, 0) | {"created": 4, "pending": 4}
    assert first["metric_points"] == dict.fromkeys(COUNTS, 0)
    # nothing was sent yet, so it is unknown whether the collector works
    assert (first["collector"], first["flush_s"]) == (None, None)
    flush()
    second = run()
    assert second["spans"] == dict.fromkeys(COUNTS, 0) | {
        "created": 8,
        "exported": 4,
        "pending": 4,
    }
    points = second["metric_points"]["exported"]
    assert points == http_collector.points.total() > 0
    assert second["collector"] == "ok"
    assert second["flush_s"] > 0
    assert first["process"] == second["process"]
    assert first["process"].startswith(f"{os.getpid()}-")
    assert second["stage_spans"] == {"made": 3, "skipped": 0}
    http_collector.refuse = True
    flush()
    third = run(stages=0)
    assert third["spans"] == dict.fromkeys(COUNTS, 0) | {
        "created": 9,
        "exported": 4,
        "dropped": 4,
        "pending": 1,
    }
    assert third["metric_points"]["dropped"] > 0
    assert third["collector"] == "unreachable"
    assert third["stage_spans"] == {"made": 0, "skipped": 0}
    report = {name: third[name] for name in third if name != "stage_spans"}
    assert opm.stats() == report


def test_the_ledger_equals_stats(captured: Captured) -> None:
    """With the user's own providers only the run's own numbers are known."""
    captured.configure(console=False)
    with opm.run("r", resources=False) as made, opm.stage("s"):
        pass
    telemetry = made.report.telemetry
    assert telemetry.keys() == {*opm.stats(), "stage_spans"}
    assert set(telemetry["spans"].values()) == {None}
    assert telemetry["stage_spans"] == {"made": 1, "skipped": 0}
    assert telemetry["collector"] is None


def test_a_loss_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every format, and only if there is one."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    opm.configure(console=False, flush_timeout=0.5)
    with opm.run("r", report=tmp_path / "r.json", resources=False):
        pass
    before = opm.RunReport.load(tmp_path / "r.json")
    assert "telemetry of this process" not in before.render("console")
    for _ in range(50):
        with opm.stage("s"):
            pass
    flush()
    with opm.run("r", report=tmp_path / "r.json", resources=False):
        pass
    after = opm.RunReport.load(tmp_path / "r.json")
    dropped = after.telemetry["spans"]["dropped"]
    assert dropped >= 48
    said = f"telemetry of this process so far: {dropped} spans dropped"
    assert said in after.render("console")
    assert said in after.render("markdown")
    assert "Spans dropped" in after.render("html")
