"""What code of the program raises inside our work: its own is kept away, the rest passes."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.caches import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OwnBase(BaseException):
    """A program's own."""


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def throw(error: BaseException) -> Callable[[], object]:
    def callback() -> object:
        raise error

    return callback


def cancelled_result() -> object:
    loop = asyncio.new_event_loop()
    future: asyncio.Future[None] = loop.create_future()
    future.cancel()
    loop.close()
    return future.result()


def exhausted() -> object:
    return next(iter(()))


OWN: list[Callable[[], object]] = [
    throw(ValueError()),
    throw(SystemExit(3)),
    throw(GeneratorExit()),
    throw(asyncio.CancelledError()),
    throw(OwnBase()),
    sys.exit,
    cancelled_result,
    exhausted,
]


@pytest.mark.parametrize("callback", OWN)
def test_what_a_callback_raises_is_its_own(callback: Callable[[], object]) -> None:
    assert not errors.raised_into(raised(callback))


def test_ctrl_c_is_not() -> None:
    assert errors.raised_into(raised(throw(KeyboardInterrupt())))


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), OwnBase()])
def test_what_a_signal_handler_raises_is_not(error: BaseException) -> None:
    def handler(*_: object) -> None:
        raise error

    def callback() -> object:
        os.kill(os.getpid(), signal.SIGUSR1)
        return [None for _ in range(1000)]

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert errors.raised_into(raised(callback))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_another_thread_sets_is_not() -> None:
    """As time limits of task queues do."""
    found: list[BaseException] = []
    ready = threading.Event()

    def loop() -> object:
        ready.set()
        while True:
            [None for _ in range(10)]

    thread = threading.Thread(target=lambda: found.append(raised(loop)))
    thread.start()
    ready.wait()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(OwnBase)
    )
    thread.join()
    assert errors.raised_into(found[0])


def test_what_gevent_throws_into_a_waiting_callback_is_not() -> None:
    import gevent

    def late() -> object:
        with gevent.Timeout(0.001):
            gevent.sleep(60)
        return None

    assert errors.raised_into(raised(late))
    for error in (OwnBase(), ValueError(), gevent.GreenletExit()):
        found: list[BaseException] = []

        def wait(found: list[BaseException] = found) -> None:
            found.append(raised(lambda: gevent.sleep(60)))

        waiting = gevent.spawn(wait)
        gevent.sleep(0)
        waiting.kill(error)
        assert errors.raised_into(found[0])


# --- log handlers ---------------------------------------------------------------------------------


class Raising(logging.Handler):
    def __init__(self, callback: Callable[[], object]) -> None:
        super().__init__()
        self.callback = callback
        self.calls = 0

    def emit(self, _: logging.LogRecord) -> None:
        self.calls += 1
        self.callback()


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[logging.Handler], None]]:
    monkeypatch.setattr(errors, "raise_faults", False)
    attached: list[logging.Handler] = []

    def add(handler: logging.Handler) -> None:
        attached.append(handler)
        logging.getLogger().addHandler(handler)

    yield add
    for handler in attached:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("callback", OWN)
@pytest.mark.parametrize("part", ["handler", "filter", "factory"])
def test_what_logging_raises_changes_nothing(
    attach: Callable[[logging.Handler], None],
    monkeypatch: pytest.MonkeyPatch,
    callback: Callable[[], object],
    part: str,
) -> None:
    handler = Raising(callback if part == "handler" else lambda: None)
    if part == "filter":
        monkeypatch.setattr(handler, "filter", lambda _: callback())
    if part == "factory":
        monkeypatch.setattr(logging, "_logRecordFactory", lambda *_, **__: callback())
    attach(handler)

    @opm.process(items=lambda _: 1 // 0)
    def work() -> int:
        return 1

    with opm.run("r", resources=False) as run:
        opm.register_cache("bad", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        assert work() == 1
    assert [stage["count"] for stage in run.report.stages] == [1]
    assert bool(handler.calls) == (part == "handler")
    opm.unregister_cache("bad")


def test_ctrl_c_in_a_handler_reaches_the_program(
    attach: Callable[[logging.Handler], None],
) -> None:
    attach(Raising(throw(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        errors.warn_once("key", "a warning")


def test_a_record_names_the_line_that_logged_it(caplog: pytest.LogCaptureFixture) -> None:
    errors.logger.warning("here")
    (record,) = caplog.records
    assert record.funcName == "test_a_record_names_the_line_that_logged_it"
    assert record.name == "otel_pipeline_metrics"


def test_what_a_message_quotes_cannot_control_the_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    evil = "a\x1b[31m\nb"
    try:
        throw(ValueError(evil))()
    except ValueError as error:
        errors.logger.warning("%s, %r, %s, %d\n%g", evil, evil, error, 3, 0.5, exc_info=True)
    (record,) = caplog.records
    shown = record.getMessage()
    assert shown == "a\ufffd[31m\ufffdb, 'a\\x1b[31m\\nb', a\ufffd[31m\ufffdb, 3\n0.5"
    written = logging.Formatter().format(record)
    assert written.startswith(f"{shown}\nTraceback (most recent call last):\n")
    assert "\x1b" not in written
    assert "ValueError: a\ufffd[31m\nb" in written


# --- callbacks that we call -----------------------------------------------------------------------


@pytest.mark.parametrize("callback", OWN)
def test_a_cache_that_raises_changes_nothing(
    callback: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    opm.register_cache("bad", callback)
    opm.register_cache("good", lambda: {"hits": 1, "misses": 2})
    try:
        with opm.run("r", resources=False) as run:
            pass
    finally:
        opm.unregister_cache("bad")
        opm.unregister_cache("good")
    assert run.report.run["result"] == "success"
    assert [cache["name"] for cache in run.report.caches] == ["good"]
    assert len([r for r in caplog.records if "cannot read the counts" in r.getMessage()]) == 1


@pytest.mark.parametrize("callback", OWN)
def test_a_monitor_goes_on_after_its_callback_raised(callback: Callable[[], Any]) -> None:
    calls: list[int] = []

    def on_reading(_: opm.ResourceReading) -> None:
        calls.append(1)
        callback()

    monitor = opm.ResourceMonitor(interval=60, on_reading=on_reading)
    with monitor:
        session = monitor._session
        assert session is not None
        session.ticker.tick()
    assert len(calls) == 3


class Stream:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback

    def write(self, _: str) -> int:
        self.callback()
        return 0


@pytest.mark.parametrize("callback", OWN)
def test_a_stream_that_raises_changes_nothing(
    callback: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    opm.configure(exporter="none", console=Stream(callback))  # type: ignore[arg-type]
    caplog.set_level("INFO", "otel_pipeline_metrics")
    with opm.run("r", resources=False) as run:
        pass
    opm.shutdown()
    assert run.report.run["result"] == "success"
    # the summary is not lost
    assert "run r: success" in caplog.text


def test_ctrl_c_in_a_callback_reaches_the_program() -> None:
    errors_to_raise: list[BaseException] = [KeyboardInterrupt()]

    def source() -> dict[str, int]:
        if errors_to_raise:
            raise errors_to_raise.pop()
        return {"hits": 1, "misses": 0}

    opm.register_cache("once", source)
    try:
        with pytest.raises(KeyboardInterrupt):
            registry.read_all()
        assert [reading.hits for reading in registry.read_all()] == [1]
    finally:
        opm.unregister_cache("once")


class Telemetry(SpanProcessor, Sampler):
    """A sampler and a processor of the program, which raise in one place."""

    def __init__(self, place: str, callback: Callable[[], object]) -> None:
        self.place = place
        self.callback = callback

    def _at(self, place: str) -> None:
        if place == self.place:
            self.callback()

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        self._at("sampler")
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "raising"

    def on_start(self, *_: Any, **__: Any) -> None:
        self._at("start")

    def on_end(self, *_: Any) -> None:
        self._at("end")


@pytest.mark.parametrize("callback", OWN)
@pytest.mark.parametrize("place", ["sampler", "start", "end"])
def test_a_sampler_or_a_processor_that_raises_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, place: str, callback: Callable[[], object]
) -> None:
    monkeypatch.setattr(errors, "raise_faults", False)
    telemetry = Telemetry(place, callback)
    provider = TracerProvider(sampler=telemetry, shutdown_on_exit=False)
    provider.add_span_processor(telemetry)
    opm.configure(tracer_provider=provider, exporter="none", console=False)
    with opm.run("r", resources=False) as run:
        assert opm.process(name="f")(lambda: 1)() == 1
        with opm.stage("s"):
            pass
    opm.shutdown()
    counts = {stage["name"]: stage["count"] for stage in run.report.stages}
    assert counts == {"f": 1, "s": 1}
    assert run.report.run["result"] == "success"
