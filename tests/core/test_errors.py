"""Test what a guard around our own work lets through, and what it keeps from the program."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from types import FrameType


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("loud", [True, False])
def test_what_belongs_to_the_program_passes(
    error: type[BaseException], loud: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "raise_faults", loud)
    with pytest.raises(error), errors.suppress_errors("a test"):
        raise error


def test_an_error_of_ours_passes_in_our_own_tests_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyError), errors.suppress_errors("a test"):
        raise KeyError("k")
    monkeypatch.setattr(errors, "raise_faults", False)
    with caplog.at_level(logging.WARNING), errors.suppress_errors("a test"):
        raise KeyError("k")
    with errors.suppress_errors("a test"):
        raise KeyError("again")
    (record,) = caplog.records
    assert record.getMessage().startswith("internal error in a test, logged once")


class AlarmError(Exception):
    pass


def raising(number: int, frame: FrameType | None) -> None:
    raise AlarmError


def raising_with_any_arguments(*args: object) -> None:
    raise AlarmError


def raising_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    deeper()


def deeper() -> None:
    raise AlarmError


class Handler:
    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise AlarmError


@pytest.mark.parametrize(
    "handler",
    [
        raising,
        raising_with_any_arguments,
        raising_once,
        Handler(),
        functools.partial(raising_with_any_arguments, "more"),
        lambda *args: (signal.signal(signal.SIGUSR1, signal.SIG_IGN), deeper()),
    ],
)
def test_what_a_signal_handler_raises_is_raised_further(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the handler is another one by then."""
    monkeypatch.setattr(errors, "raise_faults", False)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(AlarmError), errors.suppress_errors("a test"):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_error_with_a_frame_among_its_arguments_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the frame around a function tells that it is a handler."""
    monkeypatch.setattr(errors, "raise_faults", False)

    def inspecting(frame: FrameType | None) -> None:
        raise KeyError

    with errors.suppress_errors("a test"):
        inspecting(None)


class LateError(TimeoutError):
    """As an alarm often is: an `OSError` too."""


def raising_late(number: int, frame: FrameType | None) -> None:
    raise LateError


def test_an_ignored_kind_of_error_passes_if_a_signal_handler_raised_it() -> None:
    with errors.ignoring(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="other"), errors.ignoring(OSError):
        raise ValueError("other")
    before = signal.signal(signal.SIGUSR1, raising_late)
    try:
        with pytest.raises(LateError), errors.ignoring(OSError):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
