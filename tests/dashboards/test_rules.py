"""Each alert fires when it should, and not when it should not: `promtool test rules`."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics.cli.app import app
from otel_pipeline_metrics.dashboards.rules import FILE_NAME, SETTINGS, render
from tests.dashboards.naming import all_series
from tests.support.process import ROOT, binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

promtool = pytest.mark.backends

# a series by its name and its labels, and its values, a minute apart
Series = dict[str, str]

STAGE = 'job="j",pipeline_name="p",pipeline_stage_name="s"'
CALLS = f"pipeline_stage_duration_seconds_count{{{STAGE}}}"
FAILED = f'pipeline_stage_duration_seconds_count{{{STAGE},error_type="ValueError"}}'
BUCKET = f'pipeline_stage_duration_seconds_bucket{{{STAGE},le="%s"}}'
ACTIVE = 'pipeline_run_active{job="j",pipeline_name="p"}'
LIMITS = (
    'pipeline_bottleneck{job="j",pipeline_name="p",'
    'pipeline_bottleneck_kind="stage",pipeline_bottleneck_name="s"}'
)
SUCCESS = 'pipeline_run_last_success_time_seconds{job="j",pipeline_name="p"}'
LAG = f"pipeline_watermark_lag_seconds{{{STAGE}}}"
QUEUE = 'pipeline_queue_%s{job="j",instance="i",pipeline_name="p",pipeline_queue_name="q"}'
STALLED = f'pipeline_stalled_ratio{{{STAGE},instance="i"}}'
HITS = 'pipeline_cache_hit_ratio{job="j",instance="i",cache_name="c"}'
MEMORY = 'process_memory_usage_bytes{job="j",instance="i"}'
MEMORY_LIMIT = 'pipeline_container_memory_limit_bytes{job="j",instance="i"}'
SPOOL = 'pipeline_telemetry_spool_size_bytes{job="j",instance="i"}'
LOST = 'otel_sdk_exporter_%s_exported_total{job="j",instance="i",error_type="_OTHER"}'
SENT = 'otel_sdk_exporter_span_exported_total{job="j",instance="i"}'
DROPPED = 'pipeline_telemetry_operations_dropped_total{job="j",instance="i"}'


def buckets(first: str, last: str) -> Series:
    """Calls of under a second, and calls of two to four."""
    return {BUCKET % "1": first, BUCKET % "2": first, BUCKET % "4": last, BUCKET % "+Inf": last}


class Alert(NamedTuple):
    at: str
    fires: list[Series]
    is_quiet: list[Series]
    # each of these makes it quiet
    broken: Mapping[str, str]


ALERTS = {
    "PipelineLimitedByOneStage": Alert(
        "45m", [{LIMITS: "1x60"}], [{LIMITS: "1x10 0x50"}], {"limiting_share": "1"}
    ),
    "PipelineErrorBudgetBurnsFast": Alert(
        "90m",
        [{CALLS: "0+80x120", FAILED: "0+20x120"}],
        [
            {CALLS: "0+90x120", FAILED: "0+10x120"},
            # over since half an hour
            {CALLS: "0+80x120", FAILED: "0+20x60 1200x60"},
        ],
        {"burn_fast": "25", "error_budget": "0.02"},
    ),
    "PipelineErrorBudgetBurnsSlowly": Alert(
        "450m",
        [{CALLS: "0+93x480", FAILED: "0+7x480"}],
        [{CALLS: "0+95x480", FAILED: "0+5x480"}],
        {"burn_slow": "8", "error_budget": "0.02"},
    ),
    "PipelineWithoutSuccess": Alert(
        "1600m",
        [{SUCCESS: "0x1700"}, {SUCCESS: "0x60 stale"}],
        [{SUCCESS: "0x800 50000x900"}],
        {"no_success_seconds": "97000"},
    ),
    "PipelineWatermarkLags": Alert(
        "20m", [{LAG: "400x30"}], [{LAG: "200x30"}], {"watermark_lag_seconds": "500"}
    ),
    "PipelineQueueFull": Alert(
        "15m",
        [{QUEUE % "size": "98x20", QUEUE % "capacity": "100x20"}],
        [
            {QUEUE % "size": "90x20", QUEUE % "capacity": "100x20"},
            {QUEUE % "size": "90x20", QUEUE % "capacity": "0x20"},
        ],
        {"queue_full_share": "0.99"},
    ),
    "PipelineStalled": Alert(
        "5m", [{STALLED: "1x10"}], [{STALLED: "0x10"}], {"stalled_value": "2"}
    ),
    "PipelineCacheHitRatioFallen": Alert(
        "1540m",
        [{HITS: "0.9x1440 0.3x120"}],
        [{HITS: "0.9x1440 0.8x120"}],
        {"cache_fallen_share": "0.2"},
    ),
    "PipelineMemoryNearLimit": Alert(
        "15m",
        [{MEMORY: "95x20", MEMORY_LIMIT: "100x20"}],
        [{MEMORY: "80x20", MEMORY_LIMIT: "100x20"}],
        {"memory_share": "0.96"},
    ),
    "PipelineSpoolFills": Alert(
        "20m", [{SPOOL: "90000000x30"}], [{SPOOL: "9000000x30"}], {"spool_bytes": "91000000"}
    ),
    "PipelineTelemetryLost": Alert(
        "20m",
        [
            {LOST % "span": "0+1x30"},
            {LOST % "metric_data_point": "0+1x30"},
            {DROPPED: "0+1x30"},
            # lost before the first point
            {LOST % "span": "_x15 5x15"},
            {DROPPED: "_x15 5x15"},
        ],
        [{LOST % "span": "5x30", SENT: "0+100x30"}],
        {"lost_most": "1000"},
    ),
    "PipelineThroughputUnusual": Alert(
        "1490m",
        [{CALLS: "0+60x1440 86400+6x60", ACTIVE: "1x1600"}],
        [
            # a tenth less
            {CALLS: "0+60x1440 86400+54x60", ACTIVE: "1x1600"},
            {CALLS: "0+60x1440 86400+6x60", ACTIVE: "0x1600"},
            # known for six hours only
            {CALLS: "_x1080 0+60x360 21600+6x60", ACTIVE: "1x1600"},
        ],
        {"unusual_share": "0.95", "unusual_samples": "2000"},
    ),
    "PipelineDurationUnusual": Alert(
        "1490m",
        [{**buckets("0+60x1440 86400x60", "0+60x1500"), ACTIVE: "1x1600"}],
        [
            {**buckets("0+60x1500", "0+60x1500"), ACTIVE: "1x1600"},
            {**buckets("0+60x1440 86400x60", "0+60x1500"), ACTIVE: "0x1600"},
            {**buckets("_x1080 0+60x360 21600x60", "_x1080 0+60x420"), ACTIVE: "1x1600"},
        ],
        {"unusual_share": "9", "unusual_samples": "2000"},
    ),
}


def passes(folder: Path, alert: str, series: Series, expected: int, **settings: str) -> bool:
    """Tell whether as many alerts of that name fire as expected."""
    (folder / FILE_NAME).write_text(render(settings))
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": ALERTS[alert].at,
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }
    document = {"rule_files": [FILE_NAME], "evaluation_interval": "1m", "tests": [test]}
    # JSON is YAML too
    (folder / "test.json").write_text(json.dumps(document))
    done = subprocess.run(
        [binary("promtool"), "test", "rules", "test.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # it fails for the number of alerts, and for nothing else
    assert done.returncode == 0 or "got:" in done.stderr + done.stdout, done.stderr + done.stdout
    return done.returncode == 0


@promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_it_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    for series in ALERTS[alert].fires:
        assert passes(tmp_path, alert, series, 1), series
    for series in ALERTS[alert].is_quiet:
        assert passes(tmp_path, alert, series, 0), series


@promtool
@pytest.mark.parametrize(
    ("alert", "name"), [(alert, name) for alert, each in ALERTS.items() for name in each.broken]
)
def test_a_broken_threshold_is_noticed(alert: str, name: str, tmp_path: Path) -> None:
    given = {name: ALERTS[alert].broken[name]}
    for series in ALERTS[alert].fires:
        assert not passes(tmp_path, alert, series, 1, **given)


@promtool
def test_promtool_accepts_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rules", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    subprocess.run(
        [binary("promtool"), "check", "rules", tmp_path / "new" / FILE_NAME],
        check=True,
        capture_output=True,
        timeout=60,
    )


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", render())


def test_every_alert_has_its_tests_and_its_page() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert alerts() == list(ALERTS)
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == alerts()
    assert re.findall(r'runbook: "docs/alerts.md#(\w+)"', render()) == [
        name.lower() for name in alerts()
    ]
    table = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| (.+) \|$", page, re.MULTILINE)
    assert table == [(name, s.default, s.meaning) for name, s in SETTINGS.items()]


def test_every_name_in_them_is_a_metric_of_ours() -> None:
    expressions = re.findall(r"expr: >-\n((?: {10}.*\n)+)", render())
    text = re.sub(r'"[^"]*"', lambda found: found[0].replace("|", " "), " ".join(expressions))
    used = set(re.findall(r"(?<![\w:])(?:pipeline|process|otel)_\w+(?![\w:])", text))
    labels = {name.replace(".", "_") for name in vars(defs).values() if isinstance(name, str)}
    assert used - labels - all_series() == set()
    assert len(used & all_series()) >= len(ALERTS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nonsense=1", "'nonsense' is not one of interval, limiting_share"),
        ("queue_full_share=high", "queue_full_share must be a number of zero or more, not 'high'"),
        ("queue_full_for=5", "queue_full_for must be a time such as 10m, not '5'"),
        ("queue_full_share", "--set must be NAME=VALUE"),
        ("spool_for=10m }} or vector(1)", "spool_for must be a time"),
    ],
)
def test_a_wrong_setting_exits_2(given: str, says: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rules", str(tmp_path), "--set", given])
    assert done.exit_code == 2
    assert says in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_setting_is_in_the_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rules", str(tmp_path), "--set", "queue_full_share=0.5"])
    assert done.exit_code == 0
    assert ">= 0.5\n" in (tmp_path / FILE_NAME).read_text()


def test_the_rules_are_evaluated_as_often_as_is_set() -> None:
    assert (
        re.findall(r"^    interval: (.+)$", render({"interval": "5s"}), re.MULTILINE) == ["5s"] * 2
    )


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["rules", str(tmp_path / "file")])
    assert done.exit_code == 2
    assert "cannot write" in done.output
    assert "Traceback" not in done.output
