"""Make runs and real SDK providers in memory, and reset all state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import settings
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._stages.workers import finding

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.stages.conftest import make_otel, nothing_left_over, otel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock

__all__ = ["make_otel", "nothing_left_over", "otel"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Print no summary, and drop workers of earlier tests."""
    before = settings.settings()
    settings.replace(settings.Config(console="off"))
    token = finding.worker_of_context.set(None)
    registry.queues.reset()
    yield
    finding.worker_of_context.reset(token)
    settings.replace(before)


@pytest.fixture
def make_run(clock: Clock) -> Callable[[], opm.Run]:
    """Return a function that makes a run on the manual clock."""
    return lambda: opm.run("test", resources=False)


@pytest.fixture
def clock_of(clock: Clock) -> Callable[[], Clock]:
    """Return the clock, for tests that hypothesis runs many times in one."""
    return lambda: clock
