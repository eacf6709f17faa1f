"""Whatever a log record holds, the program's call returns, and the other records arrive."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export.delivery.http_session import LIMIT
from tests.export.test_answers import endless, serving, whole
from tests.lifecycle.configure.support import clean_slate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.export.conftest import Received


pytest.importorskip("opentelemetry.instrumentation.logging")

BAD = "caf\udce9"
CLEAN = r"caf\udce9"
HUGE = 10**400
MAX_INT = 2**63 - 1


class Evil:
    """A value that raises whatever is done with it, and no `Exception`."""

    def __repr__(self) -> str:
        raise SystemExit

    __str__ = __len__ = __iter__ = __bool__ = __repr__


class EvilDict(dict[str, int]):
    def items(self) -> Any:
        raise GeneratorExit


def ring() -> list[Any]:
    found: list[Any] = []
    found += [found] * 10
    return found


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


def laughs() -> list[Any]:
    """Twelve levels, a million million values."""
    found: list[Any] = ["ha"] * 10
    for _ in range(12):
        found = [found] * 10
    return found


@pytest.fixture(autouse=True)
def slate() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), logging.getLogRecordFactory()
    with clean_slate():
        errors.reset()
        yield
    assert (list(root.handlers), logging.getLogRecordFactory()) == before


def ours(exporter: Any = "otlp") -> logging.Handler:
    """Return the handler that `configure()` has added.

    The tests give it records themselves: pytest-xdist could not carry lines that pytest captures.
    """
    before = set(logging.getLogger().handlers)
    opm.configure(logs=True, exporter=exporter, console=False)
    (handler,) = set(logging.getLogger().handlers) - before
    return handler


def record(**fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "program", "msg": "bad", "levelno": 30, **fields})


def error_of(error: BaseException) -> Any:
    return type(error), error, None


# what is wrong with a record, and what arrives of it: its message and its attributes
RECORDS: dict[str, tuple[dict[str, Any], tuple[str, dict[str, Any]]]] = {
    "message": ({"msg": BAD}, (CLEAN, {})),
    "argument": ({"msg": "%s", "args": (BAD,)}, (CLEAN, {})),
    "arguments that do not fit": ({"msg": "%d", "args": ("x",)}, ("%d", {})),
    "a message that raises": ({"msg": Evil()}, ("", {})),
    "a message that contains itself": ({"msg": [1, [2]]}, ("[1, [2]]", {})),
    "name": ({"name": BAD}, ("bad", {})),
    "level": ({"levelname": BAD}, ("bad", {})),
    "time before 1970": ({"created": -1.0}, ("bad", {})),
    "time that is none": ({"created": math.nan}, ("bad", {})),
    "time without end": ({"created": math.inf}, ("bad", {})),
    "key": ({BAD: BAD}, ("bad", {CLEAN: CLEAN})),
    "a number beyond 64 bits": ({"n": HUGE}, ("bad", {"n": MAX_INT})),
    "bytes": ({"n": b"\xff"}, ("bad", {"n": b"\xff"})),
    "nested": (
        {"n": {"a": [HUGE, {BAD: BAD}], "b": {"c": -HUGE}}},
        ("bad", {"n": {"a": [MAX_INT, {CLEAN: CLEAN}], "b": {"c": -MAX_INT}}}),
    ),
    "a value that raises": ({"n": Evil(), "m": 1}, ("bad", {"m": 1})),
    "a mapping that raises": ({"n": EvilDict(a=1), "m": 1}, ("bad", {"m": 1})),
    "the name of an event": ({"otel.event.name": BAD}, ("bad", {})),
    "the name of an event that is none": ({"event.name": HUGE}, ("bad", {})),
    "an exception's text": (
        {"exc_info": error_of(ValueError(BAD))},
        ("bad", {"exception.type": "ValueError", "exception.message": CLEAN}),
    ),
    "an exception that raises": (
        {"exc_info": error_of(ValueError(Evil()))},
        ("bad", {"exception.type": "ValueError"}),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_bad_record_costs_its_own_field(name: str, collector: Received) -> None:
    fields, (body, attributes) = RECORDS[name]
    handler = ours()
    for each in (record(msg="before"), record(**fields), record(msg="after")):
        handler.handle(each)
    opm.shutdown()
    found = {found["body"]: found for found in collector.records}
    # a record of another logger comes apart
    assert sorted(found) == sorted(["before", body, "after"])
    # OpenTelemetry before 1.35 has no nested attributes, and no names of events
    if name in {"nested", "bytes"}:
        assert found[body]["attributes"] in ({}, attributes)
    elif "event" not in name:
        assert found[body]["attributes"] == attributes


@pytest.mark.parametrize("value", [ring(), laughs(), nested(500)], ids=["ring", "laughs", "deep"])
def test_a_value_without_end_is_cut_off(value: Any, collector: Received) -> None:
    handler = ours()
    handler.handle(record(n=value, m=1))
    handler.handle(record(msg="after"))
    opm.shutdown()
    first, second = collector.records
    assert (first["body"], second["body"]) == ("bad", "after")
    assert first["attributes"]["m"] == 1


def test_what_the_cleaning_logs_is_no_record(collector: Received) -> None:
    handler = ours()
    logging.getLogger("program").warning("n", extra={"n": HUGE})
    assert handler in logging.getLogger().handlers
    opm.shutdown()
    assert [found["body"] for found in collector.records] == ["n"]


def test_ctrl_c_reaches_the_program(http_collector: Received) -> None:
    class Interrupted:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    handler = ours()
    with pytest.raises(KeyboardInterrupt):
        handler.handle(record(msg=Interrupted()))
    handler.handle(record(msg="after"))
    opm.shutdown()
    assert http_collector.records == []


def test_lines_are_printed_where_they_were() -> None:
    """Without handlers of the program, `logging` prints warnings itself."""
    stream, root, log = io.StringIO(), logging.getLogger(), logging.getLogger("program")
    own = logging.StreamHandler(io.StringIO())
    before = list(root.handlers)
    root.handlers[:] = []
    try:
        ours()
        with contextlib.redirect_stderr(stream):
            log.warning("printed")
            log.info("not printed")
            logging.getLogger("opentelemetry.x").warning("printed too")
            log.addHandler(own)
            log.warning("printed by a handler")
        opm.shutdown()
    finally:
        log.removeHandler(own)
        root.handlers[:] = before
    assert stream.getvalue().splitlines() == ["printed", "printed too"]


def test_the_answer_to_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = itertools.count()

    def counted() -> Iterator[bytes]:
        for part in endless()():
            next(sent)
            yield part

    with serving(counted, whole(b"")) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{server.endpoint}/v1/logs")
        monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
        for signal in ("TRACES", "METRICS"):
            monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        handler = ours(exporter=None)
        handler.handle(record(msg="first"))
        opm.flush()
        handler.handle(record(msg="second"))
        opm.shutdown()
        assert server.requests == 2
    # what the buffers of the system take, and no more
    assert next(sent) * LIMIT < 64 * 1024 * 1024
