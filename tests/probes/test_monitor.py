"""Test the sampling thread and its summary."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._probes.resources import monitor as _monitor
from otel_pipeline_metrics._probes.resources import ticker as _ticker
from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor, ResourceSummary

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.resources.reading import ResourceReading
    from tests.conftest import Clock
    from tests.probes.conftest import Machine

HOUR = 3600.0
"""An interval that never passes in a test: only its own samples are taken."""


def sample(monitor: ResourceMonitor) -> None:
    """Take the sample that the thread takes after each interval."""
    assert monitor._session is not None
    monitor._take(monitor._session)


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "otel-pipeline-metrics-resources"]


def test_the_summary_has_averages_over_time(machine: Machine, clock: Clock) -> None:
    """Three quiet seconds and a busy one."""
    machine.user_s = 50.0
    machine.disk = (1000, 2000)
    machine.network = (3000, 4000)
    machine.children_s = 2.0
    with ResourceMonitor(HOUR) as monitor:
        clock.advance(1)
        machine.user_s += 2
        machine.rss = 3000
        sample(monitor)
        clock.advance(3)
        machine.children_s = 6.5
        machine.cpu["user"] += 6
        machine.cpu["idle"] += 2
        machine.disk = (1010, 2020)
        machine.network = (3030, 4040)

    assert (
        ResourceSummary(
            samples=3,
            elapsed_s=4.0,
            cpu_utilization_avg=0.25,
            cpu_utilization_peak=1.0,
            children_cpu_s=4.5,
            system_cpu_utilization_avg=0.75,
            rss_bytes_avg=(2000 * 1 + 3000 * 3) / 4,
            rss_bytes_peak=3000,
            disk_read_bytes=10,
            disk_write_bytes=20,
            network_receive_bytes=30,
            network_transmit_bytes=40,
        )
        == monitor.summary()
    )
    assert [reading.at for reading in monitor.readings] == [1000.0, 1001.0, 1004.0]
    assert monitor.latest == monitor.readings[-1]


def test_the_summary_before_a_start_is_empty() -> None:
    monitor = ResourceMonitor()

    assert ResourceSummary() == monitor.summary()
    assert monitor.latest is None
    assert monitor.readings == []


@pytest.mark.parametrize(
    ("children_s", "idle_s", "expected"),
    [
        # an ended child of which none has taken the time yet
        (1.0, 8.0, (0.0, 0.2)),
        (None, 8.0, (None, 0.2)),
        # the kernel counts ticks of 10 ms, of which there are too few
        (2.0, 0.05, (0.0, None)),
    ],
)
def test_what_cannot_be_known_of_children_and_host_is_unknown(
    machine: Machine,
    clock: Clock,
    children_s: float | None,
    idle_s: float,
    expected: tuple[float | None, float | None],
) -> None:
    machine.children_s = 2.0
    with ResourceMonitor(HOUR) as monitor:
        clock.advance(1)
        machine.children_s = children_s
        machine.cpu["idle"] += idle_s
        machine.cpu["user"] += idle_s / 4

    found = monitor.summary()
    assert (found.children_cpu_s, found.system_cpu_utilization_avg) == expected


def test_the_summary_is_available_while_running(machine: Machine, clock: Clock) -> None:
    with ResourceMonitor(HOUR) as monitor:
        summary = monitor.summary()

        assert (summary.samples, summary.elapsed_s, summary.cpu_utilization_avg) == (1, 0.0, None)
        assert (summary.rss_bytes_avg, summary.rss_bytes_peak) == (1000.0, 1000)
        assert monitor.running
    assert not monitor.running


def test_a_short_period_has_itself_as_peak(machine: Machine, clock: Clock) -> None:
    with ResourceMonitor(HOUR) as monitor:
        clock.advance(0.05)
        machine.user_s += 0.05

    assert pytest.approx(monitor.summary().cpu_utilization_peak) == 0.5


def test_an_unknown_value_is_none(
    machine: Machine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for call in ("getrusage", "memory_info", "io_counters", "net_io_counters"):
        machine.failing[call] = OSError("no")
    machine.children_s = None
    with ResourceMonitor(HOUR) as monitor:
        clock.advance(1)

    assert ResourceSummary(samples=2, elapsed_s=1.0) == monitor.summary()
    assert len(caplog.records) == 4


def test_readings_are_bounded_and_the_summary_is_not(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_monitor, "MAX_READINGS", 3)
    with ResourceMonitor(HOUR) as monitor:
        for rss in (9000, 1, 2, 3):
            clock.advance(1)
            machine.rss = rss
            sample(monitor)

        assert [reading.rss_bytes for reading in monitor.readings] == [1, 2, 3]
        assert (monitor.summary().samples, monitor.summary().rss_bytes_peak) == (5, 9000)


def test_the_thread_samples(machine: Machine) -> None:
    seen: list[ResourceReading] = []
    third = threading.Event()

    def on_reading(reading: ResourceReading) -> None:
        seen.append(reading)
        if len(seen) == 3:
            third.set()

    with ResourceMonitor(0.001, on_reading=on_reading) as monitor:
        assert third.wait(10)
        assert len(threads()) == 1
        assert threads()[0].daemon
    assert not threads()
    assert seen == monitor.readings


async def test_async_with_works(machine: Machine) -> None:
    async with ResourceMonitor(HOUR) as monitor:
        await asyncio.sleep(0)
        assert monitor.running
    assert monitor.summary().samples == 2


def test_a_second_start_warns_and_does_nothing(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with ResourceMonitor(HOUR) as monitor:
        monitor.start()

        assert len(threads()) == 1
        assert monitor.summary().samples == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_stop_without_start_and_twice_does_nothing(machine: Machine) -> None:
    monitor = ResourceMonitor(HOUR)
    monitor.stop()
    monitor.start()
    monitor.stop()
    monitor.stop()

    assert monitor.summary().samples == 2


def test_restart_begins_a_new_period(machine: Machine, clock: Clock) -> None:
    monitor = ResourceMonitor(HOUR)
    with monitor:
        clock.advance(10)
        machine.disk = (500, 0)
    with monitor:
        clock.advance(1)

    assert (
        monitor.summary().samples,
        monitor.summary().elapsed_s,
        monitor.summary().disk_read_bytes,
    ) == (2, 1.0, 0)
    assert len(monitor.readings) == 2


def test_an_on_reading_that_raises_causes_one_warning(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: ResourceReading) -> None:
        raise KeyError("theirs")

    with ResourceMonitor(HOUR, on_reading=broken) as monitor:
        sample(monitor)

    assert monitor.summary().samples == 3
    assert len(caplog.records) == 1
    assert "theirs" in caplog.text


def test_on_reading_may_stop_the_monitor(machine: Machine) -> None:
    stopped = threading.Event()

    def stop(_: ResourceReading) -> None:
        if threading.current_thread() is not threading.main_thread():
            monitor.stop()
            stopped.set()

    monitor = ResourceMonitor(0.001, on_reading=stop)
    monitor.start()

    assert stopped.wait(10)
    assert not monitor.running
    assert monitor.summary().samples == 3


def test_a_stuck_on_reading_does_not_hold_up_stop(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ticker, "JOIN_S", 0.01)
    stuck, release = threading.Event(), threading.Event()

    def wait(_: ResourceReading) -> None:
        if threading.current_thread() is not threading.main_thread():
            stuck.set()
            release.wait(10)

    monitor = ResourceMonitor(0.001, on_reading=wait)
    monitor.start()
    assert stuck.wait(10)
    (thread,) = threads()
    monitor.stop()

    assert monitor.summary().samples == 3
    release.set()
    thread.join(10)
    assert monitor.summary().samples == 3


@pytest.mark.parametrize(
    ("interval", "error"),
    [
        ("5", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0, ValueError),
        (-1.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
    ],
)
def test_interval_is_checked(interval: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="interval"):
        ResourceMonitor(interval)


def test_on_reading_is_checked() -> None:
    with pytest.raises(TypeError, match="on_reading"):
        ResourceMonitor(on_reading=5)  # type: ignore[arg-type]


def test_a_forked_child_has_no_running_monitor() -> None:
    code = """
import os, threading
from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor
with ResourceMonitor(0.001) as monitor:
    thread = threading.Thread(target=monitor._lock.acquire)
    thread.start(); thread.join()
    pid = os.fork()
    if pid == 0:
        ok = not monitor.running and threading.active_count() == 1
        samples = monitor.summary().samples
        monitor.stop()
        ok = ok and monitor.summary().samples == samples
        monitor.start()
        ok = ok and monitor.running
        monitor.stop()
        os._exit(0 if ok and not monitor.running else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    monitor._lock = threading.RLock()
assert status == 0, status
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


async def test_start_and_stop_may_be_awaited(machine: Machine, clock: Clock) -> None:
    """As coroutines can be: alone, with a timeout, and after the same call without `await`."""
    monitor = ResourceMonitor(HOUR)
    await monitor.start()
    assert monitor.running
    clock.advance(1)
    await asyncio.wait_for(monitor.stop(), timeout=30)
    assert not monitor.running
    assert monitor.summary().samples == 2
    await monitor.stop()
    monitor.start()
    assert monitor.running
    await monitor.start()  # only warns
    await asyncio.gather(monitor.stop(), monitor.stop())
    assert not monitor.running


def test_start_and_stop_work_without_a_loop(machine: Machine, recwarn: Any) -> None:
    monitor = ResourceMonitor(HOUR)
    monitor.start()
    monitor.stop()
    assert monitor.summary().samples == 2
    assert not recwarn.list  # as of a coroutine that was never awaited
