"""Run real servers on free loopback ports: a Collector, a Jaeger and a Prometheus.

```python
with start_backends() as backends:
    ...  # send OTLP to backends.otlp_grpc_endpoint
    backends.jaeger.traces("my-service")
    backends.prometheus.query("pipeline_stage_items_total")
```

The programs are those that `make backends` built.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.process import (
    HOST,
    ROOT,
    BackendMissingError,
    Server,
    StartError,
    accepts_connections,
    answers,
    binary,
    get,
    missing_binaries,
    poll,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "DEVELOPMENT",
    "PRODUCTION",
    "Alertmanager",
    "BackendMissingError",
    "Backends",
    "Collector",
    "Jaeger",
    "JsonObject",
    "Prometheus",
    "StartError",
    "binary",
    "collector_environment",
    "missing_binaries",
    "poll",
    "start_backends",
    "validate_config",
]

CONFIG = ROOT / "collector-config"
DEVELOPMENT = CONFIG / "development.yaml"
PRODUCTION = CONFIG / "production.yaml"
JAEGER = ROOT / "tests" / "support" / "jaeger.yaml"

JsonObject = dict[str, Any]


def validate_config(*configs: Path) -> str:
    """Return the Collector's complaint about these files, merged in order; empty if none."""
    arguments = [f"--config={path}" for path in configs]
    done = subprocess.run(
        [binary("otelcol"), "validate", *arguments],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


class Collector(Server):
    """An OpenTelemetry Collector that runs one of our configurations."""

    program = "otelcol"
    port_names = ("grpc", "http", "metrics", "health", "scrape")

    def __init__(
        self,
        config: Path = DEVELOPMENT,
        *,
        extra_configs: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._configs = (config, *extra_configs)
        self._env = dict(env or {})

    @property
    def otlp_grpc_endpoint(self) -> str:
        """OTEL_EXPORTER_OTLP_ENDPOINT for the protocol grpc."""
        return f"http://{HOST}:{self.ports['grpc']}"

    @property
    def otlp_http_endpoint(self) -> str:
        """OTEL_EXPORTER_OTLP_ENDPOINT for the protocol http/protobuf."""
        return f"http://{HOST}:{self.ports['http']}"

    def debug_output(self) -> str:
        """Return what it has printed; with a debug exporter, what it received."""
        return self.log_text()

    def own_metrics(self) -> str:
        """Return its metrics about itself, such as queue sizes, as Prometheus text."""
        return get(f"http://{HOST}:{self.ports['metrics']}/metrics").decode()

    def _arguments(self) -> list[str]:
        return [f"--config={path}" for path in self._configs]

    def _environment(self) -> dict[str, str]:
        return {
            **super()._environment(),
            "OTLP_GRPC_LISTEN": f"{HOST}:{self.ports['grpc']}",
            "OTLP_HTTP_LISTEN": f"{HOST}:{self.ports['http']}",
            "COLLECTOR_METRICS_PORT": str(self.ports["metrics"]),
            "HEALTH_LISTEN": f"{HOST}:{self.ports['health']}",
            "SCRAPE_LISTEN": f"{HOST}:{self.ports['scrape']}",
            **self._env,
        }

    def _is_ready(self) -> bool:
        return answers(f"http://{HOST}:{self.ports['health']}/") and all(
            accepts_connections(self.ports[name]) for name in ("grpc", "http", "metrics", "health")
        )


class Jaeger(Server):
    """A Jaeger that keeps its traces in memory."""

    program = "jaeger"
    port_names = ("otlp", "query", "health")

    @property
    def url(self) -> str:
        """The address of its JSON API."""
        return f"http://{HOST}:{self.ports['query']}"

    @property
    def otlp_endpoint(self) -> str:
        """The address for OTLP over gRPC."""
        return f"{HOST}:{self.ports['otlp']}"

    def services(self) -> list[str]:
        """Return the services that have sent spans."""
        return sorted(json.loads(get(f"{self.url}/api/services"))["data"] or [])

    def traces(
        self,
        service: str,
        *,
        wait_until: Callable[[list[JsonObject]], bool] | None = None,
        timeout: float = 20,
    ) -> list[JsonObject]:
        """Return the traces of a service once `wait_until` holds; by default, once there is one."""
        return poll(
            lambda: self._traces_now(service),
            accept=wait_until or bool,
            timeout=timeout,
            what=f"traces of {service} in Jaeger",
        )

    def _traces_now(self, service: str) -> list[JsonObject]:
        # All times, because tests with a patched clock make spans that are years old.
        tomorrow = int((time.time() + 86_400) * 1e6)
        answer = get(
            f"{self.url}/api/traces", service=service, start="1", end=str(tomorrow), limit="1000"
        )
        return json.loads(answer)["data"] or []

    def _arguments(self) -> list[str]:
        return [f"--config={JAEGER}"]

    def _environment(self) -> dict[str, str]:
        return {
            **super()._environment(),
            "OTLP_LISTEN": self.otlp_endpoint,
            "QUERY_LISTEN": f"{HOST}:{self.ports['query']}",
            "HEALTH_LISTEN": f"{HOST}:{self.ports['health']}",
            # Otherwise it traces itself, and shows up among the services.
            "OTEL_TRACES_SAMPLER": "always_off",
        }

    def _is_ready(self) -> bool:
        return (
            answers(f"http://{HOST}:{self.ports['health']}/status")
            and answers(f"{self.url}/api/services")
            and accepts_connections(self.ports["otlp"])
        )


class Prometheus(Server):
    """A Prometheus that takes OTLP and runs collector-config/prometheus.yml."""

    program = "prometheus"
    port_names = ("web",)

    def __init__(self, config: Path = CONFIG / "prometheus.yml") -> None:
        super().__init__()
        self._config = config

    @property
    def url(self) -> str:
        """The address of its HTTP API."""
        return f"http://{HOST}:{self.ports['web']}"

    @property
    def otlp_endpoint(self) -> str:
        """The address for OTLP over HTTP; exporters append /v1/metrics."""
        return f"{self.url}/api/v1/otlp"

    def query(self, promql: str, *, timeout: float = 20, wait: bool = True) -> list[JsonObject]:
        """Return the series of an instant query; by default, once there is one."""

        def attempt() -> list[JsonObject]:
            answer = json.loads(get(f"{self.url}/api/v1/query", query=promql))
            result: list[JsonObject] = answer["data"]["result"]
            return result

        return poll(attempt, timeout=timeout, what=promql) if wait else attempt()

    def wait_for_sum(self, series: str, expected: float, *, timeout: float = 60) -> None:
        """Wait until the latest values of series add up to this; fail if they are more."""
        promql = f"sum(last_over_time({series}[1h]))"
        found = poll(
            lambda: [float(each["value"][1]) for each in self.query(promql, wait=False)],
            accept=lambda values: values and values[0] >= expected,
            timeout=timeout,
            what=promql,
        )
        assert found == [expected], promql

    def exemplars(self, promql: str, *, timeout: float = 20) -> list[JsonObject]:
        """Return the exemplars of a series, once there is one."""

        def attempt() -> list[JsonObject]:
            start, end = str(time.time() - 86_400), str(time.time() + 60)
            url = f"{self.url}/api/v1/query_exemplars"
            answer = json.loads(get(url, query=promql, start=start, end=end))
            result: list[JsonObject] = answer["data"]
            return result

        return poll(attempt, timeout=timeout, what=f"exemplars of {promql}")

    def _arguments(self) -> list[str]:
        return [
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={HOST}:{self.ports['web']}",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
        ]

    def _is_ready(self) -> bool:
        return answers(f"{self.url}/-/ready")


class Alertmanager(Server):
    """An Alertmanager of Debian's package, alone and on the loopback."""

    program = "prometheus-alertmanager"
    port_names = ("web",)

    def __init__(self, config: Path) -> None:
        super().__init__()
        self._config = config

    @staticmethod
    def is_installed() -> bool:
        """Whether the package is there."""
        return shutil.which(Alertmanager.program) is not None

    @property
    def target(self) -> str:
        """The address for the configuration of Prometheus."""
        return f"{HOST}:{self.ports['web']}"

    def _binary(self) -> Path:
        found = shutil.which(self.program)
        if found is None:
            raise BackendMissingError(f"{self.program} is not installed")
        return Path(found)

    def _arguments(self) -> list[str]:
        return [
            f"--config.file={self._config}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={self.target}",
            # empty: no port for a cluster
            "--cluster.listen-address=",
        ]

    def _is_ready(self) -> bool:
        return answers(f"http://{self.target}/-/ready")


@dataclass(frozen=True)
class Backends:
    """A Collector with the Jaeger and the Prometheus behind it."""

    collector: Collector
    jaeger: Jaeger
    prometheus: Prometheus

    @property
    def otlp_grpc_endpoint(self) -> str:
        """OTEL_EXPORTER_OTLP_ENDPOINT for the protocol grpc."""
        return self.collector.otlp_grpc_endpoint

    @property
    def otlp_http_endpoint(self) -> str:
        """OTEL_EXPORTER_OTLP_ENDPOINT for the protocol http/protobuf."""
        return self.collector.otlp_http_endpoint

    @property
    def jaeger_url(self) -> str:
        """The address of Jaeger's JSON API."""
        return self.jaeger.url

    @property
    def prometheus_url(self) -> str:
        """The address of Prometheus' HTTP API."""
        return self.prometheus.url


def collector_environment(jaeger: Jaeger, prometheus: Prometheus) -> dict[str, str]:
    """Return the variables that point our configurations at these servers, with short waits."""
    return {
        "JAEGER_OTLP_ENDPOINT": jaeger.otlp_endpoint,
        "JAEGER_OTLP_INSECURE": "true",
        "PROMETHEUS_OTLP_ENDPOINT": prometheus.otlp_endpoint,
        "BATCH_TIMEOUT": "200ms",
        "RETRY_INITIAL_INTERVAL": "100ms",
        "RETRY_MAX_INTERVAL": "500ms",
        "DEBUG_VERBOSITY": "detailed",
    }


@contextmanager
def start_backends(
    config: Path = DEVELOPMENT,
    *,
    extra_configs: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Backends]:
    """Run all three; `env` overrides what `collector_environment` gives the Collector."""
    with Jaeger() as jaeger, Prometheus() as prometheus:
        environment = {**collector_environment(jaeger, prometheus), **(env or {})}
        with Collector(config, extra_configs=extra_configs, env=environment) as collector:
            yield Backends(collector, jaeger, prometheus)
