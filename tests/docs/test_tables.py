"""The tables of metrics, arguments and variables are those of the code."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import _semconv, environment_variables
from otel_pipeline_metrics._probes import _names
from tests.docs.markdown import ROOT, in_code, rows

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.docs

README = ROOT / "README.md"
METRICS = ROOT / "docs" / "metrics.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"

STAGE_ATTRIBUTES = {
    _semconv.PIPELINE_NAME,
    _semconv.STAGE_NAME,
    _semconv.STAGE_KIND,
}
KINDS = {"histogram", "counter", "up-down counter", "gauge"}


class Row(NamedTuple):
    """A metric as a table has it."""

    kind: str
    unit: str
    attributes: frozenset[str]


def table_of(path: Any) -> dict[str, Row]:
    """The metrics of every table whose second column is a kind of instrument."""
    found: dict[str, Row] = {}
    for cells in rows(path):
        if len(cells) >= 4 and cells[1] in KINDS:
            (name,), (unit,) = in_code(cells[0]), in_code(cells[2])
            assert name not in found, f"{name} stands twice in {path.name}"
            found[name] = Row(cells[1], unit, frozenset(in_code(cells[3])))
    return found


def defined(module: ModuleType) -> dict[str, str]:
    """Name and unit of every metric that a module names."""
    metrics = [value for value in vars(module).values() if isinstance(value, _semconv.Metric)]
    return {metric.name: metric.unit for metric in metrics}


@pytest.fixture(scope="module")
def emitted() -> dict[str, dict[str, Any]]:
    """What a program that uses everything emits: kind, unit and attributes by name."""
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


@pytest.mark.parametrize("path", [README, METRICS], ids=lambda path: path.name)
def test_the_metrics_table_is_that_of_the_code(path: Any) -> None:
    table = {name: row.unit for name, row in table_of(path).items()}
    assert table == {**defined(_semconv), **defined(_names)}


@pytest.mark.parametrize("path", [README, METRICS], ids=lambda path: path.name)
def test_the_metrics_table_is_what_is_emitted(path: Any, emitted: dict[str, Any]) -> None:
    """Nothing is named that never comes, and everything is of the kind that is said."""
    table = {name: (row.kind, row.unit) for name, row in table_of(path).items()}
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
        for value in vars(_semconv).values()
        if isinstance(value, str) and value.startswith(("pipeline.", "cache.", "error."))
    ]
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_boundaries_are_those_of_the_code() -> None:
    text = " ".join(METRICS.read_text(encoding="utf-8").split())
    assert ", ".join(f"{bound:g}" for bound in _semconv.DURATION_BUCKETS) in text
    assert ", ".join(f"{bound:,}" for bound in _semconv.SIZE_BUCKETS) in text


@pytest.mark.parametrize("path", [README, CONFIGURATION], ids=lambda path: path.name)
def test_every_argument_of_configure_is_documented(path: Any) -> None:
    documented = {word for cells in rows(path) for word in in_code(cells[0])}
    assert set(inspect.signature(opm.configure).parameters) <= documented


def test_every_variable_is_documented() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    names = [name for name in vars(environment_variables) if name.startswith("OTEL_")]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_report_of_a_run_is_documented() -> None:
    """Every key of the first two levels, of runs with queues, caches and resources."""
    text = README.read_text(encoding="utf-8")
    with opm.run("documented", resources=False) as run, opm.stage("one"):
        pass
    data = run.report.to_dict()
    keys = {*data, *data["run"], *data["stages"][0]} - {"schema", "cpu_s", "busiest_share"}
    assert sorted(key for key in keys if f"`{key}`" not in text and f"`{key}[]`" not in text) == []
