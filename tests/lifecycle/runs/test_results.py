"""Test the results of runs, and that a run does not change a program's end."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import StatusCode

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured


class OwnError(Exception):
    """An exception whose name has a module."""


ENDINGS: dict[str, tuple[BaseException | None, str, str | None]] = {
    "nothing": (None, "success", None),
    "sys.exit(0)": (SystemExit(0), "success", None),
    "sys.exit()": (SystemExit(), "success", None),
    "sys.exit(1)": (SystemExit(1), "failure", "SystemExit"),
    "sys.exit(text)": (SystemExit("no"), "failure", "SystemExit"),
    "error": (ValueError("x"), "failure", "ValueError"),
    "own error": (OwnError(), "failure", "tests.lifecycle.runs.test_results.OwnError"),
    "timeout": (TimeoutError(), "timeout", "TimeoutError"),
    "cancelled": (asyncio.CancelledError(), "cancellation", "asyncio.exceptions.CancelledError"),
    "Ctrl-C": (KeyboardInterrupt(), "cancellation", "KeyboardInterrupt"),
}


def sync_run(run: opm.Run, error: BaseException | None) -> None:
    with run:
        if error is not None:
            raise error


def async_run(run: opm.Run, error: BaseException | None) -> None:
    async def program() -> None:
        async with run:
            if error is not None:
                raise error

    # Without a loop, which would handle KeyboardInterrupt and cancellation itself.
    coroutine = program()
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a run awaits nothing")


@pytest.mark.parametrize("way", [sync_run, async_run])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_result_and_the_exception(
    captured: Captured,
    clock: Clock,
    way: Callable[[opm.Run, BaseException | None], None],
    ending: str,
) -> None:
    error, result, error_type = ENDINGS[ending]
    captured.configure(console=False)
    run = opm.run("nightly", resources=False, attributes={"tenant": "a"})
    raised: BaseException | None = None
    try:
        way(run, error)
    except BaseException as caught:  # the same object
        raised = caught
    assert raised is error
    if raised is not None:
        assert raised.__context__ is None
        assert raised.__cause__ is None

    said = run.report.run
    assert (said["result"], said["error_type"]) == (result, error_type)
    assert said["partial"] is (result != "success")

    (span,) = captured.spans()
    attributes = dict(span.attributes or {})
    assert span.name == "run nightly"
    assert attributes.pop("pipeline.run.id") == run.id == said["id"]
    failed = {"error.type": error_type} if result == "failure" else {}
    assert attributes == {
        "pipeline.name": "nightly",
        "pipeline.run.result": result,
        "tenant": "a",
        **failed,
    }
    assert (span.status.status_code is StatusCode.ERROR) is (result == "failure")
    assert list(span.events) == []
    assert said["trace_id"] == f"{span.context.trace_id:032x}"

    (point,) = captured.points()["pipeline.run.duration"]
    assert dict(point.attributes) == {
        "pipeline.name": "nightly",
        "pipeline.run.result": result,
        **failed,
    }
    assert captured.values("pipeline.run.active", "pipeline.name") == {"nightly": 0}
    assert captured.values("pipeline.run.last_success.time", "pipeline.name") == (
        {"nightly": clock.unix()} if result == "success" else {}
    )


def test_a_run_in_progress_is_active(captured: Captured) -> None:
    captured.configure(console=False)
    with opm.run("a", resources=False), opm.run("b", resources=False), opm.run("b"):
        assert captured.values("pipeline.run.active", "pipeline.name") == {"a": 1, "b": 2}
    assert captured.values("pipeline.run.active", "pipeline.name") == {"a": 0, "b": 0}


async def test_a_timeout_inside_a_run() -> None:
    run = opm.run("nightly", resources=False)
    with pytest.raises(asyncio.TimeoutError):
        async with run:
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
    assert run.report.run["result"] == "timeout"


async def test_a_run_that_is_cancelled_from_outside() -> None:
    run = opm.run("nightly", resources=False)

    @opm.fetch
    async def endless() -> None:
        await asyncio.sleep(60)

    async def program() -> None:
        async with run:
            await endless()

    task = asyncio.create_task(program())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.report.run["result"] == "cancellation"
    (stage,) = run.report.stages
    assert (stage["name"], stage["count"], stage["cancelled"]) == ("endless", 1, 1)


def test_exit_codes_stay_in_a_real_interpreter(tmp_path: Any) -> None:
    """`sys.exit` and an uncaught error end the program as before, with a report."""
    from tests.lifecycle.configure.support import run_python

    for ending, code, result in (
        ("sys.exit(0)", 0, "success"),
        ("sys.exit(7)", 7, "failure"),
        ("raise ValueError", 1, "failure"),
        ("raise KeyboardInterrupt", -2, "cancellation"),
    ):
        path = tmp_path / "report.json"
        done = run_python(
            "import sys, otel_pipeline_metrics as opm\n"
            f"with opm.run('r', report=sys.argv[1], resources=False):\n    {ending}\n",
            path,
        )
        assert done.returncode in {code, 130 if code == -2 else code}
        assert opm.RunReport.load(path).run["result"] == result


def test_a_run_can_be_entered_once() -> None:
    run = opm.run("once", resources=False)
    with run:
        with pytest.raises(RuntimeError, match="run 'once' was entered before"), run:
            pass  # pragma: no cover
        with opm.stage("inside"):
            pass
    with pytest.raises(RuntimeError, match=r"call run\(\) for each run"):
        run.__enter__()
    assert run.report.run["result"] == "success"
    assert [stage["name"] for stage in run.report.stages] == ["inside"]


async def test_an_async_run_can_be_entered_once() -> None:
    run = opm.run("once", resources=False)
    async with run:
        pass
    with pytest.raises(RuntimeError, match="was entered before"):
        async with run:
            pass  # pragma: no cover


def test_each_run_has_an_id_of_its_own() -> None:
    ids = {opm.run("r").id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id_) == 32 and int(id_, 16) >= 0 for id_ in ids)


def test_the_repr_names_the_run_and_its_result() -> None:
    run = opm.run("nightly", resources=False)
    assert repr(run) == "<Run 'nightly' in progress>"
    with run:
        pass
    assert repr(run) == "<Run 'nightly' success>"
    assert repr(run.report) == "<RunReport 'nightly' success 0 stages>"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("",), ValueError, "name must not be empty"),
        ((" ",), ValueError, "name must not be empty"),
        (("x" * 129,), ValueError, "name must be at most 128 characters"),
        ((None,), TypeError, "name must be a string, not NoneType"),
        ((print,), TypeError, "name must be a string"),
    ],
    ids=repr,
)
def test_a_bad_name_is_refused(
    arguments: tuple[Any, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        opm.run(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"report": 7}, "report must be a path or None, not int"),
        ({"report": b"bytes"}, "report must be a path or None, not bytes"),
        ({"resources": "yes"}, "resources must be True, False or a number of seconds, not str"),
        ({"resources": None}, "resources must be True, False or a number of seconds, not NoneType"),
        ({"live": "auto"}, "live must be True or False, not str"),
        ({"attributes": ["a"]}, "attributes must be a mapping, not list"),
        ({"attributes": {"a": {}}}, r"attributes\['a'\] must be a str, bool, int"),
        ({"attributes": {1: "a"}}, "attributes: keys must be strings"),
    ],
    ids=repr,
)
def test_an_error_names_the_bad_argument(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        opm.run("r", **arguments)


@pytest.mark.parametrize(
    ("given", "expected"), [(True, 1.0), (5.0, 5.0), (2, 2.0), (0.25, 0.25), (False, None)]
)
def test_resources_may_be_the_seconds_between_two_samples(
    given: float, expected: float | None
) -> None:
    monitor = opm.run("r", resources=given)._collector.monitor
    assert (None if monitor is None else monitor._interval) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [(0, "must be above 0"), (-1.0, "must not be negative"), (float("inf"), "must be finite")],
)
def test_an_interval_that_is_none_is_refused(given: float, says: str) -> None:
    with pytest.raises(ValueError, match=f"^resources {says}"):
        opm.run("r", resources=given)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        opm.run("r", "report.json")  # type: ignore[misc]


def test_an_error_of_a_tracer_does_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A tracer that raises costs the span, and neither the run nor its report."""
    from opentelemetry import trace

    from otel_pipeline_metrics._core import errors

    class Broken(trace.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
            class Tracer(trace.NoOpTracer):
                def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
                    raise RuntimeError("broken tracer")

            return Tracer()

    monkeypatch.setattr(errors, "raise_faults", False)
    opm.configure(tracer_provider=Broken(), exporter="none", console=False)
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    assert run.report.run["result"] == "success"
    assert "your pipeline is not affected" in caplog.text
    assert sys.exc_info() == (None, None, None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups")
@pytest.mark.parametrize(
    ("errors", "result", "error_type"),
    [
        ([ConnectionResetError(), ConnectionResetError()], "failure", "ConnectionResetError"),
        ([ConnectionResetError(), ValueError()], "failure", "ExceptionGroup"),
        ([ConnectionResetError(), [ConnectionResetError()]], "failure", "ConnectionResetError"),
        ([TimeoutError()], "timeout", "TimeoutError"),
        ([ValueError(), [TimeoutError()]], "timeout", "ExceptionGroup"),
        ([KeyboardInterrupt(), TimeoutError()], "cancellation", "BaseExceptionGroup"),
        ([asyncio.CancelledError()], "cancellation", "asyncio.exceptions.CancelledError"),
    ],
)
def test_a_group_is_what_is_in_it(errors: list[Any], result: str, error_type: str) -> None:
    def grouped(some: list[Any]) -> BaseException:
        inner = [grouped(one) if isinstance(one, list) else one for one in some]
        return BaseExceptionGroup("some", inner)  # type: ignore[name-defined, no-any-return] # noqa: F821

    raised = grouped(errors)
    run = opm.run("r", resources=False)
    with pytest.raises(type(raised)), run:
        opm.process(name="s")(_raise)(raised)
    said = run.report.run
    assert (said["result"], said["error_type"]) == (result, error_type)
    by_type = run.report.stages[0]["errors"]["by_type"]
    assert by_type == ({} if result == "cancellation" else {error_type: 1})


def _raise(error: BaseException) -> None:
    raise error


def test_a_second_end_and_one_without_a_begin_do_nothing(captured: Captured) -> None:
    """A shutdown hook and an exit handler may both end a run."""
    captured.configure(console=False)
    run = opm.run("service", resources=False)
    run.__enter__()
    with opm.stage("s"):
        pass
    run.__exit__(None, None, None)
    report = run.report
    run.__exit__(ValueError, ValueError(), None)
    assert run.report == report
    opm.run("never").__exit__(None, None, None)
    assert [span.name for span in captured.spans()] == ["s", "run service"]
    with opm.run("next", resources=False) as following, opm.stage("t"):
        pass
    assert [stage["name"] for stage in following.report.stages] == ["t"]
