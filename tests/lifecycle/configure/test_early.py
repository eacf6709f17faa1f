"""Test that the first provider gets the calls from before `configure()`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._telemetry import backlog

if TYPE_CHECKING:
    from tests.lifecycle.configure.support import Captured

STAGE = "pipeline.stage.name"


@opm.fetch(items=len)
def work(*, fails: bool = False) -> list[int]:
    if fails:
        raise KeyError
    return [1, 2, 3]


def counts(captured: Captured) -> dict[str, float]:
    found = captured.points()
    return {
        "ok": sum(
            p.count
            for p in found.get("pipeline.stage.duration", [])
            if "error.type" not in p.attributes
        ),
        "failed": sum(
            p.count
            for p in found.get("pipeline.stage.duration", [])
            if "error.type" in p.attributes
        ),
        "items": sum(p.value for p in found.get("pipeline.stage.items", [])),
    }


@pytest.mark.parametrize("calls", [1, 1023, 1024, 5000])
@pytest.mark.parametrize("how", ["given", "installed", "installed and configured"])
def test_calls_before_configure_arrive_once(captured: Captured, how: str, calls: int) -> None:
    for _ in range(calls):
        work()
    for _ in range(2):
        with pytest.raises(KeyError):
            work(fails=True)
    if how == "given":
        captured.configure()
    else:
        captured.install()
        if how != "installed":
            opm.configure()
    work()
    expected = {"ok": calls + 1, "failed": 2, "items": 3 * (calls + 1)}
    assert counts(captured) == expected
    assert counts(captured) == expected


def test_waits_at_queues_before_configure_arrive(captured: Captured) -> None:
    async def pass_through() -> None:
        queue = opm.wrap_queue(asyncio.Queue[int](), name="early")
        for n in range(1500):
            queue.put_nowait(n)
            queue.get_nowait()

    asyncio.run(pass_through())
    captured.configure()
    assert captured.values("pipeline.queue.item.duration", "pipeline.queue.name") == {"early": 1500}


def test_calls_beyond_the_bound_cause_a_warning(
    captured: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "otel_pipeline_metrics")
    for _ in range(backlog.BOUND + 3000):
        work()
    captured.configure()
    arrived = counts(captured)["ok"]
    assert arrived <= backlog.BOUND + 1024
    (warning,) = [r.getMessage() for r in caplog.records if "before configure()" in r.getMessage()]
    assert warning.startswith(f"{backlog.BOUND + 3000 - arrived} calls")


def test_calls_after_shutdown_do_not_reach_a_later_provider(
    captured: Captured, other: Captured
) -> None:
    captured.configure()
    opm.shutdown()
    work()
    other.configure()
    assert counts(other) == {"ok": 0, "failed": 0, "items": 0}
