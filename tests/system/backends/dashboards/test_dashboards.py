"""Every query of every panel returns what the programs behind it know to be true.

Two real programs send to a real Collector and Prometheus. Each keeps its own account of what it
did, and when. The times of the samples in Prometheus are the programs' own, so the truth does not
depend on how fast the machine is: it is what happened between the first and the last sample.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import pytest

from otel_pipeline_metrics.dashboards.rules import FILE_NAME, render
from tests.support.process import ROOT, get, poll
from tests.support.servers import CONFIG, DEVELOPMENT, Collector, Prometheus, collector_environment
from tests.system.backends.dashboards.expected import Expected, Key, Moment, World, expected
from tests.system.backends.dashboards.log import Truth
from tests.system.backends.dashboards.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.servers import Backends, JsonObject

pytestmark = [
    pytest.mark.backends,
    pytest.mark.slow,
    pytest.mark.xdist_group("backends"),
    pytest.mark.usefixtures("built_backends"),
]

NAMES = ("pipeline", "service", "telemetry")
# For so many seconds and samples the programs are busy, and rates are taken of all that time.
SECONDS, SAMPLES = 12, 10
# Which sample of the busy time is the first to count. Prometheus puts a 0 where a series begins,
# some begin a sample later than others, and their first value has what the program did to start.
FIRST = 3
# one that each export has
SAMPLED = {
    "shop": 'pipeline_run_active{job="shop"}',
    "lossy": 'pipeline_telemetry_operations_pending{job="lossy"}',
}
ALERTS = {"PipelineQueueFull", "PipelineStalled", "PipelineSpoolFills", "PipelineTelemetryLost"}
AT_ONCE = {
    "interval": "1s",
    "queue_full_for": "0s",
    "stalled_for": "0s",
    "spool_for": "0s",
    "spool_bytes": "1",
    "lost_for": "0s",
}


def dashboard(name: str) -> JsonObject:
    text = files("otel_pipeline_metrics.dashboards").joinpath(f"{name}.json").read_text("utf-8")
    found: JsonObject = json.loads(text)
    return found


def panels(name: str) -> Iterator[JsonObject]:
    for panel in dashboard(name)["panels"]:
        if panel["type"] != "row":
            yield panel


def queries() -> dict[Key, JsonObject]:
    """Return all targets of all panels."""
    return {
        (name, panel["title"], target["refId"]): target
        for name in NAMES
        for panel in panels(name)
        for target in panel["targets"]
    }


class Filled(NamedTuple):
    """A Prometheus with what the programs sent, and what they know."""

    prometheus: Prometheus
    world: World
    # over which rates are taken, by job
    windows: Mapping[str, str]

    def ask(self, target: JsonObject, wanted: Expected) -> dict[str, float]:
        """Return what a query returns, by legend; what is no number is left out."""
        variables = {
            "job": wanted.job,
            "stage": wanted.stage,
            "__rate_interval": self.windows[wanted.job],
        }
        found = query(
            self.prometheus,
            fill(target["expr"], variables),
            self.world.moments[wanted.job, wanted.at],
        )
        named = {
            legend(target["legendFormat"], series["metric"]): float(series["value"][1])
            for series in found
        }
        assert len(named) == len(found), f"two of one legend: {found}"
        return {name: value for name, value in named.items() if not math.isnan(value)}


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Fill in the variables as Grafana does."""
    values = {"job": ".*", "pipeline": ".*", "stage": ".*", **variables}
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], text)


def legend(text: str, labels: Mapping[str, str]) -> str:
    """Return a legend as Grafana shows it."""
    if not text:
        return labels["alertname"]
    filled = re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), text)
    return " ".join(filled.split())


def query(prometheus: Prometheus, promql: str, at: float) -> list[JsonObject]:
    answer = json.loads(get(f"{prometheus.url}/api/v1/query", query=promql, time=f"{at:.3f}"))
    found: list[JsonObject] = answer["data"]["result"]
    return found


def samples(prometheus: Prometheus, job: str, at: float, seconds: float) -> list[float]:
    """Return the times of the samples before that moment."""
    (found,) = query(prometheus, f"{SAMPLED[job]}[{max(1, int(seconds * 1000))}ms]", at) or [
        {"values": []}
    ]
    return [float(when) for when, _ in found["values"]]


def sample_after(prometheus: Prometheus, job: str, moment: float) -> float:
    """Return the time of a sample after that moment, once there is one."""

    def look() -> float:
        return max(samples(prometheus, job, time.time(), 600), default=0)

    return poll(look, accept=lambda at: at > moment, timeout=60, what=f"another sample of {job}")


def when_busy(program: subprocess.Popen[str]) -> float:
    """Return when a program said that it is busy, or a little later."""
    assert program.stdout is not None
    assert program.stdout.readline() == "busy\n"
    return time.time()


def wait_for_window(prometheus: Prometheus, job: str, since: float) -> None:
    """Wait until there are enough samples to tell a rate, however slow the machine is."""

    def look() -> list[float]:
        return samples(prometheus, job, time.time(), time.time() - since)

    poll(
        look,
        accept=lambda found: len(found) > FIRST + SAMPLES and found[-1] - found[FIRST] > SECONDS,
        timeout=120,
        what=f"samples of {job}",
    )


@contextmanager
def program(name: str, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    running = subprocess.Popen(
        [sys.executable, "-m", f"tests.system.backends.dashboards.{name}", *map(str, arguments)],
        env={
            **inherited,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            **environment,
        },
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.communicate(timeout=60)


@contextmanager
def servers(backends: Backends, folder: Path) -> Iterator[tuple[Collector, Prometheus]]:
    """Run a Collector in front of a Prometheus of its own, with our rules, each second."""
    (folder / FILE_NAME).write_text(render(AT_ONCE))
    config = folder / "prometheus.yml"
    text = (CONFIG / "prometheus.yml").read_text(encoding="utf-8")
    config.write_text(f"{text}\nrule_files: [{FILE_NAME}]\n")
    with Prometheus(config) as prometheus:
        environment = collector_environment(backends.jaeger, prometheus)
        with Collector(DEVELOPMENT, env=environment) as collector:
            yield collector, prometheus


def firing(prometheus: Prometheus) -> set[str]:
    found = query(prometheus, 'ALERTS{alertstate="firing"}', time.time())
    return {alert["metric"]["alertname"] for alert in found}


@pytest.fixture(scope="module")
def filled(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("dashboards")
    logs = {name: folder / f"{name}.json" for name in SAMPLED}
    with (
        servers(backends, folder) as (collector, prometheus),
        Receiver(collector.otlp_http_endpoint) as receiver,
        program(
            "shop",
            logs["shop"],
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.otlp_http_endpoint,
            OTEL_BSP_SCHEDULE_DELAY="500",
        ) as shop,
        program(
            "lossy",
            *(folder / "spool", logs["lossy"]),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1",
            # only when the program says so
            OTEL_BSP_SCHEDULE_DELAY="600000",
            # it takes as long as `receiver` waits in addition
            OTEL_METRIC_EXPORT_INTERVAL="200",
        ) as lossy,
    ):
        running = {"shop": shop, "lossy": lossy}
        busy_since = {job: when_busy(each) for job, each in running.items()}
        for job, each in running.items():
            wait_for_window(prometheus, job, busy_since[job])
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        moments: dict[tuple[str, Moment], float] = {}
        truths: dict[str, Truth] = {}
        windows: dict[str, str] = {}
        for job, path in logs.items():
            poll(path.exists, timeout=120, what=f"what {job} did")
            facts = json.loads(path.read_text())["facts"]
            found = samples(prometheus, job, facts["end"], facts["end"] - busy_since[job])
            begin, end = found[FIRST], found[-1]
            assert len(samples(prometheus, job, end, end - begin)) >= SAMPLES - 1
            moments[job, "busy"] = end
            windows[job] = f"{int((end - begin) * 1000) + 100}ms"
            truths[job] = Truth.read(path, begin, end)
            moments[job, "still"] = sample_after(
                prometheus, job, facts.get("held", facts["end"]) + 1
            )
        poll(
            lambda: firing(prometheus),
            accept=lambda names: names >= ALERTS,
            timeout=60,
            what="the alerts",
        )
        now = time.time()
        moments["shop", "alerted"] = moments["lossy", "alerted"] = now
        lossy_truth = truths["lossy"]
        seen = Truth(receiver.log.entries, {}, lossy_truth.begin, lossy_truth.end)
        world = World(truths["shop"], lossy_truth, seen, moments)
        yield Filled(prometheus, world, windows)


def test_every_query_returns_the_truth(filled: Filled) -> None:
    wanted, asked = expected(filled.world), queries()
    assert set(asked) - set(wanted) == set(), "without an expected value"
    assert set(wanted) - set(asked) == set(), "without a panel"
    wrong = []
    for key, target in asked.items():
        found, want = filled.ask(target, wanted[key]), wanted[key]
        missing = want.values.keys() - found.keys()
        differs = {
            name: (value, want.values.get(name, want.others))
            for name, value in found.items()
            if value != want.values.get(name, want.others)
        }
        if missing or differs or not any(found.values()):
            wrong.append((*key, sorted(missing), differs or found))
    assert not wrong, "\n".join(map(str, wrong))


def test_every_list_to_choose_from_is_full(filled: Filled) -> None:
    lists = {
        (name, variable["name"]): values_of(filled.prometheus, variable["query"])
        for name in NAMES
        for variable in dashboard(name)["templating"]["list"]
        if variable["type"] == "query"
    }
    jobs = {"shop", "lossy"}
    assert lists == {
        ("pipeline", "job"): jobs,
        ("pipeline", "pipeline"): {"nightly"},
        ("pipeline", "stage"): {"read", "transform", "store"},
        ("service", "job"): jobs,
        ("telemetry", "job"): jobs,
    }


def values_of(prometheus: Prometheus, text: str) -> set[str]:
    """Answer `label_values(series, label)` as Grafana does."""
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
    assert asked is not None
    job = ".*" if asked[2] == "job" else "shop"
    url = f"{prometheus.url}/api/v1/label/{asked[2]}/values"
    return set(json.loads(get(url, **{"match[]": fill(asked[1], {"job": job})}))["data"])


def test_alerts_are_marked_on_every_dashboard(filled: Filled) -> None:
    for name in NAMES:
        (mark,) = dashboard(name)["annotations"]["list"]
        (table,) = (panel for panel in panels(name) if panel["title"] == "Firing alerts")
        assert mark["expr"] == table["targets"][0]["expr"]


def test_a_panel_leads_to_the_traces_of_its_stage(backends: Backends, filled: Filled) -> None:
    """With the path of Jaeger's page replaced by that of its JSON."""
    links = {
        link["url"]
        for panel in panels("pipeline")
        for link in panel["fieldConfig"]["defaults"].get("links", ())
    }
    (url,) = links
    now = filled.world.moments["shop", "still"]
    for name, value in {
        "${traces}/search": f"{backends.jaeger.url}/api/traces",
        "${__field.labels.job}": "shop",
        "${__field.labels.pipeline_stage_name}": "transform",
        "${__from}": str(int((now - 3600) * 1000)),
        "${__to}": str(int(now * 1000)),
    }.items():
        assert name in url
        url = url.replace(name, value)
    (trace,) = poll(lambda: json.loads(get(url))["data"], timeout=30, what="the trace of the stage")
    assert "transform" in {span["operationName"] for span in trace["spans"]}
    assert "$" not in url
