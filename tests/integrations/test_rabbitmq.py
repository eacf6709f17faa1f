"""Test inject, extract and consume on a real RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT
from tests.support.rabbitmq import needs_rabbitmq, rabbitmq_server

pika = pytest.importorskip("pika")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured

pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.xdist_group("rabbitmq"),
    needs_rabbitmq,
]

MESSAGES = 1000

WORKER = """
import json, sys
import pika
import otel_pipeline_metrics as opm

connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
channel = connection.channel()
channel.basic_qos(prefetch_count=10)

def messages():
    for method, properties, body in channel.consume("jobs", inactivity_timeout=1):
        if method is None:
            return
        yield properties, body
        channel.basic_ack(method.delivery_tag)

@opm.process("work")
def work(body):
    opm.current_stage().add_items(1)
    if int(body) % 10 == 3:
        opm.current_stage().retry("again")
    if int(body) % 10 == 5:
        raise ValueError(body)

print("ready", flush=True)
sys.stdin.readline()
with opm.run("consumer", resources=False) as run:
    for _, body in opm.consume(messages(), queue="jobs", headers=lambda m: m[0].headers):
        try:
            work(body)
        except ValueError:
            pass
print(json.dumps(run.report.to_dict()))
connection.close()
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as found:
        yield found


@pytest.fixture
def connection(port: int) -> Iterator[pika.BlockingConnection]:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as found:
        yield found


def publish(channel: pika.channel.Channel, body: str) -> None:
    properties = pika.BasicProperties(headers=opm.inject({}, queue="jobs"))
    channel.basic_publish("", "jobs", body.encode(), properties)


def test_a_thousand_messages_in_two_workers(port: int, connection: pika.BlockingConnection) -> None:
    channel = connection.channel()
    channel.queue_declare("jobs")
    with opm.run("producer", resources=False) as run:
        for number in range(MESSAGES):
            publish(channel, str(number))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    reports = [json.loads(worker.communicate("\n", timeout=120)[0]) for worker in workers]
    assert run.report.queues[0]["put"] == MESSAGES
    queues = [report["queues"][0] for report in reports if report["queues"]]
    assert sum(queue["got"] for queue in queues) == MESSAGES
    assert all(queue["wait_s"]["max"] > 0 for queue in queues)
    rows = [stage for report in reports for stage in report["stages"]]
    assert sum(stage["count"] for stage in rows) == MESSAGES
    assert sum(stage["errors"]["total"] for stage in rows) == MESSAGES // 10
    assert sum(stage["retries"] for stage in rows) == MESSAGES // 10
    assert sum(stage["items"]["out"] for stage in rows) == MESSAGES


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
