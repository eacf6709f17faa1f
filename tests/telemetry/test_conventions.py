"""Test what OpenTelemetry's own conventions ask of an instrumentation."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import stage_id
from tests.lifecycle.configure.support import Captured, clean_slate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = f"{__name__}."


@pytest.fixture
def captured() -> Iterator[Captured]:
    with clean_slate():
        providers = Captured()
        yield providers
        providers.close()


def attributes_of(captured: Captured) -> list[dict[str, Any]]:
    return [dict(span.attributes or {}) for span in captured.spans()]


# --- suppress_instrumentation ---------------------------------------------------------------------


@opm.process
def work(fails: bool = False) -> None:
    if fails:
        raise ValueError


@opm.process
async def work_async() -> None: ...


@opm.fetch
def items() -> Iterator[int]:
    yield 1


def block() -> None:
    with opm.stage("block"):
        pass


def fail() -> None:
    with contextlib.suppress(ValueError):
        work(fails=True)


def a_run() -> None:
    with opm.run("r", resources=False):
        pass


@pytest.mark.parametrize("call", [work, block, fail, a_run, lambda: list(items())])
def test_suppressed_means_no_span_and_still_numbers(
    call: Callable[[], None], captured: Captured
) -> None:
    captured.configure(console=False)
    with suppress_instrumentation():
        call()
    assert captured.spans() == []
    call()
    assert len(captured.spans()) == 1
    name = "pipeline.run.duration" if call is a_run else "pipeline.stage.duration"
    assert sum(point.count for point in captured.points()[name]) == 2


async def test_suppressed_coroutines_make_no_span(captured: Captured) -> None:
    captured.configure(console=False)
    with suppress_instrumentation():
        await work_async()
    await work_async()
    assert captured.span_names() == ["work_async"]


def test_a_failure_past_the_budget_gets_no_late_span_if_suppressed(captured: Captured) -> None:
    captured.configure(console=False, spans_per_second=1)
    for _ in range(1500):
        work()
    captured.exporter.clear()
    with suppress_instrumentation():
        fail()
    assert captured.spans() == []
    fail()
    assert captured.span_names() == ["work"]


# --- the scope ------------------------------------------------------------------------------------


def test_tracer_and_meter_have_the_schema_url(captured: Captured) -> None:
    captured.configure(console=False)
    work()
    (span,) = captured.spans()
    assert span.instrumentation_scope is not None
    url = "https://opentelemetry.io/schemas/1.37.0"
    assert span.instrumentation_scope.schema_url == url
    data = captured.reader.get_metrics_data()
    assert data is not None
    scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics]
    assert {one.scope.schema_url for one in scopes if one.scope.name == opm.__name__} == {url}


# --- code.* ---------------------------------------------------------------------------------------


class Loader:
    @opm.fetch
    def load(self) -> None: ...

    @opm.fetch
    @classmethod
    def of_class(cls) -> None: ...

    def __call__(self) -> None: ...


def decorator(function: Callable[[], None]) -> Callable[[], None]:
    @functools.wraps(function)
    def wrapper() -> None:
        function()

    return wrapper


@opm.write
@decorator
def decorated() -> None: ...


def plain() -> None: ...


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (work, "work"),
        (lambda: Loader().load(), "Loader.load"),
        (Loader.of_class, "Loader.of_class"),
        (decorated, "decorated"),
        (opm.stage(functools.partial(plain)), "plain"),
        (opm.stage("callable")(Loader()), "Loader.__call__"),
        (lambda: list(items()), "items"),
    ],
)
def test_a_span_names_the_function(call: Callable[[], None], name: str, captured: Captured) -> None:
    captured.configure(console=False)
    call()
    (attributes,) = attributes_of(captured)
    assert attributes["code.function.name"] == HERE + name
    assert "code.file.path" not in attributes
    assert "code.line.number" not in attributes


def test_the_location_where_it_is_asked_for(captured: Captured) -> None:
    captured.configure(console=False)
    work()
    captured.configure(console=False, code_location=True)
    work()
    captured.configure(console=False, code_location=False)
    work()
    first, second, third = attributes_of(captured)
    assert first == third
    assert second.items() - first.items() == {
        ("code.file.path", __file__),
        ("code.line.number", inspect.unwrap(work).__code__.co_firstlineno),
    }


def test_the_variable_asks_for_it_too(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_CODE_LOCATION", "true")
    captured.configure(console=False)
    work()
    assert attributes_of(captured)[0]["code.file.path"] == __file__


def test_functions_of_one_stage_each_have_their_name(captured: Captured) -> None:
    captured.configure(console=False)
    first, second = opm.stage("one")(plain), opm.stage("one")(Loader())
    with opm.run("r", resources=False) as run:
        first()
        second()
    names = [each.get("code.function.name") for each in attributes_of(captured)[:2]]
    assert names == [f"{HERE}plain", f"{HERE}Loader.__call__"]
    (stage,) = run.report.stages
    assert (stage["name"], stage["count"]) == ("one", 2)
    assert captured.values("pipeline.stage.duration", "pipeline.stage.name") == {"one": 2}


def test_a_block_has_no_function(captured: Captured) -> None:
    captured.configure(console=False)
    block()
    assert "code.function.name" not in attributes_of(captured)[0]


def test_the_programs_own_attribute_wins(captured: Captured) -> None:
    captured.configure(console=False)
    opm.stage("s", attributes={"code.function.name": "mine"})(plain)()
    assert attributes_of(captured)[0]["code.function.name"] == "mine"


def test_the_function_stays_in_another_process() -> None:
    stage = stage_id.stage_id("s", "fetch", code=stage_id.code_of(plain))
    assert pickle.loads(pickle.dumps(stage)) is stage  # noqa: S301 - its own
    assert stage.of("coroutine").code == stage.code == stage_id.code_of(plain)


def test_functions_made_from_data_keep_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_id, "_forms", {})
    monkeypatch.setattr(stage_id, "_MAX_VARIANTS", 5)
    stage = stage_id.stage_id("bounded", None)
    found = [stage.at(stage_id.Code(f"f{n}", None, None)) for n in range(9)]
    assert len(set(found)) == 6
    assert found[-1] is stage


def test_a_name_that_is_no_text_costs_no_export() -> None:
    def odd() -> None: ...

    odd.__qualname__ = "odd\udc80"
    assert stage_id.code_of(odd).function == f"{HERE}odd\\udc80"
