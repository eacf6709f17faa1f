"""Make runs on the manual clock, and start each test without limits."""

from __future__ import annotations

import pytest

from otel_pipeline_metrics._probes.limits import registry

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.probes.queues.conftest import (
    clock_of,
    fresh,
    make_otel,
    make_run,
    nothing_left_over,
    otel,
)

__all__ = ["clock_of", "fresh", "make_otel", "make_run", "nothing_left_over", "otel"]


@pytest.fixture(autouse=True)
def no_limits(fresh: None) -> None:
    """Forget the limits of other tests."""
    registry.limits.reset()
    registry.kinds.clear()
    registry.shared.clear()
