"""Test readings of the real process and machine."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import threading

import pytest

from otel_pipeline_metrics._probes.resources import probe as _probe
from otel_pipeline_metrics._probes.resources.probe import ResourceProbe


def test_a_real_forked_child_reads_itself() -> None:
    """Another thread of the parent is reading at the fork."""
    code = """
import os, threading
from otel_pipeline_metrics._probes.resources import probe
probe = probe.shared()
probe.read()
burn = sum(i * i for i in range(3_000_000))
thread = threading.Thread(target=probe._lock.acquire)
thread.start(); thread.join()
pid = os.fork()
if pid == 0:
    reading = probe.read()
    ok = (
        probe._process.pid == os.getpid()
        and reading.cpu_utilization is None
        and reading.rss_bytes > 0
        and reading.cpu_user_s < 0.1
    )
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_probe_is_shared() -> None:
    assert _probe.shared() is _probe.shared()


def test_importing_loads_neither_psutil_nor_the_sdk() -> None:
    code = """
import sys
from otel_pipeline_metrics._probes.caches import registry
from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._probes.resources import instruments
from otel_pipeline_metrics._probes.resources import monitor
from otel_pipeline_metrics._probes.resources import probe
assert "psutil" not in sys.modules, "psutil"
assert "cachetools" not in sys.modules, "cachetools"
assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules), "sdk"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_value_is_plausible_on_this_machine(caplog: pytest.LogCaptureFixture) -> None:
    """With the real psutil."""
    caplog.set_level(logging.WARNING)
    probe = ResourceProbe()
    first = probe.read()
    second = probe.read()

    assert first.cpu_utilization is None
    assert {"cpu_utilization", "system_cpu_utilization"} >= {
        field for field, value in vars(second).items() if value is None
    }
    assert second.rss_bytes is not None
    assert 1_000_000 < second.rss_bytes < 100_000_000_000
    assert second.thread_count is not None
    assert second.thread_count >= threading.active_count()
    assert second.cpu_user_s == pytest.approx(
        resource.getrusage(resource.RUSAGE_SELF).ru_utime, abs=1
    )
    assert second.system_memory_utilization is not None
    assert 0 < second.system_memory_utilization < 1
    assert not caplog.records
    assert os.getpid() == probe._process.pid
