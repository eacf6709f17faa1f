"""Test inject, extract and consume on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT, poll
from tests.support.rabbitmq import needs_rabbitmq, rabbitmq_server
from tests.support.servers import missing_binaries, start_backends
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import invocations, points

pika = pytest.importorskip("pika")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lifecycle.configure.support import Captured

pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.xdist_group("rabbitmq"),
    needs_rabbitmq,
]

MESSAGES = 1000
NAMES = ("first", "second")

WORKER = """
import sys
import pika
import otel_pipeline_metrics as opm

port, queue, folder = sys.argv[1:]
opm.configure(console=False)
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port)))
channel = connection.channel()
channel.basic_qos(prefetch_count=10)
truth = open(folder + "/truth", "a", buffering=1)

def messages():
    for method, properties, body in channel.consume(queue, inactivity_timeout=2):
        if method is None:
            return
        yield properties, body
        channel.basic_ack(method.delivery_tag)

@opm.process("work")
def work(body):
    opm.current_stage().add_items(1)
    if int(body) % 10 == 3:
        opm.current_stage().retry("again")
    print(int(body), file=truth)
    if int(body) % 10 == 5:
        raise ValueError(body)

print("ready", flush=True)
sys.stdin.readline()
with opm.run("consumer", resources=False, report=folder + "/report.json"):
    for _, body in opm.consume(messages(), queue=queue, headers=lambda m: m[0].headers):
        try:
            work(body)
        except ValueError:
            pass
connection.close()
"""


@contextlib.contextmanager
def workers(
    port: int, queue: str, endpoint: str, folder: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run two workers, each with a folder of its name, until the queue is empty."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    env = inherited | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": f"workers of {queue}",
    }
    with contextlib.ExitStack() as stack:
        found = []
        for name in NAMES:
            (folder / name).mkdir()
            command = [sys.executable, "-c", WORKER, str(port), queue, str(folder / name)]
            worker = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            found.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        for worker in found:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in found:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        yield found
        for worker in found:
            worker.wait(120)


def reports_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / name / "report.json").read_text()) for name in NAMES]


def truths_of(folder: Path) -> list[list[int]]:
    return [list(map(int, (folder / name / "truth").read_text().split())) for name in NAMES]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as found:
        yield found


@pytest.fixture
def connection(port: int) -> Iterator[pika.BlockingConnection]:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as found:
        yield found


def publish(channel: pika.channel.Channel, body: str, queue: str = "jobs") -> None:
    properties = pika.BasicProperties(headers=opm.inject({}, queue=queue))
    channel.basic_publish("", queue, body.encode(), properties)


def publish_all(connection: pika.BlockingConnection, queue: str) -> opm.Run:
    channel = connection.channel()
    channel.queue_declare(queue)
    with opm.run("producer", resources=False) as run:
        for number in range(MESSAGES):
            publish(channel, str(number), queue)
    return run


def check_thousand(produced: opm.Run, folder: Path) -> None:
    reports = reports_of(folder)
    assert produced.report.queues[0]["put"] == MESSAGES
    assert sorted(itertools.chain(*truths_of(folder))) == list(range(MESSAGES))
    queues = [report["queues"][0] for report in reports if report["queues"]]
    assert sum(queue["got"] for queue in queues) == MESSAGES
    assert all(queue["wait_s"]["max"] > 0 for queue in queues)
    rows = [stage for report in reports for stage in report["stages"]]
    assert sum(stage["count"] for stage in rows) == MESSAGES
    assert sum(stage["errors"]["total"] for stage in rows) == MESSAGES // 10
    assert sum(stage["retries"] for stage in rows) == MESSAGES // 10
    assert sum(stage["items"]["out"] for stage in rows) == MESSAGES


def test_a_thousand_messages_in_two_workers(
    port: int, connection: pika.BlockingConnection, tmp_path: Path
) -> None:
    produced = publish_all(connection, "jobs")
    with collector("none", "http/protobuf") as there:
        with workers(port, "jobs", f"http://127.0.0.1:{there.port}", tmp_path):
            pass
        check_thousand(produced, tmp_path)
        counts = sorted(len(truth) for truth in truths_of(tmp_path))
        assert sorted(invocations(there, "work").values()) == counts
        failed = {
            attributes["error.type"]: point.count
            for _, attributes, point in points(there, "pipeline.stage.duration")
            if "error.type" in attributes
        }
        assert set(failed) == {"ValueError"}


@pytest.mark.skipif(bool(missing_binaries()), reason="there is no Prometheus (make backends)")
def test_prometheus_has_every_message_once(
    port: int, connection: pika.BlockingConnection, tmp_path: Path
) -> None:
    produced = publish_all(connection, "measured")
    with start_backends() as backends:
        with workers(port, "measured", backends.otlp_http_endpoint, tmp_path):
            pass
        check_thousand(produced, tmp_path)
        truth = {
            "duration_seconds_count{error_type=''": MESSAGES - MESSAGES // 10,
            "duration_seconds_count{error_type='ValueError'": MESSAGES // 10,
            "items_total{pipeline_io_direction='out'": MESSAGES,
            "retries_total{error_type='again'": MESSAGES // 10,
        }
        for series, expected in truth.items():
            backends.prometheus.wait_for_sum(
                f"pipeline_stage_{series},service_name='workers of measured'}}", expected
            )


def test_sigterm_to_a_worker(
    port: int, connection: pika.BlockingConnection, tmp_path: Path
) -> None:
    publish_all(connection, "ended")
    with collector("none", "http/protobuf") as there:
        with workers(port, "ended", f"http://127.0.0.1:{there.port}", tmp_path) as (first, _):
            poll(
                lambda: (tmp_path / "first" / "truth").read_text().count("\n") > 20,
                timeout=60,
                what="messages that the first worker has done",
            )
            first.send_signal(signal.SIGTERM)
            first.wait(60)
            ended = len(truths_of(tmp_path)[0])
        ended_report, other_report = (report["stages"][0] for report in reports_of(tmp_path))
        told, others = truths_of(tmp_path)
        # what it had not confirmed went to the other one, so nothing is left out
        assert set(told) | set(others) == set(range(MESSAGES))
        assert len(told) == ended < MESSAGES
        # a call in progress may not have noted itself, or have noted itself and not ended
        assert ended_report["count"] in {ended - 1, ended, ended + 1}
        assert other_report["count"] == len(others)
        assert sorted(invocations(there, "work").values()) == sorted(
            (ended_report["count"], other_report["count"])
        )
    assert first.returncode == -signal.SIGTERM


def test_the_trace_goes_on_in_the_consumer(
    connection: pika.BlockingConnection, captured: Captured
) -> None:
    captured.configure()
    channel = connection.channel()
    channel.queue_declare("jobs")
    publish(channel, "1")
    method, properties, _ = channel.basic_get("jobs", auto_ack=True)
    for _ in opm.consume([properties], queue="jobs"):
        with opm.stage("work"):
            pass
    assert method is not None
    spans = {span.name: span for span in captured.spans()}
    sent, received = spans["send jobs"], spans["process jobs"]
    assert [link.context.span_id for link in received.links] == [sent.context.span_id]
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert spans["work"].parent is not None
    assert spans["work"].parent.span_id == received.context.span_id


def test_it_listens_on_the_loopback_alone(port: int) -> None:
    addresses = addresses_of(family(os.getpid()))
    assert addresses
    assert all(map(is_loopback, addresses)), addresses
