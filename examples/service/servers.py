"""The servers of the demo: a Collector, a Prometheus that scrapes it, an Alertmanager."""

from __future__ import annotations

import json
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_pipeline_metrics.dashboards.rules import FILE_NAME, SETTINGS, render
from tests.support.servers import (
    CONFIG,
    PRODUCTION,
    Alertmanager,
    Collector,
    Prometheus,
    missing_binaries,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOR = "5s"

# Alerts are shown, and sent to nobody.
ALERTMANAGER_CONFIG = "{route: {receiver: nobody}, receivers: [{name: nobody}]}"


class Alert(NamedTuple):
    name: str
    severity: str
    summary: str


@dataclass
class Servers:
    """Those that run, by what is on this machine."""

    collector: Collector | None = None
    prometheus: Prometheus | None = None
    alertmanager: Alertmanager | None = None
    # what is not there, and how it is had
    left_out: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return what runs."""
        running = (self.collector, self.prometheus, self.alertmanager)
        return [type(server).__name__ for server in running if server is not None]

    def environment(self) -> dict[str, str]:
        """Return the variables that point a program at them."""
        if self.collector is None:
            return {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.otlp_grpc_endpoint,
            # spans would need a Jaeger: `make demo-collector`
            "OTEL_TRACES_EXPORTER": "none",
        }

    def alerts(self) -> set[Alert]:
        """Return the alerts that fire now: what Alertmanager has, or else Prometheus."""
        if self.alertmanager is not None:
            found = _get(f"http://{self.alertmanager.target}/api/v2/alerts?active=true")
        elif self.prometheus is not None:
            answer = _get(f"{self.prometheus.url}/api/v1/alerts")
            found = [one for one in answer["data"]["alerts"] if one["state"] == "firing"]
        else:
            found = []
        return {
            Alert(
                one["labels"]["alertname"],
                one["labels"]["severity"],
                one["annotations"]["summary"],
            )
            for one in found
        }


@contextmanager
def start(folder: Path, *, wanted: bool = True) -> Iterator[Servers]:
    """Run what is on this machine; without a Collector or a Prometheus, nothing."""
    missing = set(missing_binaries()) & {"otelcol", "prometheus"}
    if missing or not wanted:
        how = "not built: make backends" if missing else "not asked for"
        yield Servers(left_out=[f"the Collector, Prometheus, Alertmanager and alerts ({how})"])
        return
    found = Servers()
    scraped = Collector(PRODUCTION, extra_configs=[CONFIG / "production.scrape.yaml"])
    with _alertmanager(folder, found), scraped as found.collector:
        config = _prometheus_config(folder, scraped, found.alertmanager)
        with Prometheus(config) as found.prometheus:
            yield found


@contextmanager
def _alertmanager(folder: Path, found: Servers) -> Iterator[None]:
    if not Alertmanager.is_installed():
        found.left_out.append(
            "Alertmanager (not installed: apt-get install prometheus-alertmanager); "
            "alerts are Prometheus's own"
        )
        yield
        return
    config = folder / "alertmanager.yml"
    config.write_text(ALERTMANAGER_CONFIG, encoding="utf-8")
    with Alertmanager(config) as found.alertmanager:
        yield


def _prometheus_config(
    folder: Path, collector: Collector, alertmanager: Alertmanager | None
) -> Path:
    quick = {name: FOR for name in SETTINGS if name.endswith("_for")}
    (folder / FILE_NAME).write_text(render({"interval": "1s", **quick}), encoding="utf-8")
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [FILE_NAME],
        "scrape_configs": [
            {
                "job_name": "collector",
                # job and instance are those of the service
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{collector.ports['scrape']}"]}],
            }
        ],
    }
    if alertmanager is not None:
        targets = [{"targets": [alertmanager.target]}]
        config["alerting"] = {"alertmanagers": [{"static_configs": targets}]}
    path = folder / "prometheus.yml"
    # JSON is YAML too
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return path


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)
