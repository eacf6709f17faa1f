"""The tables of metrics, arguments and variables in the documents match the code."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import environment_variables, metric_definitions
from tests.docs.generated import (
    CONFIGURATION,
    METRICS,
    TO_BE_WRITTEN,
    blocks,
    defined_metrics,
    updated,
)
from tests.docs.markdown import ROOT, in_code, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docs

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
REPORT = ROOT / "docs" / "report.md"

STAGE_ATTRIBUTES = {
    metric_definitions.PIPELINE_NAME,
    metric_definitions.STAGE_NAME,
    metric_definitions.STAGE_KIND,
}
KINDS = {"histogram", "counter", "up-down counter", "gauge"}


class Row(NamedTuple):
    """A metric in a table of the documents."""

    kind: str
    unit: str
    attributes: frozenset[str]


def table_of(path: Any) -> dict[str, Row]:
    """Return the metrics of every table whose second column is a kind of instrument."""
    found: dict[str, Row] = {}
    for cells in rows(path):
        if len(cells) >= 4 and cells[1] in KINDS:
            (name,), (unit,) = in_code(cells[0]), in_code(cells[2])
            assert name not in found, f"{name} is twice in {path.name}"
            found[name] = Row(cells[1], unit, frozenset(in_code(cells[3])))
    return found


@pytest.fixture(scope="module")
def emitted() -> dict[str, dict[str, Any]]:
    """Return what a program that uses everything emits: kind, unit and attributes by name."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.emit"],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("path", [CONFIGURATION, METRICS], ids=lambda path: path.name)
def test_generated_tables_are_current(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert blocks(text)
    assert updated(text) == text, "run: python -m tests.docs.generated"
    assert TO_BE_WRITTEN not in text


def test_the_metrics_table_matches_the_code() -> None:
    table = {name: row.unit for name, row in table_of(METRICS).items()}
    assert table == {metric.name: metric.unit for metric in defined_metrics()}


def test_the_metrics_table_matches_what_is_emitted(emitted: dict[str, Any]) -> None:
    table = {name: (row.kind, row.unit) for name, row in table_of(METRICS).items()}
    assert table == {name: (one["kind"], one["unit"]) for name, one in emitted.items()}


def test_every_attribute_is_documented(emitted: dict[str, Any]) -> None:
    for name, row in table_of(METRICS).items():
        carries = row.attributes
        if name.startswith(("pipeline.stage.", "pipeline.item.", "pipeline.watermark.")):
            carries |= STAGE_ATTRIBUTES
        assert set(emitted[name]["attributes"]) == carries, name


def test_every_constant_of_the_spans_is_documented() -> None:
    text = METRICS.read_text(encoding="utf-8")
    names = [
        value
        for value in vars(metric_definitions).values()
        if isinstance(value, str) and value.startswith(("pipeline.", "cache.", "error."))
    ]
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_bucket_boundaries_match_the_code() -> None:
    text = " ".join(METRICS.read_text(encoding="utf-8").split())
    assert ", ".join(f"{bound:g}" for bound in metric_definitions.DURATION_BUCKETS) in text
    assert ", ".join(f"{bound:,}" for bound in metric_definitions.SIZE_BUCKETS) in text


def test_every_argument_of_configure_is_documented() -> None:
    documented = {word for cells in rows(CONFIGURATION) for word in in_code(cells[0])}
    assert set(inspect.signature(opm.configure).parameters) <= documented


def test_every_variable_is_documented() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    names = [name for name in vars(environment_variables) if name.startswith("OTEL_")]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_report_of_a_run_is_documented() -> None:
    """The page names every key of the run and of a stage."""
    text = REPORT.read_text(encoding="utf-8")
    with opm.run("documented", resources=False) as run, opm.stage("one"):
        pass
    data = run.report.to_dict()
    keys = {*data, *data["run"], *data["stages"][0]} - {"cpu_s", "busiest_share"}
    assert sorted(key for key in keys if f"`{key}`" not in text and f"`{key}[]`" not in text) == []
    assert f"`{data['schema']}`" in text


def test_the_costs_in_the_readme_match_docs_performance() -> None:
    measured = {
        # the best of a call and of an awaited one
        cells[0]: [cell.partition(" ")[0] for cell in (cells[2], cells[6])]
        # of several tables of that width, the first one has the costs of calls
        for cells in reversed(rows(PERFORMANCE))
        if len(cells) == 9 and cells[0] not in {"case", "---"}
    }
    lines = [[cell.strip("*") for cell in cells] for cells in rows(README)]
    shown = {cells[0]: cells[1:] for cells in lines if len(cells) == 3 and cells[0] in measured}
    assert {"floor", "ours, metrics only", "ours, traced", "prometheus_client"} <= set(shown)
    assert shown == {name: measured[name] for name in shown}
