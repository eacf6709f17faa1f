"""Read what the collector was sent, by the process that sent it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.process import ROOT
from tests.system.faults.collector.servers import collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.faults.collector.servers import Collector


def attributes_of(thing: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in thing.attributes
    }


def instance_of(resource: Any) -> str:
    return str(attributes_of(resource)["service.instance.id"])


def points(collector: Collector, metric: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Return the latest points of a metric: instance, attributes, point."""
    latest: dict[Any, tuple[str, dict[str, Any], Any]] = {}
    for request in collector.requests:
        for of in getattr(request, "resource_metrics", ()):
            instance = instance_of(of.resource)
            for each in (m for scope in of.scope_metrics for m in scope.metrics):
                if each.name != metric:
                    continue
                for point in getattr(each, str(each.WhichOneof("data"))).data_points:
                    attributes = attributes_of(point)
                    latest[instance, tuple(sorted(attributes.items()))] = (
                        instance,
                        attributes,
                        point,
                    )
    yield from latest.values()


def exported(collector: Collector, metric: str) -> list[int]:
    """Return the counts, or the values, of all points of a metric."""
    return [
        point.count if each.WhichOneof("data") == "histogram" else point.as_int
        for request in collector.requests
        for of in getattr(request, "resource_metrics", ())
        for each in (m for scope in of.scope_metrics for m in scope.metrics)
        if each.name == metric
        for point in getattr(each, str(each.WhichOneof("data"))).data_points
    ]


def invocations(collector: Collector, stage: str = "work") -> dict[str, int]:
    """Return how often the stage ran, by instance, as a backend sums it up."""
    found: Counter[str] = Counter()
    for instance, attributes, point in points(collector, "pipeline.stage.duration"):
        if attributes["pipeline.stage.name"] == stage:
            found[instance] += point.count
    return dict(found)


def spans(collector: Collector, name: str = "work") -> dict[str, list[Any]]:
    """Return the spans of this name, by instance."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for request in collector.requests:
        for of in getattr(request, "resource_spans", ()):
            for scope in of.scope_spans:
                found[instance_of(of.resource)] += [s for s in scope.spans if s.name == name]
    return {instance: each for instance, each in found.items() if each}


def sockets() -> list[str]:
    """Return the sockets that this process has open."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(number.readlink()))
    return sorted(each for each in found if each.startswith("socket:"))


def run_module(
    module: str, *arguments: str, collector: Collector, protocol: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of the tests against the collector."""
    return _run(["-m", module, *arguments], collector, protocol, env)


def run_text(
    program: str, *arguments: object, collector: Collector, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a text as a program."""
    return _run(["-c", program, *map(str, arguments)], collector, "http/protobuf", env)


def _run(
    command: list[str], collector: Collector, protocol: str, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **inherited,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


START = """
import json, os, sys, threading, time
import otel_pipeline_metrics as opm

@opm.stage("work")
def work(): pass

def forked(function):
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            opm.shutdown()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run_forking(
    program: str, *arguments: object, fault: Any = "none", **env: str
) -> tuple[Any, Any]:
    """Run a program that forks, against a collector; return the collector and the process."""
    with collector(fault, "http/protobuf") as there:
        done = run_text(START + textwrap.dedent(program), *arguments, collector=there, **env)
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
    return there, done
