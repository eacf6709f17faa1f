"""Test caches whose counts the program records itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from otel_pipeline_metrics._probes.caches import registry
from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.caches.register import register_cache, unregister_cache
from otel_pipeline_metrics._probes.caches.registry import read_all
from otel_pipeline_metrics._probes.manual import Records

if TYPE_CHECKING:
    import pytest


record = Records().record_cache


def only() -> CacheReading:
    (reading,) = read_all()
    return reading


def test_recorded_counts_add_up() -> None:
    record("manual", 3, 1)
    record("manual", 2, 0, evictions=4, size_bytes=100)
    record("manual", 0, 1, size_bytes=90)

    assert CacheReading("manual", 5, 2, evictions=4, expirations=0, size_bytes=90) == only()


def test_records_from_many_threads_add_up() -> None:
    def work() -> None:
        for _ in range(500):
            record("manual", 1, 2, 3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert CacheReading("manual", 2000, 4000, 6000, 0, size_bytes=0) == only()


def test_a_record_under_a_registered_name_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    record("name", 5, 5)
    register_cache("name", lambda: {"hits": 1, "misses": 1})
    record("name", 100, 100)
    record("name", 100, 100)

    assert CacheReading("name", 6, 6) == only()
    assert len(caplog.records) == 1

    unregister_cache("name")
    record("name", 1, 0)
    assert CacheReading("name", 7, 6, evictions=0, expirations=0, size_bytes=0) == only()


def test_a_forked_child_can_record() -> None:
    """Another thread holds both locks at the fork."""
    record("manual", 1, 1)
    thread = threading.Thread(
        target=lambda: (
            registry.caches._lock.acquire(),
            registry.caches._manual["manual"]._lock.acquire(),
        )
    )
    thread.start()
    thread.join()
    registry.caches._manual["manual"].after_fork()
    registry.caches.after_fork()

    record("manual", 1, 1)

    assert CacheReading("manual", 1, 1, 0, 0, size_bytes=0) == only()
