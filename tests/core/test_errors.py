"""Test what a guard around our own work lets through, and what it keeps from the program."""

from __future__ import annotations

import asyncio
import logging

import pytest

from otel_pipeline_metrics._core import errors


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
