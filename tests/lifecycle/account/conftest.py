"""Keep every call a sample, print no summary, and start without workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._core import hooks
from otel_pipeline_metrics._stages import sampling

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.probes.queues.conftest import clock_of, fresh
from tests.stages.conftest import make_otel, nothing_left_over, otel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stages.conftest import Otel

__all__ = ["clock_of", "fresh", "make_otel", "nothing_left_over", "otel"]


@pytest.fixture
def every_call_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no gap be between two samples."""
    monkeypatch.setattr(sampling, "_gap", lambda _: 0)


@pytest.fixture
def few_calls_sampled(
    every_call_sampled: None, otel: Otel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let the first call of a series be the only sample, and none have a span."""
    monkeypatch.setattr(sampling, "ALL_SAMPLED", 0)
    monkeypatch.setattr(sampling, "_gap", lambda _: 10**9)
    before = hooks.tracing, hooks.tracing_to_come
    hooks.set_tracing(None)
    yield
    hooks.set_tracing(*before)
