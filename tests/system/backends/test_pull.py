"""A real Prometheus that scrapes a program and receives its OTLP: the same truth under both."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.process import HOST, ROOT, free_ports, poll, started
from tests.support.servers import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),
    pytest.mark.usefixtures("built_backends"),
]

PROGRAM = """
import queue, sys, threading
import otel_pipeline_metrics as opm
from otel_pipeline_metrics.service import get_event_metrics

opm.configure(exporter=["prometheus", "otlp"], service_name="both", console=False)
events = get_event_metrics()
events.record_event_processing(0.02, "kafka", "orders", size_bytes=512, points=3, duplicate=True)
events.record_error(KeyError("x"), component="parser")
events.record_retry_attempt("insert", 1, TimeoutError())
events.set_connections("database", 5)
events.record_circuit_breaker_state("database", "open")
cache = opm.counted_cache({}, name="prices")
waiting = opm.wrap_queue(queue.Queue(4), name="items")
slots = opm.wrap_limit(threading.Semaphore(2), name="slots")

@opm.stage("load", kind="process")
def load():
    with slots:
        opm.current_stage().add_items(3)

with opm.run("nightly"):
    for _ in range(7):
        waiting.put(1)
        waiting.get()
        load()
        cache.get("a")
opm.counter("shop.orders", unit="{order}").add(11)
opm.gauge("shop.share", unit="1").set(0.5)
opm.histogram("shop.delivery", unit="s").record(3)
print("ready", flush=True)
sys.stdin.read()
"""
# What the program did.
TRUTH = {
    "pipeline_stage_duration_seconds_count": 7,
    "pipeline_stage_items_total": 21,
    "pipeline_queue_item_duration_seconds_count": 7,
    "pipeline_limit_wait_duration_seconds_count": 7,
    "pipeline_event_io_bytes_total": 512,
    "pipeline_errors_total": 1,
    "shop_orders_total": 11,
    "shop_delivery_seconds_sum": 3,
}
# Labels that say where a series comes from, which differ by design.
OF_THE_WAY = {
    *("otel_scope_name", "otel_scope_version", "otel_scope_schema_url"),
    *("service_instance_id", "service_name", "job", "instance"),
}


@contextmanager
def both_ways(folder: Path) -> Iterator[Prometheus]:
    """Run the program beside a Prometheus that scrapes it and to which it sends."""
    port = free_ports(1)[0]
    config = folder / "prometheus.yml"
    config.write_text(
        "otlp: {promote_resource_attributes: [service.name, service.instance.id]}\n"
        "scrape_configs:\n"
        "  - job_name: pulled\n"
        "    scrape_interval: 500ms\n"
        "    scrape_timeout: 500ms\n"
        f"    static_configs: [{{targets: ['{HOST}:{port}']}}]\n"
    )
    with Prometheus(config) as prometheus:
        environment = {
            **os.environ,
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.otlp_endpoint}/v1/metrics",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{HOST}:1",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with started(PROGRAM, environment):
            yield prometheus


def values(prometheus: Prometheus, job: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for series in prometheus.query(f'{{job="{job}"}}', wait=False):
        name = series["metric"]["__name__"]
        found[name] = found.get(name, 0) + float(series["value"][1])
    return found


def labels(prometheus: Prometheus, job: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for series in prometheus.query(f'{{job="{job}"}}', wait=False):
        names = found.setdefault(series["metric"]["__name__"], set())
        names |= set(series["metric"]) - OF_THE_WAY
    return found


def only_pushed(pulled: dict[str, set[str]], pushed: dict[str, set[str]]) -> set[str]:
    return {name.removesuffix("_ratio") for name in pushed.keys() - pulled.keys()}


def only_pulled(pulled: dict[str, set[str]], pushed: dict[str, set[str]]) -> set[str]:
    ours = re.compile(r"(pipeline|shop|process_cpu_utilization|system)_?")
    return {name for name in pulled.keys() - pushed.keys() if ours.match(name)}


def test_the_truth_is_there_both_ways(tmp_path: Path) -> None:
    with both_ways(tmp_path) as prometheus:
        for job in ("pulled", "both"):
            seen = poll(
                lambda job=job: {name: values(prometheus, job).get(name) for name in TRUTH},
                accept=lambda seen: seen == TRUTH,
                timeout=30,
                what=f"the program's metrics with the job {job}",
            )
            assert seen == TRUTH
        # gauges may come with a later scrape than the counts
        pulled, pushed = poll(
            lambda: (labels(prometheus, "pulled"), labels(prometheus, "both")),
            accept=lambda both: not only_pushed(*both) ^ only_pulled(*both),
            timeout=30,
            what="the same metrics both ways",
        )
        each = prometheus.query('{job="pulled",__name__=~"(pipeline|shop)_.+"}')

    assert {"service_instance_id" in series["metric"] for series in each} == {True}
    common = pulled.keys() & pushed.keys()
    assert {
        name: (pulled[name], pushed[name]) for name in common if pulled[name] != pushed[name]
    } == {}

    page = (ROOT / "docs" / "service.md").read_text()
    documented = re.findall(r"^\| `(\w+)_ratio` \| `(\w+)` \|$", page, re.MULTILINE)
    assert {name for _, name in documented} | {"shop_share"} == only_pulled(pulled, pushed)
    assert only_pulled(pulled, pushed) == only_pushed(pulled, pushed)
    assert all(pushed == pulled for pushed, pulled in documented)
