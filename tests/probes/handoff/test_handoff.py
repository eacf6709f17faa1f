"""Test hand-offs through brokers: headers, spans, links, and the time in the queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.handoff import consume as _consume
from otel_pipeline_metrics._probes.handoff import headers as _headers
from tests.support.process import ROOT
from tests.support.redis import needs_redis, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.lifecycle.configure.support import Captured

FIELDS = {"traceparent", "opm-put-time"}


def spans(captured: Captured) -> dict[str, Any]:
    return {span.name: span for span in captured.spans()}


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (None, str),
        ({}, str),
        ({"a": "b"}, str),
        ({"a": b"b"}, bytes),
        ({b"a": b"b"}, bytes),
        ([], bytes),
        ([("a", b"b")], bytes),
        ([("a", "b")], str),
    ],
)
def test_headers_get_what_the_receiver_needs(captured: Captured, headers: Any, kind: type) -> None:
    captured.configure()
    with opm.stage("around"):
        found = opm.inject(headers, queue="jobs")
        again = opm.inject(found, queue="jobs")  # replaces
    assert headers is None or found is headers is again
    pairs = dict(found)
    names = {key.decode() if isinstance(key, bytes) else key for key in pairs}
    assert names == FIELDS | ({"a"} if headers is not None and len(pairs) == 3 else set())
    assert len(pairs) == len(found)
    assert {type(value) for value in pairs.values()} == {kind}
    sent = [span for span in captured.spans() if span.name == "send jobs"]
    assert sent[-1].kind is SpanKind.PRODUCER
    assert sent[-1].parent.span_id == spans(captured)["around"].context.span_id
    assert dict(sent[-1].attributes) == {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "jobs",
    }
    received = trace.get_current_span(opm.extract(found)).get_span_context()
    assert received.span_id == sent[-1].context.span_id


def test_baggage_goes_along_without_forbidden_keys(captured: Captured) -> None:
    captured.configure()
    token = context.attach(baggage.set_baggage("tenant", "a", baggage.set_baggage("password", "x")))
    try:
        headers = opm.inject(queue="jobs")
    finally:
        context.detach(token)
    assert baggage.get_all(opm.extract(headers)) == {"tenant": "a"}
    assert "x" not in str(headers)


def test_each_message_is_in_a_span_linked_to_its_sender(captured: Captured) -> None:
    captured.configure()
    messages = [SimpleNamespace(headers=opm.inject(queue="jobs"), n=n) for n in range(2)]
    seen = []
    with opm.run("consumer", resources=False) as run:
        for message in opm.consume(messages, queue="jobs"):
            with opm.stage("work"):
                seen.append(message.n)
        current = trace.get_current_span().get_span_context().span_id
    assert seen == [0, 1]
    found = captured.spans()
    sent = [span for span in found if span.name == "send jobs"]
    processed = [span for span in found if span.name == "process jobs"]
    root = spans(captured)["run consumer"].context
    assert current == root.span_id
    assert [span.kind for span in processed] == [SpanKind.CONSUMER] * 2
    assert [span.parent.span_id for span in processed] == [root.span_id] * 2
    assert [[link.context.span_id for link in span.links] for span in processed] == [
        [span.context.span_id] for span in sent
    ]
    works = [span for span in found if span.name == "work"]
    assert [w.parent.span_id for w in works] == [p.context.span_id for p in processed]
    (queue,) = run.report.queues
    assert (queue["name"], queue["got"]) == ("jobs", 2)
    assert 0 <= queue["wait_s"]["max"] < 60


def test_without_a_span_around_the_sender_is_the_parent(captured: Captured) -> None:
    captured.configure()
    message = SimpleNamespace(headers=lambda: list(opm.inject({}, queue="jobs").items()))
    for _ in opm.consume([message], queue="jobs"):
        pass
    found = spans(captured)
    assert found["process jobs"].parent.span_id == found["send jobs"].context.span_id


def test_a_batch_has_a_link_for_each_message(captured: Captured) -> None:
    captured.configure()
    batch = [SimpleNamespace(headers=opm.inject(queue="jobs")) for _ in range(3)]
    with opm.run("consumer", resources=False) as run:
        for messages in opm.consume([batch], queue="jobs"):
            assert messages is batch
    span = spans(captured)["process jobs"]
    assert len(span.links) == 3
    assert span.attributes["messaging.batch.message_count"] == 3
    assert run.report.queues[0]["got"] == 3


def test_leaving_the_loop_ends_the_span(captured: Captured) -> None:
    captured.configure()
    for _ in opm.consume([1, 2], queue="jobs"):
        assert trace.get_current_span().get_span_context().is_valid
        break
    assert not trace.get_current_span().get_span_context().is_valid

    def fail() -> None:
        for _ in opm.consume([1, 2], queue="jobs"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert captured.span_names() == ["process jobs"] * 2


@pytest.mark.parametrize("order", ["ABAB", "ABBA", "AABB", "ABA"])
def test_loops_that_take_turns_leave_no_span_current(captured: Captured, order: str) -> None:
    captured.configure()
    loops = {name: opm.consume([1, 2], queue=name) for name in "AB"}
    with opm.stage("around"):
        around = trace.get_current_span()
        for name in order:
            next(loops[name])
            assert trace.get_current_span().name == f"process {name}"  # type: ignore[attr-defined]
        for name in order[::-1]:
            assert next(loops[name], None) in (None, 2)
            loops[name].close()  # type: ignore[attr-defined]  # for `contextlib.closing`
        assert trace.get_current_span() is around
    assert captured.span_names().count("around") == 1


def test_closing_ends_the_message_and_the_generator(captured: Captured) -> None:
    captured.configure()
    closed = []

    def client() -> Iterator[int]:
        try:
            yield from (1, 2)
        finally:
            closed.append("plain")

    async def async_client() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("async")

    async def main() -> None:
        messages = opm.consume(async_client(), queue="async")
        async with contextlib.aclosing(messages):  # type: ignore[type-var]
            await messages.__anext__()
        assert not trace.get_current_span().get_span_context().is_valid

    messages = opm.consume(client(), queue="plain")
    with contextlib.closing(messages):  # type: ignore[type-var]
        next(messages)
    assert not trace.get_current_span().get_span_context().is_valid
    asyncio.run(main())
    assert closed == ["plain", "async"]
    assert captured.span_names() == ["process plain", "process async"]


def test_an_async_loop(captured: Captured) -> None:
    captured.configure()

    async def client() -> AsyncIterator[Any]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield SimpleNamespace(headers=opm.inject([], queue="jobs"))

    async def main() -> None:
        async for _ in opm.consume(client(), queue="jobs"):
            with opm.stage("work"):
                await asyncio.sleep(0)
            if len(captured.spans()) > 4:
                break
        assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())
    names = captured.span_names()
    assert names.count("process jobs") == names.count("work") == 2


@pytest.mark.parametrize(
    ("value", "stamp", "expected"),
    [
        ("1699999990000000000;here", None, 10.0),
        ("1700000010000000000;here", None, None),  # negative
        ("1690000000000000000;here", None, None),  # over 30 days
        ("1699999990000000000;there", None, None),
        ("1699999990000000000;there", 1_699_999_995_000, 5.0),
        ("1699999990000000000;there", lambda: (1, 1_699_999_995_000), 5.0),
        ("1699999990000000000;there", lambda: (0, 1_699_999_995_000), None),
        ("1699999990000000000", None, None),
        ("9" * 5000, None, None),
        ("x;here", None, None),
        ("", None, None),
    ],
)
def test_a_wait_is_known_or_null(
    monkeypatch: pytest.MonkeyPatch, value: str, stamp: Any, expected: float | None
) -> None:
    for module in (_headers, _consume):
        monkeypatch.setattr(module, "boot_id", lambda: "here")
    monkeypatch.setattr(_consume.clock, "unix", lambda: 1_700_000_000.0)
    message = SimpleNamespace(headers={"opm-put-time": value}, timestamp=stamp)
    assert _consume._waited(message, _headers.read(message.headers)) == expected


class Kafka:
    """A message of aiokafka or confluent-kafka, with what a stranger put into its headers."""

    def __init__(self, headers: Any) -> None:
        self.headers = headers


anything = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
fields = st.sampled_from(["traceparent", "tracestate", "baggage", "opm-put-time", b"baggage"])


@given(st.lists(st.tuples(fields, anything), max_size=5) | anything)
def test_strange_headers_break_nothing(headers: Any) -> None:
    opm.extract(headers)
    assert list(opm.consume([Kafka(headers)], queue="jobs"))


def test_a_function_that_fails_costs_the_link_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert list(opm.consume([1, 2], queue="jobs", headers=lambda _: 1 / 0)) == [1, 2]
    assert caplog.text.count("ZeroDivisionError") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: opm.inject("x", queue="jobs"), "headers"),
        (lambda: opm.inject(queue=""), "queue"),
        (lambda: opm.inject(queue=5), "queue"),
        (lambda: opm.consume(5, queue="jobs"), "iterable"),
        (lambda: opm.consume([], queue=""), "queue"),
        (lambda: opm.consume([], queue="jobs", headers=5), "headers"),
    ],
)
def test_wrong_arguments(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_message_configures_nothing() -> None:
    from otel_pipeline_metrics._lifecycle import configure

    message = SimpleNamespace(headers=opm.inject(queue="jobs"))
    list(opm.consume([message], queue="jobs"))
    assert not configure.is_configured()


WORKER = """
import json, sys
import redis
import otel_pipeline_metrics as opm
client = redis.Redis(port=int(sys.argv[1]))

def entries():
    while True:
        found = client.xreadgroup("group", sys.argv[2], {"jobs": ">"}, count=10, block=1000)
        if not found:
            return
        for identity, fields in found[0][1]:
            yield identity, fields
            client.xack("jobs", "group", identity)

with opm.run("consumer", resources=False) as run:
    for identity, fields in opm.consume(entries(), queue="jobs", headers=lambda m: m[1]):
        with opm.stage("work") as call:
            call.add_items(1)
print(json.dumps(run.report.to_dict()))
"""


@needs_redis
@pytest.mark.slow
def test_a_thousand_entries_of_a_real_redis_stream() -> None:
    redis = pytest.importorskip("redis")
    with redis_server() as port, redis.Redis(port=port) as client:
        client.xgroup_create("jobs", "group", mkstream=True)
        with opm.run("producer", resources=False) as run:
            for n in range(1000):
                client.xadd("jobs", opm.inject({"n": str(n)}, queue="jobs"))
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(port), f"worker {n}"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(2)
        ]
        reports = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert run.report.queues[0]["put"] == 1000
    queues = [report["queues"][0] for report in reports if report["queues"]]
    assert sum(queue["got"] for queue in queues) == 1000
    assert all(queue["wait_s"]["max"] > 0 for queue in queues if queue["got"])
    rows = [stage for report in reports for stage in report["stages"]]
    assert sum(stage["items"]["out"] for stage in rows) == 1000
