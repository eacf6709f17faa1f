"""Test imports and the flush at the end in processes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes

LOADED = """
import json, sys
import otel_pipeline_metrics as opm
{then}
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "psutil")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


@pytest.mark.parametrize(
    "then",
    [
        "",
        "opm.fetch(lambda: 1)()",
        "opm.run('r', resources=False).__enter__().__exit__(None, None, None)",
        "opm.get_metrics_collector().record_stage('s', 1.0)",
        "from otel_pipeline_metrics import *",
    ],
    ids=["import", "a stage", "a run", "manual recording", "star"],
)
def test_neither_sdk_nor_psutil_is_loaded(then: str) -> None:
    done = run_python(LOADED.format(then=then))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []


def test_a_run_loads_psutil_and_not_the_sdk() -> None:
    done = run_python(LOADED.format(then="with opm.run('r'): pass"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["psutil"]


EXPORTED = """
import sys
import otel_pipeline_metrics as opm
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

file = open(sys.argv[1], "w")
tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=file)))
meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(out=file))])
"""
ENDINGS = {
    "return": ("", 0),
    "exception": ("raise KeyError('boom')", 1),
    "sys.exit": ("sys.exit(3)", 3),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_console_is_flushed_at_exit_without_shutdown(ending: str) -> None:
    last, code = ENDINGS[ending]
    done = run_python(
        "import sys, otel_pipeline_metrics as opm\n"
        "opm.configure(exporter='console')\n"
        "@opm.fetch\ndef work(): pass\n"
        f"work()\nwork()\n{last}\n"
    )
    assert done.returncode == code
    assert done.stderr.count("  work ") == 2
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("pipeline.stage.duration"))
    assert "stage=work kind=fetch" in line
    assert "count 2 " in line


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("how", ["installed", "given", "unconfigured"])
def test_the_last_collection_of_the_users_providers_has_everything(
    tmp_path: Path, how: str, ending: str
) -> None:
    setting = {
        "installed": (
            "from opentelemetry import metrics, trace\n"
            "trace.set_tracer_provider(tracers)\nmetrics.set_meter_provider(meters)\n"
            "opm.configure()\n"
        ),
        "given": "opm.configure(tracer_provider=tracers, meter_provider=meters)\n",
        "unconfigured": (
            "from opentelemetry import metrics, trace\n"
            "trace.set_tracer_provider(tracers)\nmetrics.set_meter_provider(meters)\n"
        ),
    }[how]
    last, code = ENDINGS[ending]
    out = tmp_path / "exported.txt"
    done = run_python(
        f"{EXPORTED}{setting}@opm.fetch\ndef work(): pass\nwork()\nwork()\n{last}\n", out
    )
    assert done.returncode == code, done.stderr
    exported = list(documents(out.read_text()))
    assert [each["name"] for each in exported if "name" in each] == ["work", "work"]
    (duration,) = (
        metric
        for each in exported
        for resource in each.get("resource_metrics", ())
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        if metric["name"] == "pipeline.stage.duration"
    )
    assert [point["count"] for point in duration["data"]["data_points"]] == [2]


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON documents that the SDK's console exporters write in a row."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def test_warnings_reach_a_program_that_does_not_set_up_logging(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_python(
        "import sys, otel_pipeline_metrics as opm\n"
        "with opm.run('r', resources=False, report=sys.argv[1]): pass\n",
        tmp_path / "file" / "report.json",
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0
    (written,) = tmp_path.glob("pipeline-report-*.json")
    assert str(written) in done.stderr


def test_the_version_has_three_parts() -> None:
    done = run_python("import otel_pipeline_metrics as opm; print(opm.__version__)")
    assert done.stdout.strip().count(".") == 2
