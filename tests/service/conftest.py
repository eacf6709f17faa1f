"""Fixtures of the tests of services: a manager, and what is in its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics.service.activity import activity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh_activity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without operations, as a process does."""
    names = cardinality.Distinct(cardinality.MAX_NAMES)
    monkeypatch.setattr(cardinality, "instrument_names", names)
    activity.after_fork()
    yield
    activity.after_fork()


@pytest.fixture
def records(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads all records, after checking every file."""

    def read() -> list[dict[str, Any]]:
        found = []
        for path in sorted(tmp_path.glob("metrics_*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            assert sorted(data) == ["batch_id", "batch_timestamp", "records", "total_records"]
            assert path.name == f"metrics_{data['batch_id']}.json"
            assert data["total_records"] == len(data["records"])
            found += data["records"]
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
        return found

    return read
