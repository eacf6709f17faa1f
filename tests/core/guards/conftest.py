"""Start each test unconfigured, with nothing counted and no names known."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._core import cardinality, errors, privacy, stage_id
from otel_pipeline_metrics._core import series as _series
from tests.export.conftest import grpc_collector, http_collector
from tests.lifecycle.configure.support import Captured, clean_slate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["grpc_collector", "http_collector"]


@pytest.fixture(autouse=True)
def slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with clean_slate():
        privacy.dropped_before()
        for tally in (privacy.forbidden_keys, privacy.cut_messages, cardinality.others):
            tally.reset()
        monkeypatch.setattr(stage_id, "_stage_ids", {})
        monkeypatch.setattr(stage_id, "_described", {})
        monkeypatch.setattr(stage_id, "_forms", {})
        monkeypatch.setattr(
            cardinality, "instrument_names", cardinality.Distinct(cardinality.MAX_NAMES)
        )
        _series.process_scope.forget()
        errors.reset()
        yield
        _series.process_scope.forget()


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Provide the user's own providers, in memory."""
    providers = Captured()
    yield providers
    providers.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture the library's warnings."""
    caplog.set_level(logging.WARNING, "otel_pipeline_metrics")
    return caplog
