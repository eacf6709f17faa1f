"""Test the recipes for Kafka's clients on messages of their own types; there is no broker here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.queues import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.lifecycle.configure.support import Captured

Headers = list[tuple[str, bytes]]


def sent() -> Headers:
    with opm.stage("send"):
        headers: Headers = opm.inject([], queue="orders")
    assert all(isinstance(value, bytes) for _, value in headers)
    return headers


def of_another_machine(headers: Headers) -> Headers:
    """Return them as another machine would have sent them: only the broker's stamp counts."""
    return [
        (key, value.partition(b";")[0] + b";other" if key == "opm-put-time" else value)
        for key, value in headers
    ]


def check(run: opm.Run, captured: Captured) -> None:
    (queue,) = run.report.queues
    assert (queue["name"], queue["got"]) == ("orders", 2)
    # of this machine by the header, of another one by the stamp
    assert queue["wait_s"]["max"] > 50 > queue["wait_s"]["p50"]
    spans = captured.spans()
    senders = [span.context.span_id for span in spans if span.name == "send orders"]
    links = [link for span in spans if span.name == "process orders" for link in span.links]
    assert len(senders) == 2
    assert [link.context.span_id for link in links] == senders


async def test_aiokafka(captured: Captured) -> None:
    structs = pytest.importorskip("aiokafka.structs")
    captured.configure()
    stamp = round(1000 * (time.time() - 60))

    async def consumer() -> AsyncIterator[Any]:
        for headers in (sent(), of_another_machine(sent())):
            yield structs.ConsumerRecord(
                "orders", 0, 1, stamp, 0, None, b"7", None, -1, 1, tuple(headers)
            )

    async with opm.run("kafka", resources=False) as run:
        async for message in opm.consume(consumer(), queue="orders"):
            assert message.value == b"7"
    check(run, captured)


async def test_the_lag_of_aiokafkas_consumer(captured: Captured) -> None:
    aiokafka = pytest.importorskip("aiokafka")
    captured.configure()

    class Consumer(aiokafka.AIOKafkaConsumer):  # type: ignore[misc, name-defined]
        """Gets its messages from a list in place of a broker."""

        def __init__(self, records: list[Any]) -> None:
            super().__init__(bootstrap_servers="127.0.0.1:1")
            self.records = records

        def __del__(self) -> None:
            """Ask for no `stop()`, since it never started."""

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            if not self.records:
                raise StopAsyncIteration
            return self.records.pop(0)

    def record(partition: int, offset: int) -> Any:
        return aiokafka.ConsumerRecord(
            "orders", partition, offset, 0, 0, None, b"7", None, -1, 1, ()
        )

    both = [aiokafka.TopicPartition("orders", partition) for partition in range(2)]
    consumer = Consumer([record(0, 4), record(1, 0), record(0, 5), record(9, 0)])
    consumer._subscription.assign_from_user(both)
    consumer._subscription.subscription.assignment.state_value(both[0]).highwater = 10
    consumer._subscription.subscription.assignment.state_value(both[1]).highwater = 3
    messages = opm.consume(consumer, queue="orders")
    sizes = [registry.sizes().get("orders") async for _ in messages]
    assert sizes == [5, 5 + 2, 4 + 2, 4 + 2]
    assert captured.values("pipeline.queue.size") == {(): 6}
    # a partition that another consumer has now
    consumer._subscription.unsubscribe()
    consumer._subscription.assign_from_user(both[1:])
    consumer.records.append(record(1, 1))
    consumer._subscription.subscription.assignment.state_value(both[1]).highwater = 3
    async for _ in messages:
        pass
    assert registry.sizes().get("orders") == 1


def test_confluent_kafka(captured: Captured) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    captured.configure()
    stamp = round(1000 * (time.time() - 60))

    def polled() -> Iterator[Any]:
        for headers in (sent(), of_another_machine(sent())):
            yield confluent_kafka.Message(
                topic="orders", value=b"7", headers=headers, timestamp=(1, stamp)
            )

    with opm.run("kafka", resources=False) as run:
        for message in opm.consume(polled(), queue="orders"):
            assert message.value() == b"7"
    check(run, captured)


def test_without_headers() -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    messages = [confluent_kafka.Message(topic="orders", value=b"7") for _ in range(2)]
    with opm.run("kafka", resources=False) as run, opm.stage("receive"):
        assert len(list(opm.consume([messages], queue="orders"))) == 1
    (queue,) = run.report.queues
    assert queue["got"] == 2
