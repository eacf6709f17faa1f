"""Test what the sampling thread finds at its random moments, exactly and in a real process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import ResourceMonitor
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.resources import contention
from otel_pipeline_metrics._probes.resources.contention import Contention, ContentionSampler
from otel_pipeline_metrics._probes.resources.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probes.conftest import Machine

LINUX = sys.platform == "linux"


class Kernel:
    """The counts that a kernel keeps of one thread, moved by hand."""

    def __init__(self) -> None:
        self.switches: int | None = 100
        self.waited_ns: int | None = 1_000_000
        self.cpu_s = 5.0
        self.gil = True

    def sleep(self, *, held: bool = False, waited_ns: int = 3_000) -> Callable[[], bool]:
        """Return a sleep that wakes while the GIL is held, or no CPU is free."""

        def sleep() -> bool:
            if self.switches is not None:
                self.switches += 2 if held else 1
            if self.waited_ns is not None:
                self.waited_ns += waited_ns
            self.cpu_s += 0.0001
            return False

        return sleep


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    fake = Kernel()
    monkeypatch.setattr(contention, "voluntary_switches", lambda: fake.switches)
    monkeypatch.setattr(contention, "run_delay_ns", lambda: fake.waited_ns)
    monkeypatch.setattr(contention, "gil_enabled", lambda: fake.gil)
    monkeypatch.setattr(contention, "thread_time", lambda: fake.cpu_s)
    return fake


def test_a_second_switch_is_a_wait_for_the_gil(kernel: Kernel) -> None:
    """The first one is the sleep. Every second moment also asks for the wait for a CPU."""
    sampler = ContentionSampler()
    for held in (False, True, True, False, True, True):
        assert not sampler.sample(kernel.sleep(held=held))

    assert sampler.counts == Contention(gil_samples=6, gil_held=4, cpu_samples=3, cpu_waited=0)


def test_a_ready_thread_that_runs_late_had_no_cpu(kernel: Kernel) -> None:
    """Whoever is late for the CPU did not wait for the GIL."""
    sampler = ContentionSampler()
    for waited_ns in (0, 4_000_000, 0, 100_000, 0, 100_001):
        sampler.sample(kernel.sleep(waited_ns=waited_ns))

    assert sampler.counts == Contention(gil_samples=6, gil_held=0, cpu_samples=3, cpu_waited=2)


def test_a_sleep_that_is_cut_short_is_no_random_moment(kernel: Kernel) -> None:
    sampler = ContentionSampler()
    assert sampler.sample(lambda: True)
    assert sampler.counts == Contention()


def test_a_kernel_that_does_not_count_switches_tells_nothing_of_the_gil(kernel: Kernel) -> None:
    sampler = ContentionSampler()
    sampler.sample(lambda: False)
    kernel.switches = None
    sampler.sample(kernel.sleep())
    assert sampler.counts == Contention(cpu_samples=1)


def test_without_a_gil_its_share_is_unknown(kernel: Kernel) -> None:
    kernel.gil = False
    sampler = ContentionSampler()
    for _ in range(200):
        sampler.sample(kernel.sleep(held=True))
    assert sampler.counts.gil_held_share is None
    assert sampler.counts.gil_samples == 0
    assert sampler.counts.run_delay_share == 0.0


def test_without_schedstat_the_wait_for_a_cpu_is_unknown(kernel: Kernel) -> None:
    kernel.waited_ns = None
    sampler = ContentionSampler()
    for _ in range(200):
        sampler.sample(kernel.sleep())
    assert (sampler.counts.run_delay_share, sampler.counts.cpu_samples) == (None, 0)
    assert sampler.counts.gil_held_share == 0.0


def test_shares_of_fewer_than_50_samples_are_unknown() -> None:
    few, enough = Contention(49, 49, 49, 49), Contention(50, 20, 50, 10)
    assert (few.gil_held_share, few.run_delay_share) == (None, None)
    assert (enough.gil_held_share, enough.run_delay_share) == (0.4, 0.2)


def test_pauses_are_random_with_the_stated_mean(kernel: Kernel) -> None:
    """Those of an exponential distribution, whose deviation is its mean."""
    sampler = ContentionSampler()
    pauses = [sampler.pause() for _ in range(20_000)]
    mean = sum(pauses) / len(pauses)
    deviation = (sum((pause - mean) ** 2 for pause in pauses) / len(pauses)) ** 0.5
    assert mean == pytest.approx(contention.MEAN_PAUSE_S, rel=0.1)
    assert deviation == pytest.approx(mean, rel=0.1)


def test_dear_moments_are_rarer(kernel: Kernel) -> None:
    """All of them stay within their budget of CPU time."""
    sampler = ContentionSampler()

    def dear() -> bool:
        kernel.cpu_s += 0.0008
        return False

    for _ in range(10):
        sampler.sample(dear)
    pauses = [sampler.pause() for _ in range(20_000)]
    assert 0.0008 / (sum(pauses) / len(pauses)) == pytest.approx(contention.BUDGET, rel=0.1)


def test_the_programs_random_numbers_stay_as_they_are() -> None:
    import random

    state = random.getstate()
    ContentionSampler().pause()
    assert random.getstate() == state


def test_a_monitor_has_the_shares_of_its_own_time(machine: Machine, kernel: Kernel) -> None:
    """What the shared thread found before, or after, is not part of it."""
    with ResourceMonitor(3600.0) as first:
        assert first._session is not None
        sampler = first._session.ticker.contention
        for _ in range(50):
            sampler.sample(kernel.sleep(held=True))
        with ResourceMonitor(3600.0) as second:
            for _ in range(150):
                sampler.sample(kernel.sleep(waited_ns=1_000_000))
        sampler.sample(kernel.sleep())

    summary = first.summary()
    assert (summary.gil_held, summary.gil_held_samples) == (50 / 201, 201)
    assert (summary.run_delay, summary.run_delay_samples) == (75 / 100, 100)
    summary = second.summary()
    assert (summary.gil_held, summary.gil_held_samples) == (0.0, 150)
    assert (summary.run_delay, summary.run_delay_samples) == (1.0, 75)


def test_an_error_in_a_moment_ends_neither_the_thread_nor_the_sleep(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "raise_faults", False)

    def fail() -> bool:
        raise KeyError

    monkeypatch.setattr(contention, "gil_enabled", fail)
    slept: list[bool] = []

    def sleep() -> bool:
        slept.append(True)
        return False

    assert not Ticker(3600.0)._sample(sleep)
    assert slept == [True]


# --- the real kernel -----------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="these counts are Linux's")
def test_the_kernels_counts_are_those_of_this_thread() -> None:
    found: dict[str, Any] = {}

    def block() -> None:
        before = contention.voluntary_switches()
        threading.Event().wait(0.001)
        after = contention.voluntary_switches()
        assert before is not None
        assert after is not None
        found["slept"] = after - before
        found["delay"] = contention.run_delay_ns()

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found["slept"] >= 1
    assert found["delay"] >= 0


@pytest.mark.parametrize("line", [b"0 0 0\n", b"", b"12\n", b"no numbers\n"])
def test_a_schedstat_without_counts_is_unknown(
    line: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "schedstat").write_bytes(line)
    monkeypatch.setattr(contention, "_SCHEDSTAT", str(tmp_path / "schedstat"))
    assert contention.run_delay_ns() is None
    monkeypatch.setattr(contention, "_SCHEDSTAT", str(tmp_path / "nowhere"))
    assert contention.run_delay_ns() is None


def test_schedstats_second_number_is_the_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "schedstat").write_bytes(b"274642 1234 3\n")
    monkeypatch.setattr(contention, "_SCHEDSTAT", str(tmp_path / "schedstat"))
    assert contention.run_delay_ns() == 1234


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="these counts are Linux's")
@pytest.mark.parametrize(
    ("work", "least", "most"),
    [("while going: pass", 0.8, 1.0), ("while going: crc32(block)", 0.0, 0.2)],
)
def test_a_real_thread_holds_the_gil_or_does_not(work: str, least: float, most: float) -> None:
    """It takes as long as 60 moments take; what else the machine does is not counted."""
    code = f"""
    import sys, threading
    from zlib import crc32
    from otel_pipeline_metrics import ResourceMonitor
    from otel_pipeline_metrics._probes.resources import contention
    contention.MEAN_PAUSE_S, contention.BUDGET = 0.02, 1.0
    if not contention.gil_enabled():
        sys.exit()
    going, block = [1], b"x" * 50_000_000
    def work():
        {work}
    threading.Thread(target=work, daemon=True).start()
    done = threading.Event()
    monitor = ResourceMonitor(0.1)
    with monitor:
        while monitor.summary().gil_held_samples < 60:
            done.wait(0.1)
    going.clear()
    held = monitor.summary().gil_held
    assert {least} <= held <= {most}, held
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
