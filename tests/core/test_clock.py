"""Test that no library for tests, such as `freezegun`, changes the clock of durations."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._stages import execution

if TYPE_CHECKING:
    from tests.conftest import Clock, Results

FROZEN = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns")


def test_no_module_has_a_function_that_freezegun_replaces() -> None:
    """It looks for the functions by identity in every loaded module, as it begins."""
    ids = {id(getattr(time, name)) for name in FROZEN}
    found = [
        f"{name}.{attribute}"
        for name, module in list(sys.modules.items())
        if name.startswith("otel_pipeline_metrics")
        for attribute, value in list(vars(module).items())
        if id(value) in ids
    ]
    assert found == []


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_module_time_moves_no_deadline(
    name: str, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    """Durations are measured, and a flush that may wait ends, though `time` goes back."""
    backwards = iter(range(0, -(10**6), -1))
    monkeypatch.setattr(time, name, lambda: next(backwards))
    with opm.stage("frozen"):
        pass
    (duration,) = results.durations("frozen")
    assert 0.0 <= duration < 60.0
    assert clock.monotonic() > 0.0


def test_the_rest_of_a_call_is_never_negative(clock: Clock, results: Results) -> None:
    """0.3 - 0.1 - 0.2 is less than 0 in floating point."""
    with opm.stage("waits") as s:
        assert isinstance(s, execution.Execution)
        clock.time = 0.0
        s.cell[2] = 0.0
        s.idle, s.blocked, s.bare = 0.1, 0.2, False
        clock.time = 0.3 - 1e-16
    assert results.durations("waits") == [0.0]
