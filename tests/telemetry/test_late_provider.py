"""Test that spans begin with the first call after the program sets a global provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.stages.support import run_script

if TYPE_CHECKING:
    from pathlib import Path

KINDS = """
import asyncio, contextlib, json, threading
from opentelemetry import trace
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import hooks
from otel_pipeline_metrics._lifecycle.standing_in import standing_in

@opm.stage
def call(): pass
@opm.stage("items", items=len)
def counted(): return [1]
@opm.stage
def outer(): inner()
@opm.stage
def inner(): pass
@opm.stage
async def coroutine(): pass
@opm.stage
def generator(): yield
@opm.stage
async def async_generator(): yield
def block():
    with opm.stage("block"): pass
async def async_block():
    async with opm.stage("async block"): pass
async def consume():
    async for _ in async_generator(): pass
def fails():
    try: failing()
    except KeyError: pass
@opm.stage
def failing(): raise KeyError

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def once(kind):
    if kind == "call": call()
    elif kind == "items": counted()
    elif kind == "outer": outer()
    elif kind == "inner": inner()
    elif kind == "coroutine": asyncio.run(coroutine())
    elif kind == "generator": list(generator())
    elif kind == "async_generator": asyncio.run(consume())
    elif kind == "block": block()
    elif kind == "async block": asyncio.run(async_block())
    elif kind == "failing": fails()
    elif kind == "thread": in_thread(call)
"""

ONE = """
kind, before, in_run, odd, replaced = GIVEN
run = opm.run("all", resources=False)
if in_run: run.__enter__()
with standing_in() if replaced else contextlib.nullcontext():
    for _ in range(before): once(kind)
tracing_before = hooks.tracing

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

class WithoutHash(TracerProvider):
    def __hash__(self): raise LookupError

exporter = InMemorySpanExporter()
provider = WithoutHash() if odd else TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
once(kind)
once(kind)
print(json.dumps([tracing_before is None, [span.name for span in exporter.get_finished_spans()]]))
"""

SPANS = {"outer": ["inner", "outer"], "thread": ["call"]}


def spans_of(
    folder: Path,
    kind: str,
    before: int,
    *,
    in_run: bool = False,
    odd: bool = False,
    replaced: bool = False,
) -> list[str]:
    given = f"GIVEN = {(kind, before, in_run, odd, replaced)!r}"
    done = run_script(KINDS + given + ONE, folder / "late.py")
    assert done.stderr == ""
    without_spans, names = json.loads(done.stdout)
    # the hot path had none to care for
    assert without_spans
    return names


@pytest.mark.parametrize("kind", [
    "call", "items", "outer", "inner", "coroutine", "generator", "async_generator", "block",
    "async block", "failing", "thread",
])  # fmt: skip
@pytest.mark.parametrize("before", [0, 150])
def test_the_next_call_has_a_span(kind: str, before: int, tmp_path: Path) -> None:
    assert spans_of(tmp_path, kind, before) == 2 * SPANS.get(kind, [kind])


@pytest.mark.parametrize(("in_run", "odd"), [(True, False), (False, True)])
def test_in_a_run_and_without_a_hash(in_run: bool, odd: bool, tmp_path: Path) -> None:
    assert spans_of(tmp_path, "outer", 150, in_run=in_run, odd=odd) == 2 * SPANS["outer"]


def test_after_another_provider(tmp_path: Path) -> None:
    assert spans_of(tmp_path, "outer", 150, replaced=True) == 2 * SPANS["outer"]
