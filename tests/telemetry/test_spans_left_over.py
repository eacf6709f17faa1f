"""Test that no span stays current or open where a call is interrupted or the tracer goes."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import hooks
from otel_pipeline_metrics._core.process.gc_safety import extras
from otel_pipeline_metrics._stages import invocation, suspended
from tests.stages.support import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stages.conftest import Otel

SHUTDOWN = """
import asyncio, json
import otel_pipeline_metrics as opm
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
opm.configure(tracer_provider=provider, console=False)

@opm.stage
def inner():
    {end}
@opm.stage("main")
def call():
    inner()
@opm.stage("main")
async def coroutine():
    inner()
async def both():
    await coroutine()
    return trace.get_current_span().is_recording()
{call}
names = sorted(span.name for span in exporter.get_finished_spans())
print(json.dumps([names, trace.get_current_span().is_recording() or after]))
"""

CALLS = {
    "call": "call(); after = False",
    "coroutine": "after = asyncio.run(both())",
}
ENDS = ["opm.shutdown()", "opm.configure(exporter='none', console=False)"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", CALLS)
def test_a_stage_that_ends_the_telemetry_ends_its_span(kind: str, end: str, tmp_path: Path) -> None:
    text = SHUTDOWN.replace("{end}", end).replace("{call}", CALLS[kind])
    done = run_script(text, tmp_path / "ends.py")
    assert (done.stderr, json.loads(done.stdout)) == ("", [["inner", "main"], False])


def interrupting(function: Any, when: Any) -> Any:
    def interrupted(*given: Any, **more: Any) -> Any:
        returned = function(*given, **more)
        if when(given):
            raise KeyboardInterrupt
        return returned

    return interrupted


def test_a_call_that_is_interrupted_once_its_span_is_open(
    otel: Otel, monkeypatch: pytest.MonkeyPatch
) -> None:
    @opm.stage
    def work() -> None:
        pass

    work()
    before = trace.get_current_span()
    with monkeypatch.context() as patch:
        patch.setattr(invocation, "open_span", interrupting(invocation.open_span, lambda _: True))
        with pytest.raises(KeyboardInterrupt):
            work()
    assert trace.get_current_span() is before


def test_a_generator_that_is_interrupted_once_its_span_is_current(
    otel: Otel, monkeypatch: pytest.MonkeyPatch
) -> None:
    @opm.stage
    def numbers() -> Iterator[int]:
        yield 1

    before = trace.get_current_span()
    resumes = interrupting(suspended.step_span, lambda given: given[1] == "resume")
    with monkeypatch.context() as patch:
        patch.setattr(suspended, "step_span", resumes)
        with contextlib.suppress(KeyboardInterrupt):
            list(numbers())
    assert trace.get_current_span() is before


def test_the_hot_path_never_passes_by_a_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing, coming = hooks.tracing, hooks.tracing_to_come
    put_in_force: Any = object()
    try:
        hooks.set_tracing(None, put_in_force)
        with monkeypatch.context() as patch:
            patch.setattr(hooks, "switch_extra", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                hooks.set_tracing(put_in_force)
        # so the next call looks again
        assert (hooks.tracing, hooks.tracing_to_come) == (None, put_in_force)
        hooks.set_tracing(put_in_force)
        assert "tracing" in extras
        with monkeypatch.context() as patch:
            patch.setattr(hooks, "switch_extra", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                hooks.set_tracing(None)
        assert "tracing" in extras
    finally:
        hooks.set_tracing(tracing, coming)


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
