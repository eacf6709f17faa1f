"""Test pipelines as users run them, through the real Collector, Jaeger and Prometheus.

Each test runs a program of its own with standard OTEL_* variables, and queries both backends.
The program's work is known, and so are the numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import RunReport
from tests.support.process import ROOT

if TYPE_CHECKING:
    from tests.support.servers import Backends, JsonObject

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),  # one worker starts the servers once
    pytest.mark.usefixtures("built_backends"),
]

PIPELINE = """
import asyncio, functools, os, sys, time
import otel_pipeline_metrics as opm

{configure}

@functools.lru_cache
def square(number):
    return number * number

opm.register_cache("squares", square)

@opm.fetch(items=len)
def numbers():
    for first in range(3):
        yield [first, first + 1, first + 2, first + 3]

@opm.process(items=len)
async def squares(batch):
    await asyncio.sleep(0.01)
    return [square(number) for number in batch]

@opm.write
async def save(found, out):
    stage = opm.current_stage()
    stage.add_items(len(found), "in")
    stage.add_bytes(out.write("".join(f"{{number}}\\n" for number in found)))

async def main():
    async with opm.run("squares", report=sys.argv[1] + ".json"):
        with open(sys.argv[1], "w") as out:
            for batch in numbers():
                await save(await squares(batch), out)
        # something for the CPU's share to be a share of
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass

asyncio.run(main())
{end}
"""
ROWS = "".join(f"{number * number}\n" for first in range(3) for number in range(first, first + 4))
SPANS = {"run squares": 1, "numbers": 1, "squares": 3, "save": 3}
COUNTS = {"numbers": 1, "squares": 3, "save": 3}
ITEMS = {("numbers", "out"): 12, ("squares", "out"): 12, ("save", "in"): 12}
# Twelve look-ups of six different numbers.
HIT_RATIO = 0.5

USERS_OWN_PROVIDERS = """
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
opm.configure()
"""
AND_ARE_STILL_THE_GLOBALS = """
opm.shutdown()
assert trace.get_tracer_provider() is tracers
assert metrics.get_meter_provider() is meters
with trace.get_tracer("the user's own").start_as_current_span("after shutdown"):
    metrics.get_meter("the user's own").create_counter("after.shutdown").add(1)
"""


def environment(backends: Backends, service: str, protocol: str = "grpc") -> dict[str, str]:
    """Return an environment with only the OTEL_* variables that a user sets for a Collector."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    endpoint = backends.otlp_grpc_endpoint if protocol == "grpc" else backends.otlp_http_endpoint
    return {
        **inherited,
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
    }


def run_pipeline(
    folder: Path,
    env: dict[str, str],
    *,
    configure: str = "",
    end: str = "",
    launcher: tuple[str, ...] = (),
) -> RunReport:
    """Run the program; check its own result first."""
    script, out = folder / "squares.py", folder / "squares.txt"
    script.write_text(PIPELINE.format(configure=configure, end=end))
    done = subprocess.run(
        [*launcher, sys.executable, "-W", "error::ResourceWarning", str(script), str(out)],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    assert out.read_text() == ROWS
    return RunReport.load(f"{out}.json")


def instrument() -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name("opentelemetry-instrument")),)


def assert_one_trace(backends: Backends, service: str, report: RunReport) -> list[JsonObject]:
    """Check that the run and its three stages are in one trace, as parent and children."""
    (trace,) = backends.jaeger.traces(
        service,
        wait_until=lambda traces: sum(len(t["spans"]) for t in traces) >= sum(SPANS.values()),
    )
    spans: list[JsonObject] = trace["spans"]
    assert trace["traceID"] == report.run["trace_id"]
    assert Counter(span["operationName"] for span in spans) == SPANS
    (run,) = (span for span in spans if span["operationName"] == "run squares")
    assert run["references"] == []
    assert tags(run)["pipeline.run.result"] == "success"
    assert tags(run)["pipeline.run.id"] == report.run["id"]
    for span in spans:
        if span is not run:
            assert [reference["spanID"] for reference in span["references"]] == [run["spanID"]]
            assert tags(span)["pipeline.name"] == "squares"
    kinds = {span["operationName"]: tags(span).get("pipeline.stage.kind") for span in spans}
    assert kinds == {"run squares": None, "numbers": "fetch", "squares": "process", "save": "write"}
    return spans


def tags(span: JsonObject) -> dict[str, object]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def series(backends: Backends, promql: str, *labels: str) -> dict[object, float]:
    """Return the values of a query by their labels; by one label without its tuple."""
    found = backends.prometheus.query(promql)
    return {
        tuple(one["metric"].get(label) for label in labels)
        if len(labels) > 1
        else one["metric"].get(labels[0]): float(one["value"][1])
        for one in found
    }


def assert_metrics(backends: Backends, service: str) -> None:
    mine = f'{{service_name="{service}"}}'
    stage = "pipeline_stage_name"
    assert series(backends, f"pipeline_stage_duration_seconds_count{mine}", stage) == COUNTS
    assert (
        series(backends, f"pipeline_stage_items_total{mine}", stage, "pipeline_io_direction")
        == ITEMS
    )
    assert series(backends, f"pipeline_stage_io_bytes_total{mine}", stage) == {"save": len(ROWS)}
    assert series(
        backends, f"pipeline_run_duration_seconds_count{mine}", "pipeline_run_result"
    ) == {"success": 1}
    assert series(backends, f"pipeline_cache_hit_ratio{mine}", "cache_name") == {
        "squares": HIT_RATIO
    }
    assert series(backends, f"pipeline_cache_requests_total{mine}", "cache_request_type") == {
        "hit": 6,
        "miss": 6,
    }
    # three sleeps of 10 ms
    (busy,) = series(backends, f"pipeline_stage_duration_seconds_sum{mine} > 0.03", stage).values()
    assert busy < 1


def assert_resources(backends: Backends, service: str) -> None:
    mine = f'{{service_name="{service}"}}'
    (share,) = series(backends, f"process_cpu_utilization_ratio{mine}", "service_name").values()
    assert 0 < share <= 1
    (memory,) = series(backends, f"process_memory_usage_bytes{mine}", "service_name").values()
    assert 10e6 < memory < 1e9
    cpu = series(backends, f"process_cpu_time_seconds_total{mine}", "cpu_mode")
    assert cpu.keys() == {"user", "system"}
    assert 0.1 <= sum(cpu.values()) < 60


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_configured_pipeline(backends: Backends, tmp_path: Path, protocol: str) -> None:
    """configure() and the standard variables are enough."""
    service = f"configured-{protocol}"
    env = environment(backends, service, protocol)
    report = run_pipeline(tmp_path, env, configure="opm.configure()")
    assert_one_trace(backends, service, report)
    assert_metrics(backends, service)
    assert_resources(backends, service)


def test_the_increase_of_a_short_job(backends: Backends, tmp_path: Path) -> None:
    """One export is enough for increase(), although the job is over in half a second."""
    service = "short-job"
    run_pipeline(tmp_path, environment(backends, service), configure="opm.configure()")
    items = f'pipeline_stage_items_total{{service_name="{service}"}}'
    labels = ("pipeline_stage_name", "pipeline_io_direction")
    exported = series(backends, f"timestamp({items})", *labels)
    (at,) = set(exported.values())
    # at the very time of the export there is nothing for Prometheus to extrapolate to
    exact = series(backends, f"increase({items}[5m] @ {at})", *labels)
    assert exact == {key: pytest.approx(count, rel=0.01) for key, count in ITEMS.items()}
    # later it adds half an interval more, as for every series that has ended
    later = series(backends, f"increase({items}[5m])", *labels)
    assert later.keys() == ITEMS.keys()
    assert all(11.9 <= value <= 18.1 for value in later.values())
    durations = f'pipeline_stage_duration_seconds_count{{service_name="{service}"}}'
    counted = series(backends, f"increase({durations}[5m] @ {at})", "pipeline_stage_name")
    assert counted == {key: pytest.approx(count, rel=0.01) for key, count in COUNTS.items()}


def test_opentelemetry_instrument_configures_everything(backends: Backends, tmp_path: Path) -> None:
    """A decorated program without configure(), in which nothing else sets up an SDK."""
    service = "instrumented"
    env = {
        **environment(backends, service),
        # installed for other tests; if it is on, process.* is left to it
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics",
    }
    report = run_pipeline(tmp_path, env, launcher=instrument())
    assert_one_trace(backends, service, report)
    assert_metrics(backends, service)
    assert_resources(backends, service)


def test_opentelemetry_instrument_beside_a_configurator(backends: Backends, tmp_path: Path) -> None:
    """The SDK's own configurator comes first, as with opentelemetry-distro: its providers are used.

    The distro is not installed; an entry point of ours does the same, line by line.
    """
    service = "configurator"
    packages = tmp_path / "packages"
    metadata = packages / "stand_in_distro-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stand-in-distro\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_configurator]\nstand_in = stand_in_distro:Configurator\n"
    )
    (packages / "stand_in_distro.py").write_text(
        "from opentelemetry.sdk._configuration import _OTelSDKConfigurator\n"
        "class Configurator(_OTelSDKConfigurator):\n    pass\n"
    )
    env = {
        **environment(backends, service),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")])),
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
    }
    whose = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "resource = trace.get_tracer_provider().resource.attributes\n"
        # only the configurator sets this, so the provider is its own
        "assert 'telemetry.auto.version' in resource, resource\n"
    )
    report = run_pipeline(tmp_path, env, launcher=instrument(), end=whose)
    assert_one_trace(backends, service, report)
    assert_metrics(backends, service)
    assert_resources(backends, service)


def test_the_users_own_providers(backends: Backends, tmp_path: Path) -> None:
    """Set before configure(), they get everything, and stay global and open."""
    service = "own-providers"
    report = run_pipeline(
        tmp_path,
        environment(backends, service),
        configure=USERS_OWN_PROVIDERS,
        end=AND_ARE_STILL_THE_GLOBALS,
    )
    traces = backends.jaeger.traces(
        service,
        wait_until=lambda traces: sum(len(t["spans"]) for t in traces) > sum(SPANS.values()),
    )
    found = {
        trace["traceID"]: Counter(span["operationName"] for span in trace["spans"])
        for trace in traces
    }
    assert found.pop(report.run["trace_id"]) == SPANS
    assert list(found.values()) == [{"after shutdown": 1}]
    assert series(backends, f'after_shutdown_total{{service_name="{service}"}}', "job") == {
        service: 1
    }
    assert_metrics(backends, service)
    assert_resources(backends, service)


@pytest.mark.parametrize("how", ["configure", "instrument"])
def test_a_disabled_sdk_sends_nothing(backends: Backends, tmp_path: Path, how: str) -> None:
    """OTEL_SDK_DISABLED=true: the pipeline and its report are unchanged, nothing is exported."""
    silent, heard = f"disabled-{how}", f"enabled-after-{how}"
    ways = {
        "configure": {"configure": "opm.configure()"},
        "instrument": {"launcher": instrument()},
    }
    env = {**environment(backends, silent), "OTEL_SDK_DISABLED": "true"}
    report = run_pipeline(tmp_path, env, **ways[how])  # type: ignore[arg-type]
    assert {stage["name"]: stage["count"] for stage in report.stages} == COUNTS
    assert report.run["trace_id"] is None

    run_pipeline(tmp_path, environment(backends, heard), configure="opm.configure()")
    backends.jaeger.traces(heard)
    series(backends, f'pipeline_run_duration_seconds_count{{service_name="{heard}"}}', "job")
    everyone = "count by (service_name) (pipeline_run_duration_seconds_count)"
    assert silent not in series(backends, everyone, "service_name")
    assert silent not in backends.jaeger.services()


def test_the_demo_finds_everything(tmp_path: Path) -> None:
    """`make demo-collector`, on a few files."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "examples.through_collector"),
            *("--out", str(tmp_path), "--protocol", "http/protobuf", "--limit", "60"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Jaeger and Prometheus have what the report says." in done.stdout
    assert "FAILED" not in done.stdout
    assert "  services: stdlib-index\n" in done.stdout
    assert ": 66 spans\n" in done.stdout  # the run, read_sources, two batches parsed and stored
    for line in ("60  parse_module", "2  store", "resolved modules"):
        assert line in done.stdout
