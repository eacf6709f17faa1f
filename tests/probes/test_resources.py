"""Test readings of the process and its host, exactly, on a fake machine."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._probes.resources import probe as _probe
from otel_pipeline_metrics._probes.resources.filesystems import points
from otel_pipeline_metrics._probes.resources.probe import ResourceProbe
from otel_pipeline_metrics._probes.resources.reading import ResourceReading

if TYPE_CHECKING:
    from tests.conftest import Clock
    from tests.probes.conftest import Machine


def test_everything_is_read(machine: Machine, clock: Clock) -> None:
    machine.user_s, machine.system_s = 3.0, 1.0
    machine.switches = (11, 12)
    machine.disk = (100, 200)
    machine.network = (300, 400)
    machine.disks = (500, 600)

    assert (
        ResourceReading(
            at=1000.0,
            cpu_user_s=3.0,
            cpu_system_s=1.0,
            rss_bytes=1000,
            vms_bytes=5000,
            thread_count=3,
            fd_count=7,
            disk_read_bytes=100,
            disk_write_bytes=200,
            network_receive_bytes=300,
            network_transmit_bytes=400,
            context_switches_voluntary=11,
            context_switches_involuntary=12,
            system_memory_used_bytes=250,
            system_memory_utilization=0.25,
            system_disk_read_bytes=500,
            system_disk_write_bytes=600,
        )
        == ResourceProbe().read()
    )


def test_utilization_is_cpu_time_over_elapsed_time_and_cpus(machine: Machine, clock: Clock) -> None:
    probe = ResourceProbe()
    machine.user_s = 100.0

    assert probe.read().cpu_utilization is None

    clock.advance(10)
    machine.user_s += 4
    machine.system_s += 1

    assert probe.read().cpu_utilization == 0.25

    clock.advance(10)

    assert probe.read().cpu_utilization == 0.0


def test_utilization_never_exceeds_one(machine: Machine, clock: Clock) -> None:
    probe = ResourceProbe()
    probe.read()
    clock.advance(1)
    machine.user_s += 2.1

    assert probe.read().cpu_utilization == 1.0


def test_host_utilization_counts_waiting_for_disks_as_idle(machine: Machine, clock: Clock) -> None:
    probe = ResourceProbe()
    probe.read()
    clock.advance(1)
    machine.cpu = {"user": 1.0, "nice": 0.5, "system": 0.5, "idle": 5.0, "iowait": 1.0}

    assert probe.read().system_cpu_utilization == 0.25


def test_two_readers_share_a_reading(machine: Machine, clock: Clock) -> None:
    probe = ResourceProbe()
    first = probe.read()
    clock.advance(0.5)
    calls = len(machine.calls)

    assert first is probe.read(max_age_s=0.5)
    assert calls == len(machine.calls)

    clock.advance(0.1)

    assert first is not probe.read(max_age_s=0.5)


def test_a_reading_right_after_another_keeps_its_utilization(
    machine: Machine, clock: Clock
) -> None:
    """A window of a millisecond would give 0 or 1 only."""
    probe = ResourceProbe()
    probe.read()
    clock.advance(10)
    machine.user_s += 10
    probe.read()
    clock.advance(0.001)

    assert probe.read().cpu_utilization == 0.5

    clock.advance(9.999)
    machine.user_s += 5

    assert probe.read().cpu_utilization == 0.25


def test_readers_have_windows_of_their_own(machine: Machine, clock: Clock) -> None:
    """A monitor at one second does not shorten the window of an export at one minute."""
    probe = ResourceProbe()
    slow, fast = probe.reader(), probe.reader()
    slow.read()
    fast.read()
    for busy_s in (2.0, 0.0, 0.0, 0.0):
        clock.advance(1)
        machine.user_s += busy_s
        machine.cpu["user"] += busy_s
        machine.cpu["idle"] += 2 - busy_s
        latest = fast.read()

    assert (latest.cpu_utilization, latest.system_cpu_utilization) == (0.0, 0.0)
    latest = slow.read()
    assert (latest.cpu_utilization, latest.system_cpu_utilization) == (0.25, 0.25)


def test_the_cpu_limit_is_read_again(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = ResourceProbe()
    probe.read()
    monkeypatch.setattr(cgroup, "limits", lambda: SimpleNamespace(cpus=0.5))
    clock.advance(100)
    probe.read()
    clock.advance(10)
    machine.user_s += 5

    assert probe.read().cpu_utilization == 1.0


@pytest.mark.parametrize(
    ("call", "error", "lost"),
    [
        ("num_threads", PermissionError("no"), {"thread_count"}),
        ("num_fds", AttributeError("num_fds"), {"fd_count"}),
        ("memory_info", OSError("no"), {"rss_bytes", "vms_bytes"}),
        ("io_counters", NotImplementedError(), {"disk_read_bytes", "disk_write_bytes"}),
        (
            "net_io_counters",
            RuntimeError("no"),
            {"network_receive_bytes", "network_transmit_bytes"},
        ),
        (
            "disk_io_counters",
            OSError("no"),
            {"system_disk_read_bytes", "system_disk_write_bytes"},
        ),
        (
            "virtual_memory",
            KeyError("MemTotal"),
            {"system_memory_used_bytes", "system_memory_utilization"},
        ),
        ("cpu_times", OSError("no"), {"system_cpu_utilization"}),
        (
            "getrusage",
            OSError("no"),
            {
                "cpu_user_s",
                "cpu_system_s",
                "cpu_utilization",
                "context_switches_voluntary",
                "context_switches_involuntary",
            },
        ),
        (
            "Process",
            ProcessLookupError("gone"),
            {
                "thread_count",
                "fd_count",
                "rss_bytes",
                "vms_bytes",
                "disk_read_bytes",
                "disk_write_bytes",
            },
        ),
    ],
)
def test_an_unreadable_value_is_none_with_one_warning(
    machine: Machine,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    call: str,
    error: Exception,
    lost: set[str],
) -> None:
    machine.failing[call] = error
    probe = ResourceProbe()
    probe.read()
    clock.advance(1)
    machine.cpu["idle"] += 1

    reading = probe.read()

    missing = {field for field, value in vars(reading).items() if value is None}
    assert lost == missing
    assert len(caplog.records) == 1

    del machine.failing[call]
    clock.advance(1)
    machine.cpu["idle"] += 1
    probe.read()
    clock.advance(1)
    machine.cpu["idle"] += 1

    assert None not in vars(probe.read()).values()


def test_without_psutil_other_values_are_read(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)

    reading = ResourceProbe().read()

    assert (reading.cpu_user_s, reading.rss_bytes) == (0.0, None)
    assert "psutil" in caplog.text


def test_without_getrusage_psutil_is_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no `resource` module."""
    monkeypatch.setitem(sys.modules, "resource", None)
    machine.cpu["user"] = 4.0

    reading = ResourceProbe().read()

    assert reading.cpu_user_s == 4.0
    assert reading.context_switches_voluntary is None


def test_without_a_network_interface_network_is_unknown(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.network = None

    assert ResourceProbe().read().network_receive_bytes is None
    assert not caplog.records


def test_without_a_disk_the_hosts_disks_are_unknown(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.disks = None

    assert ResourceProbe().read().system_disk_read_bytes is None
    assert not caplog.records


def test_file_systems_count_once_each(
    machine: Machine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A container binds single files from one disk of the host."""
    machine.mounts = [("/dev/a", "/", 0.25), ("/dev/a", "/etc/hosts", 0.25), ("/dev/b", "/b", 0.5)]
    seen = [(share, attributes["system.filesystem.mountpoint"]) for share, attributes in points()]
    clock.advance(1)
    assert seen == [(0.25, "/"), (0.5, "/b")]
    machine.failing["disk_usage"] = PermissionError("no")
    assert list(points()) == []
    assert len(caplog.records) == 2


def test_network_totals_do_not_fall(machine: Machine) -> None:
    """A removed virtual interface takes its counts with it."""
    probe = ResourceProbe()
    machine.network = (100, 50)
    probe.read()
    machine.network = (60, 10)

    assert probe.read().network_receive_bytes == 100

    machine.network = (65, 10)
    reading = probe.read()

    assert (reading.network_receive_bytes, reading.network_transmit_bytes) == (105, 50)


def test_a_reading_from_within_a_reading_does_not_hang(machine: Machine, clock: Clock) -> None:
    """A signal handler or a gc callback may do that."""
    probe = ResourceProbe()
    before = probe.read()
    inner: list[ResourceReading] = []
    plain = machine.num_fds
    machine.num_fds = lambda: (inner.append(probe.read()), plain())[1]  # type: ignore[func-returns-value,method-assign]

    probe.read()

    assert [before] == inner


def test_a_reading_while_another_thread_is_stuck_gives_the_last_one(
    machine: Machine, clock: Clock
) -> None:
    probe = ResourceProbe()
    before = probe.read()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with probe._lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        assert before is probe.read()
    finally:
        done.set()
        thread.join()


def test_a_first_reading_while_another_thread_is_stuck_is_empty(machine: Machine) -> None:
    probe = ResourceProbe()
    thread = threading.Thread(target=probe._lock.acquire)
    thread.start()
    thread.join()

    assert probe.read().rss_bytes is None


def test_a_forked_child_starts_without_a_reading(machine: Machine, clock: Clock) -> None:
    probe = ResourceProbe()
    reader = probe.reader()
    machine.user_s = 5.0
    probe.read()
    reader.read()
    clock.advance(1)
    thread = threading.Thread(target=probe._lock.acquire)  # held, and never released
    thread.start()
    thread.join()

    probe.after_fork()
    machine.user_s = 0.0

    assert probe.read().cpu_utilization is None
    assert reader.read().cpu_utilization is None
    assert machine.processes == 2

    clock.advance(1)
    machine.user_s += 1

    assert reader.read().cpu_utilization == 0.5


def test_the_first_utilization_of_a_forked_child_is_that_since_the_fork(
    machine: Machine, clock: Clock
) -> None:
    """A reader that it makes itself has none at its first reading, as everywhere."""
    probe = ResourceProbe()
    reader = probe.reader()
    machine.user_s = 5.0
    reader.read()
    clock.advance(1)
    probe.after_fork()
    machine.user_s = 0.0
    clock.advance(0.02)
    machine.user_s += 0.01

    assert reader.read().cpu_utilization == pytest.approx(0.25)
    assert probe.reader().read().cpu_utilization is None


def test_the_first_utilization_is_exact_however_soon_it_is_read(
    machine: Machine, clock: Clock
) -> None:
    """A second reading of the same moment is no reading of its own, however fresh it is."""
    probe = ResourceProbe()
    reader = probe.reader()
    assert reader.read().cpu_utilization is None

    clock.advance(0.001)
    machine.user_s += 0.0005
    assert reader.read(max_age_s=0.05).cpu_utilization == pytest.approx(0.25)

    clock.advance(0.009)
    machine.user_s += 0.0015
    machine.cpu["idle"] += 0.02
    latest = reader.read()
    assert latest.cpu_utilization == pytest.approx(0.1)
    assert latest.system_cpu_utilization is None

    clock.advance(0.09)
    machine.user_s += 0.098
    assert reader.read().cpu_utilization == pytest.approx(0.5)

    clock.advance(0.001)
    machine.user_s += 0.002
    assert reader.read().cpu_utilization == pytest.approx(0.5)


def test_time_and_cpu_time_are_read_together(machine: Machine, clock: Clock) -> None:
    """The import of psutil takes some ten milliseconds of CPU time, before both."""
    probe = ResourceProbe()
    reader = probe.reader()
    first = machine.Process

    def slow() -> Machine:
        clock.advance(1)
        machine.user_s += 1
        return first()

    machine.Process = slow  # type: ignore[method-assign]
    reader.read()
    clock.advance(1)

    assert reader.read().cpu_utilization == 0.0


def test_recorded_resources_keep_fields_that_are_not_given(clock: Clock) -> None:
    _probe.record_manual(cpu_utilization=0.5, rss_bytes=10)
    clock.advance(1)
    _probe.record_manual(rss_bytes=20)

    assert ResourceReading(at=1001.0, cpu_utilization=0.5, rss_bytes=20) == _probe.manual()
