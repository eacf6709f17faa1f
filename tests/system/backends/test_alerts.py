"""One alert from a pipeline to its receivers: a real Prometheus, a real Alertmanager."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics.dashboards.rules import FILE_NAME, render
from tests.support.process import poll, started
from tests.support.servers import CONFIG, Alertmanager, Prometheus
from tests.support.serving import QuietHandler, Serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),
    pytest.mark.usefixtures("built_backends"),
]

EXAMPLE = CONFIG / "alertmanager.yml"
# Puts four into a queue of four, and takes one out at the first line that it reads.
PROGRAM = """
import queue, sys
import otel_pipeline_metrics as opm

opm.configure(exporter="otlp", service_name="alerting", console=False)
orders = opm.wrap_queue(queue.Queue(4), name="orders")
for number in range(4):
    orders.put(number)
print("ready", flush=True)
sys.stdin.readline()
orders.get()
sys.stdin.readline()
"""


@pytest.fixture
def installed() -> None:
    """Skip without Debian's package; fail in CI, which installs it."""
    if Alertmanager.is_installed():
        return
    reason = "no prometheus-alertmanager: run .ci/backends/alertmanager.sh"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Receiver(Serving):
    """Keeps what is posted to it, by path."""

    def __init__(self) -> None:
        posts = self.posts = defaultdict[str, list[dict[str, Any]]](list)

        class Handler(QuietHandler):
            def do_POST(self) -> None:  # noqa: N802 - of `http.server`
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts[self.path].append(json.loads(body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

        super().__init__(Handler)

    def alert(self, status: str) -> dict[str, Any]:
        """Return the first of that status that came to the webhook, once there is one."""

        def seen() -> list[dict[str, Any]]:
            return [
                alert
                for post in list(self.posts["/alerts"])
                for alert in post["alerts"]
                if alert["status"] == status
            ]

        return poll(seen, timeout=60, what=f"an alert that is {status}")[0]


def our_example(folder: Path, url: str) -> Path:
    """Return the example with addresses of the loopback and without waits."""
    (folder / "chat-url").write_text(f"{url}/chat")
    config = EXAMPLE.read_text(encoding="utf-8")
    for example, ours in (
        ("http://127.0.0.1:8080/alerts", f"{url}/alerts"),
        ("/etc/alertmanager/chat-url", str(folder / "chat-url")),
        ("group_wait: 30s", "group_wait: 0s"),
        ("group_interval: 5m", "group_interval: 1s"),
    ):
        assert example in config
        config = config.replace(example, ours)
    path = folder / "alertmanager.yml"
    path.write_text(config)
    return path


@contextmanager
def prometheus_with_rules(folder: Path, alertmanager: Alertmanager) -> Iterator[Prometheus]:
    """Run a Prometheus with our rules, evaluated each second."""
    (folder / FILE_NAME).write_text(render({"interval": "1s", "queue_full_for": "1s"}))
    config = folder / "prometheus.yml"
    config.write_text(
        (CONFIG / "prometheus.yml").read_text(encoding="utf-8")
        + f"rule_files: [{FILE_NAME}]\n"
        + "alerting:\n"
        + "  alertmanagers:\n"
        + f"    - static_configs: [{{targets: ['{alertmanager.target}']}}]\n"
    )
    with Prometheus(config) as prometheus:
        yield prometheus


@contextmanager
def program(prometheus: Prometheus) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("OTEL_")},
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.otlp_endpoint}/v1/metrics",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with started(PROGRAM, environment) as running:
        yield running


@pytest.mark.slow
def test_an_alert_reaches_the_webhook_and_the_chat(installed: None, tmp_path: Path) -> None:
    with (
        Receiver() as receiver,
        Alertmanager(our_example(tmp_path, receiver.url)) as alertmanager,
        prometheus_with_rules(tmp_path, alertmanager) as prometheus,
        program(prometheus) as running,
    ):
        fired = receiver.alert("firing")
        assert fired["labels"]["alertname"] == "PipelineQueueFull"
        assert fired["labels"]["job"] == "alerting"
        assert fired["labels"]["pipeline_queue_name"] == "orders"
        assert fired["labels"]["severity"] == "warning"
        assert fired["annotations"]["summary"] == "the queue orders is 100% full"
        assert fired["annotations"]["runbook"] == "docs/alerts.md#pipelinequeuefull"
        (said,) = poll(lambda: receiver.posts["/chat"], timeout=60, what="the chat")[0][
            "attachments"
        ]
        assert said["title"] == "PipelineQueueFull: firing"
        assert "the queue orders is 100% full" in said["text"]

        assert running.stdin is not None
        running.stdin.write("\n")
        running.stdin.flush()
        resolved = receiver.alert("resolved")
        assert resolved["labels"] == fired["labels"]


@pytest.mark.parametrize(
    ("severity", "receivers"),
    [("info", "webhook"), ("warning", "webhook,chat"), ("critical", "webhook,chat,mail")],
)
def test_the_example_sends_by_severity(installed: None, severity: str, receivers: str) -> None:
    """Alertmanager's own tool reads the example, and tells who is told."""
    done = subprocess.run(
        ["amtool", "config", "routes", "test", f"--config.file={EXAMPLE}", f"severity={severity}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == receivers
