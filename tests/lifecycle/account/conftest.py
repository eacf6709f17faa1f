"""Keep every call a sample, print no summary, and start without workers."""

from __future__ import annotations

import pytest

from otel_pipeline_metrics._stages import sampling

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.probes.queues.conftest import clock_of, fresh
from tests.stages.conftest import make_otel, nothing_left_over, otel

__all__ = ["clock_of", "fresh", "make_otel", "nothing_left_over", "otel"]


@pytest.fixture
def every_call_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no gap be between two samples."""
    monkeypatch.setattr(sampling, "_gap", lambda _: 0)
