"""The JSON Schemas: what we write fits them, and they describe all of it."""

from __future__ import annotations

import contextlib
import copy
import json
import queue
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.report import RunReport, rows
from otel_pipeline_metrics.report.schema import (
    NAMED,
    PARTS,
    TEXT_FIELDS,
    collector_schema,
    parts,
    report_schema,
)
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPORT = jsonschema.Draft202012Validator(report_schema())
COLLECTOR = jsonschema.Draft202012Validator(collector_schema())


def real_report() -> RunReport:
    """A run with stages, a queue, a limit, a cache, errors, retries and resources."""
    pages: queue.Queue[int] = opm.wrap_queue(queue.Queue(2), name="pages")
    cache = opm.counted_cache({}, name="schema")
    lock = opm.wrap_limit(threading.Lock(), name="lock")
    with opm.run("schema", total=2) as run, lock:
        with opm.fetch("read") as stage:
            stage.add_items(2)
            stage.add_bytes(10)
            pages.put(1)
        with contextlib.suppress(KeyError), opm.write("store") as stage:
            stage.retry()
            pages.get()
            cache["absent"]
    opm.unregister_cache("schema")
    return run.report


def undescribed(data: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of keys for which the schema has no field of their own."""
    if isinstance(data, list):
        for entry in data:
            yield from undescribed(entry, schema.get("items", {}), f"{path}[]")
    elif isinstance(data, dict) and "properties" in schema:
        for key, value in data.items():
            if key in schema["properties"]:
                yield from undescribed(value, schema["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"


@pytest.mark.parametrize("schema", [report_schema(), collector_schema()])
def test_it_is_a_schema_that_json_can_hold(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    "made",
    [
        samples.full,
        samples.hostile,
        samples.bare,
        real_report,
        lambda: RunReport.merge(samples.full("a"), samples.full("b")),
        lambda: RunReport.merge(samples.full("a"), samples.bare("nightly")),
        lambda: RunReport.merge(real_report(), real_report()),
    ],
    ids=["full", "hostile", "bare", "real", "merged", "merged with a bare one", "real merged"],
)
def test_reports_fit(made: Callable[[], RunReport]) -> None:
    REPORT.validate(json.loads(made().to_json()))


def test_every_field_of_a_report_is_described() -> None:
    schema = report_schema()
    report = real_report()
    merged = RunReport.merge(report, real_report())
    assert list(undescribed(report.to_dict(), schema)) == []
    assert list(undescribed(merged.to_dict(), schema)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(schema="other/1"),
        lambda data: data.pop("run"),
        lambda data: data.update(stages={}),
        lambda data: data.update(resources=None),
        lambda data: data["stages"][0].pop("name"),
        lambda data: data["queues"][0].update(name=1),
        lambda data: data["caches"].append("geo"),
        lambda data: data["stages"][0].update(count="3"),
        lambda data: data["stages"][0]["duration_s"].update(total=[1]),
        lambda data: data["stages"][0].update(a_later_field="text"),
    ],
)
def test_it_refuses_what_run_report_refuses(change: Callable[[Any], object]) -> None:
    data = copy.deepcopy(samples.full_data())
    change(data)
    with pytest.raises(ValueError, match="report"):
        RunReport(data)
    assert not REPORT.is_valid(data)


def test_later_fields_are_allowed() -> None:
    data = samples.full_data() | {"later": "text"}
    data["run"]["later"] = ["text"]
    data["stages"][0]["later"] = {"deeper": {"number": 1.5, "none": None}}
    REPORT.validate(RunReport(data).to_dict())


def test_exports_of_the_collector_fit() -> None:
    collector = opm.MetricsCollector()
    COLLECTOR.validate(collector.export_json())
    collector.record_stage("parse", 0.5, count=3)
    collector.record_stage("none", 0.0, count=0, error=True)
    collector.record_resources(50.0, 100.0, 1.0, 2.0)
    collector.record_cache("geo", 3, 1, evictions=1, size_bytes=10, expirations=2)
    data = json.loads(json.dumps(collector.export_json()))
    COLLECTOR.validate(data)
    assert list(undescribed(data, collector_schema())) == []
    assert not COLLECTOR.is_valid(data | {"duration_s": "1"})
    assert not COLLECTOR.is_valid({"stages": {}})
    COLLECTOR.validate(json.loads(json.dumps(opm.get_metrics_collector().export_json())))


def test_what_reports_are_checked_by_is_that_of_the_rows() -> None:
    kinds = {"object": dict, "array": list}
    assert {name: kinds[part["type"]] for name, part in parts().items()} == PARTS
    entries = {name: part["items"] for name, part in parts().items() if PARTS[name] is list}
    assert {name for name, entry in entries.items() if "required" in entry} == set(NAMED)
    assert {
        name
        for entry in entries.values()
        for name, field in entry["properties"].items()
        if {"string", "array"} & {*field["type"], str(field["type"])}
    } == TEXT_FIELDS


def test_a_program_with_a_run_does_not_load_the_rows() -> None:
    code = (
        "import sys, otel_pipeline_metrics as opm\n"
        "with opm.run('r') as run: pass\n"
        "run.report.to_json()\n"
        "print('otel_pipeline_metrics.report.rows' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("made", [samples.full, real_report], ids=["full", "real"])
def test_the_rows_of_a_report_have_only_typed_keys(made: Callable[[], RunReport]) -> None:
    report = made()
    for part, kind in (
        ([report.run], rows.RunRow),
        (report.stages, rows.StageRow),
        (report.queues, rows.QueueRow),
        (report.limits, rows.LimitRow),
        (report.pools, rows.PoolRow),
        (report.caches, rows.CacheRow),
        (report.windows, rows.WindowRow),
        ([report.resources], rows.ResourcesRow),
        ([report.bottleneck], rows.BottleneckRow),
        ([report.telemetry], rows.TelemetryRow),
    ):
        for row in part:
            assert set(row) <= set(kind.__annotations__), kind
