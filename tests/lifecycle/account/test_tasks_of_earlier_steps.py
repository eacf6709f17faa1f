"""A task that a generator begins in one step, and that goes on in a later one.

Its calls count for the consumer of the step that began it, once that is over, and not for the
generator: its own time includes theirs. docs/verdict.md says so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Clock


@opm.fetch
async def page() -> None:
    await asyncio.sleep(2)


def own_of_pages(clock: Clock, *, steps: int) -> float:
    """Return the own time of a generator whose task is awaited in its first or second step."""

    @opm.stage("pages")
    async def pages() -> AsyncIterator[int]:
        task = asyncio.create_task(page())
        for step in range(steps):
            if step == steps - 1:
                await task
            yield step

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            async for _ in pages():
                pass
        return run

    own: float = stage_of(play(clock, main()), "pages")["self_s"]
    return own


def test_a_task_that_is_awaited_in_the_same_step_is_no_time_of_its_generator(clock: Clock) -> None:
    assert own_of_pages(clock, steps=1) == 0.0


@pytest.mark.xfail(strict=True, reason="a step is a call of its own, so it is over by then")
def test_a_task_that_is_awaited_in_a_later_step_is_none_either(clock: Clock) -> None:
    assert own_of_pages(clock, steps=2) == 0.0
