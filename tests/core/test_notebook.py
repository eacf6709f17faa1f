"""What other threads say in a notebook waits for the thread of the cells."""

from __future__ import annotations

import io
import logging
import sys
import threading
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import errors, notebook, output

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Stream(io.StringIO):
    """Stands for a kernel's stream: its class is of the same module."""

    __module__ = "ipykernel.iostream"


def kernel(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Make stderr that of a kernel; within a test, since pytest replaces it before each."""
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    notebook.taken()
    return stream


def elsewhere(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_lines_of_other_threads_stand_before_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = kernel(monkeypatch)
    elsewhere(lambda: output.write_line(None, "first"))
    elsewhere(lambda: output.write_line(None, "second"))
    assert stderr.getvalue() == ""
    output.write_line(None, "third")
    assert stderr.getvalue() == "first\nsecond\nthird\n"


def test_what_waits_is_written_on_request_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = kernel(monkeypatch)
    elsewhere(lambda: output.write_line(None, "first"))
    elsewhere(output.write_held)
    assert stderr.getvalue() == ""
    output.write_held()
    output.write_held()
    assert stderr.getvalue() == "first\n"


def test_what_waits_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = kernel(monkeypatch)

    def write() -> None:
        for number in range(1500):
            output.write_line(None, str(number))

    elsewhere(write)
    output.write_held()
    lines = stderr.getvalue().splitlines()
    assert lines == [*map(str, range(notebook.MOST)), "… and 1,300 more"]


def test_a_stream_that_is_no_kernels_gets_its_lines_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = kernel(monkeypatch)
    stream = io.StringIO()
    elsewhere(lambda: output.write_line(stream, "line"))
    assert (stream.getvalue(), stderr.getvalue()) == ("line\n", "")


def test_warnings_wait_where_the_program_has_no_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = kernel(monkeypatch)
    monkeypatch.setattr(errors.logger.standard, "propagate", False)
    last = logging.StreamHandler(stderr)
    last.setLevel(logging.WARNING)
    monkeypatch.setattr(logging, "lastResort", last)

    def warn() -> None:
        errors.logger.info("not shown")
        errors.logger.warning("about %s", "a\x1b[31m")
        try:
            {}["why"]
        except LookupError:
            errors.logger.warning("failed", exc_info=sys.exc_info())

    elsewhere(warn)
    assert stderr.getvalue() == ""
    output.write_held()
    text = stderr.getvalue()
    assert text.startswith("about a\ufffd[31m\nfailed\nTraceback")
    assert text.endswith("KeyError: 'why'\n")


def test_a_handler_of_the_program_gets_its_records_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stderr = kernel(monkeypatch)
    elsewhere(lambda: errors.logger.warning("at once"))
    assert caplog.messages == ["at once"]
    output.write_held()
    assert stderr.getvalue() == ""
