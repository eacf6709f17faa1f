"""Configure nothing before and after each test."""

from __future__ import annotations

import pytest

import otel_pipeline_metrics as opm

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.lifecycle.configure.conftest import captured, other, slate

__all__ = ["captured", "other", "slate"]


@pytest.fixture
def collector() -> opm.MetricsCollector:
    """Return a collector of this test."""
    return opm.MetricsCollector()
