"""Run the index of the standard library through a Collector, Jaeger and Prometheus.

    make demo-collector

Starts the three servers that `make backends` built, on free ports of this machine. Runs
`examples.stdlib_index` unchanged, with standard OTEL_* variables only. Then reads what Jaeger and
Prometheus have, prints it, and compares it with the run's report; exits with 1 if anything is
missing. Arguments such as `--limit` are passed to the index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm
from tests.support.servers import BackendMissingError, StartError, start_backends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Backends, Jaeger, JsonObject, Prometheus

SERVICE = "stdlib-index"
TIMEOUT_S = 60.0
SHOWN_CHILDREN = 3
GAUGES = (
    "process_cpu_utilization_ratio",
    "process_memory_usage_bytes",
    "process_thread_count",
    "process_unix_file_descriptor_count",
)


@dataclass
class Findings:
    """The values that are missing or different."""

    missing: list[str] = field(default_factory=list)

    def expect(self, what: str, expected: object, found: object) -> None:
        if found != expected:
            self.missing.append(f"{what}: expected {expected}, found {found}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument("--protocol", choices=["grpc", "http/protobuf"], default="grpc")
    arguments, for_the_index = parser.parse_known_args()
    try:
        with start_backends() as backends:
            report = run_the_index(backends, arguments.out, arguments.protocol, for_the_index)
            findings = Findings()
            show_jaeger(backends.jaeger, report, findings)
            show_prometheus(backends.prometheus, report, findings)
    except (BackendMissingError, StartError, TimeoutError, subprocess.CalledProcessError) as error:
        print(f"FAILED: {error}")
        return 1
    for line in findings.missing:
        print(f"FAILED: {line}")
    if not findings.missing:
        print("\nJaeger and Prometheus have what the report says.")
    return 1 if findings.missing else 0


def run_the_index(backends: Backends, out: Path, protocol: str, more: list[str]) -> opm.RunReport:
    """Run the index as a program of its own, configured by variables only."""
    http = protocol != "grpc"
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": (
            backends.otlp_http_endpoint if http else backends.otlp_grpc_endpoint
        ),
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    for name, value in telemetry.items():
        print(f"export {name}={value}")
    print(f"python -m examples.stdlib_index --out {out}\n", flush=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-m", "examples.stdlib_index", "--out", str(out), *more],
        env={**inherited, **telemetry},
        check=True,
    )
    return opm.RunReport.load(out / "export_metrics.json")


def show_jaeger(jaeger: Jaeger, report: opm.RunReport, findings: Findings) -> None:
    expected = {stage["name"]: stage["count"] or 0 for stage in report.stages}
    expected[f"run {SERVICE}"] = 1
    # A stage that is called very often has spans for some calls; the report has their number.
    spans = report.telemetry["stage_spans"] or {"made": 0, "skipped": 0}
    total = (spans["made"] or 0) + 1
    try:
        traces = jaeger.traces(
            SERVICE,
            wait_until=lambda traces: sum(len(trace["spans"]) for trace in traces) >= total,
            timeout=TIMEOUT_S,
        )
    except TimeoutError:
        traces = jaeger.traces(SERVICE)
    print(f"\nJaeger at {jaeger.url}")
    print(f"  services: {', '.join(jaeger.services())}")
    findings.expect("traces in Jaeger", [report.run["trace_id"]], [t["traceID"] for t in traces])
    for trace in traces:
        found = Counter(span["operationName"] for span in trace["spans"])
        print(f"  trace {trace['traceID']}: {sum(found.values()):,} spans")
        for name, count in found.most_common():
            print(f"    {count:>6,}  {name}")
        findings.expect("spans in Jaeger", total, sum(found.values()))
        for name, count in expected.items():
            if not spans["skipped"]:
                findings.expect(f"spans {name!r} in Jaeger", count, found[name])
            elif not found[name]:
                findings.expect(f"spans {name!r} in Jaeger", "some", 0)
        print("  its first spans:")
        for line in tree(trace["spans"]):
            print(f"    {line}")


def tree(spans: list[JsonObject]) -> Iterator[str]:
    """Return the spans under their parents, the first few of each parent."""
    children: dict[str | None, list[JsonObject]] = {}
    for span in sorted(spans, key=lambda span: int(span["startTime"])):
        parent = span["references"][0]["spanID"] if span["references"] else None
        children.setdefault(parent, []).append(span)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        below = children.get(parent, [])
        for span in below[:SHOWN_CHILDREN]:
            kinds = [t["value"] for t in span["tags"] if t["key"] == "pipeline.stage.kind"]
            label = "  " * depth + " ".join([span["operationName"], *(f"({k})" for k in kinds)])
            yield f"{label:<32}{span['duration'] / 1000:>12,.1f} ms"
            yield from lines(span["spanID"], depth + 1)
        if len(below) > SHOWN_CHILDREN:
            yield f"{'  ' * depth}… and {len(below) - SHOWN_CHILDREN:,} more"

    return lines(None, 0)


def show_prometheus(prometheus: Prometheus, report: opm.RunReport, findings: Findings) -> None:
    print(f"\nPrometheus at {prometheus.url}")
    mine = f'service_name="{SERVICE}"'
    count = f"pipeline_stage_duration_seconds_count{{{mine}}}"
    found = values(prometheus, f"sum by (pipeline_stage_name) ({count})", "pipeline_stage_name")
    for stage in report.stages:
        findings.expect(f"{count} of {stage['name']!r}", stage["count"], found.get(stage["name"]))
    for gauge in GAUGES:
        if not values(prometheus, f"{gauge}{{{mine}}}", "service_name"):
            findings.missing.append(f"{gauge} is not in Prometheus")
    ratio = f"pipeline_cache_hit_ratio{{{mine}}}"
    ratios = values(prometheus, ratio, "cache_name")
    for cache in report.caches:
        findings.expect(
            f"{ratio} of {cache['name']!r}", cache["hit_ratio"], ratios.get(cache["name"])
        )


def values(prometheus: Prometheus, promql: str, label: str) -> dict[str, float]:
    """Print and return the value of each series by one of its labels."""
    print(f"  {promql}")
    try:
        series = prometheus.query(promql)
    except TimeoutError:
        series = []
    found = {one["metric"][label]: float(one["value"][1]) for one in series}
    for name, value in found.items():
        print(f"    {value:>14,.10g}  {name}")
    if not found:
        print("    nothing")
    return found


if __name__ == "__main__":
    sys.exit(main())
