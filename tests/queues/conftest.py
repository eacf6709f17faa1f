"""A run to look into, real SDK providers in memory, and nothing left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import _config, _worker
from otel_pipeline_metrics._probes import queues

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.stages.conftest import make_otel, nothing_left_over, otel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock

__all__ = ["make_otel", "nothing_left_over", "otel"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No summary on the terminal, and no worker of the test before."""
    before = _config.current()
    _config.replace(_config.Config(console=False))
    token = _worker._current.set(None)
    queues._queues.clear()
    queues._remembered.clear()
    yield
    _worker._current.reset(token)
    _config.replace(before)


@pytest.fixture
def make_run(clock: Clock) -> Callable[[], opm.Run]:
    """Return what makes a run on the clock that tests move, for a `with`."""
    return lambda: opm.run("test", resources=False)


@pytest.fixture
def clock_of(clock: Clock) -> Callable[[], Clock]:
    """The clock, for tests that hypothesis runs many times in one."""
    return lambda: clock
