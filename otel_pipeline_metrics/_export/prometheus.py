"""Let Prometheus pull: the official reader, and a server on loopback that shows what it holds.

One scrape has the metrics of the provider that `configure()` built and those of
prometheus_client's own registry.
"""

from __future__ import annotations

import multiprocessing
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID
from prometheus_client import REGISTRY, start_http_server

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from wsgiref.simple_server import WSGIServer

    from opentelemetry.sdk.resources import Resource
    from prometheus_client import Metric


HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
# of the specification of OpenTelemetry
DEFAULT_PORT: Final = 9464
MAX_PORT: Final = 65535
MAX_DIGITS: Final = 5
_LABEL: Final = SERVICE_INSTANCE_ID.replace(".", "_")
_ONE_OF_SEVERAL: Final = (
    "this process is one of several, and a scrape of port %s sees only one of them; "
    "export by OTLP to see all"
)


class PullReader(PrometheusMetricReader):
    """The official reader, apart from the registry that everybody shares."""

    def __init__(self) -> None:
        super().__init__()
        REGISTRY.unregister(self._collector)
        self.page = Page(self._collector)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Close the port."""
        self.page.close()


class Page:
    """What a scrape sees; stands in for a registry of prometheus_client."""

    def __init__(self, ours: Any) -> None:
        self._ours = ours
        # that of the provider; a forked child has an id of its own there
        self.resource: Resource | None = None
        # what keeps Prometheus from reaching this process; without an address
        self.problem: str | None = None
        self._server: WSGIServer | None = None
        self._port = 0
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Close the parent's socket, which would swallow a part of its scrapes."""
        # two scrapes at once would mix their results
        self._lock = threading.RLock()
        server, self._server = self._server, None
        if server is not None:
            server.socket.close()
            self.problem = "Prometheus sees the process that forked this one"
            errors.warn_once("one of several", _ONE_OF_SEVERAL, self._port)

    def listen(self, environment: Mapping[str, str]) -> None:
        """Serve where the standard variables say; port 0: nowhere.

        A port that cannot be had is one line in the log, and a degraded health.
        """
        host = environment.get(HOST, "").strip() or "127.0.0.1"
        port = self._port = _port(environment)
        if port == 0:
            return
        if multiprocessing.parent_process() is not None:
            errors.warn_once("one of several", _ONE_OF_SEVERAL, port)
        try:
            self._server = start_http_server(port, host, registry=self)[0]
        except (OSError, UnicodeError) as error:
            self.problem = "the port for Prometheus cannot be opened"
            errors.warn_once(
                "Prometheus port",
                "Prometheus cannot scrape this process, since port %s cannot be opened (%s): "
                "%s chooses another; several processes on a machine are better served by OTLP",
                port,
                getattr(error, "strerror", None) or type(error).__name__,
                PORT,
            )

    def close(self) -> None:
        """Stop serving."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def collect(self) -> Iterator[Metric]:
        """Return prometheus_client's own metrics, and ours, labelled with the instance."""
        yield from REGISTRY.collect()
        with self._lock, errors.suppress_errors("a scrape"):
            found = list(self._ours.collect())
            instance = self.resource.attributes.get(SERVICE_INSTANCE_ID) if self.resource else None
            for family in found:
                if instance is not None:
                    family.samples = [
                        one._replace(labels={**one.labels, _LABEL: str(instance)})
                        for one in family.samples
                    ]
                yield family

    def restricted_registry(self, names: Iterable[str]) -> _Restricted:
        """Return the samples of these names only, as `?name[]=` asks for."""
        return _Restricted(self, frozenset(names))


class _Restricted:
    def __init__(self, page: Page, names: frozenset[str]) -> None:
        self._page = page
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for family in self._page.collect():
            family.samples = [one for one in family.samples if one.name in self._names]
            if family.samples:
                yield family


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get(PORT, "").strip()
    if not text:
        return DEFAULT_PORT
    if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) <= MAX_PORT:
        return int(text)
    message = "%s must be a port, or 0 for none, not %.40r; %s is used"
    errors.warn_once(PORT, message, PORT, text, DEFAULT_PORT)
    return DEFAULT_PORT
