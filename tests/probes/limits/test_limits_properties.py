"""Test random programs of limits against a simulation of their own, in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.limits import registry
from tests.probes.limits.support import limit_of, stages_of
from tests.probes.queues.support import play, sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


# eighths add up exactly in any order
_seconds = st.integers(0, 16).map(lambda n: n / 8)


class Use(NamedTuple):
    """One use of the limit by a worker."""

    stage: str | None
    before: float
    inside: float
    how: str


class Program(NamedTuple):
    """A limit, its workers, and when they are cancelled."""

    kind: str
    most: int
    workers: list[list[Use]]
    cancelled_at: list[float | None]


_uses = st.builds(
    Use,
    st.sampled_from(["a", "b", None]),
    _seconds,
    _seconds,
    st.sampled_from(["with", "acquire", "timeout", "locked"]),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    kind = draw(st.sampled_from(["semaphore", "bounded", "lock", "condition"]))
    most = draw(st.integers(1, 3)) if kind in {"semaphore", "bounded"} else 1
    workers = draw(st.lists(st.lists(_uses, max_size=4), min_size=1, max_size=5))
    cancelled = [draw(st.one_of(st.none(), st.none(), _seconds)) for _ in workers]
    return Program(kind, most, workers, cancelled)


class Log:
    """What the workers saw: the truth that the report is compared with."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waited: dict[str | None, float] = {}
        self.held: dict[str | None, float] = {}
        self.acquired = self.level = self.peak = 0
        self.events: list[tuple[float, int, str]] = []
        self.began = clock.time

    def add(self, what: dict[str | None, float], stage: str | None, since: float) -> None:
        what[stage] = what.get(stage, 0.0) + self.clock.time - since

    def event(self, one: Use, what: str) -> None:
        self.events.append((self.clock.time - self.began, id(one), what))


async def use(limit: Any, one: Use, log: Log) -> None:
    await sleep(one.before)
    if one.how == "locked" and limit.locked():
        return
    began = log.clock.time
    try:
        if one.how == "timeout":
            await asyncio.wait_for(limit.acquire(), 0.75)
        elif one.how == "with":
            await limit.__aenter__()
        else:
            await limit.acquire()
    except BaseException as error:
        log.event(one, type(error).__name__)
        raise
    finally:
        log.add(log.waited, one.stage, began)
    log.event(one, "acquired")
    log.acquired += 1
    log.level += 1
    log.peak = max(log.peak, log.level)
    since = log.clock.time
    try:
        await sleep(one.inside)
    finally:
        log.add(log.held, one.stage, since)
        log.level -= 1
        if one.how == "with":
            await limit.__aexit__(None, None, None)
        else:
            limit.release()
        log.event(one, "released")


async def work(limit: Any, uses: list[Use], log: Log) -> None:
    for one in uses:
        try:
            if one.stage is None:
                # a new worker, which has left no stage
                await contextvars.Context().run(asyncio.ensure_future, use(limit, one, log))
            else:
                async with opm.stage(one.stage):
                    await use(limit, one, log)
        except asyncio.TimeoutError:
            pass


async def run_program(program: Program, log: Log, wrap: Callable[[Any], Any]) -> None:
    makers = {
        "semaphore": lambda: asyncio.Semaphore(program.most),
        "bounded": lambda: asyncio.BoundedSemaphore(program.most),
        "lock": asyncio.Lock,
        "condition": asyncio.Condition,
    }
    limit = wrap(makers[program.kind]())
    loop = asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(work(limit, uses, log)) for uses in program.workers]
    for task, at in zip(tasks, program.cancelled_at, strict=True):
        if at is not None:
            loop.call_later(at, task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    await sleep(1)
    assert not limit.locked()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs())
def test_usage_never_exceeds_the_maximum_and_accounts_add_up(
    program: Program, clock_of: Callable[[], Clock]
) -> None:
    # limits of earlier programs may wait for the garbage collector
    registry.limits.reset()
    log = Log(clock_of())
    with opm.run("test", resources=False) as run:
        play(log.clock, run_program(program, log, lambda bare: opm.wrap_limit(bare, name="x")))
    bare = Log(clock_of())
    play(bare.clock, run_program(program, bare, lambda limit: limit))
    assert log.events == bare.events
    if not log.acquired and not any(log.waited.values()):
        assert run.report.limits == [] or limit_of(run)["acquired"] == 0
        return
    found, stages = limit_of(run), stages_of(run)
    assert found["max"] == program.most
    assert log.peak <= found["usage_peak"] <= program.most
    # before Python 3.12 `wait_for` has the permit in another task a moment before its caller
    if not any(one.how == "timeout" for uses in program.workers for one in uses):
        assert found["usage_peak"] == log.peak
    assert found["acquired"] == log.acquired
    assert found["usage_avg"] <= program.most
    wall_s = run.report.run["wall_s"]
    assert found["usage_avg"] * wall_s == pytest.approx(sum(log.held.values()), abs=1e-6)
    assert found["wait_s"]["total"] == pytest.approx(sum(log.waited.values()), abs=1e-6)
    for stage in ("a", "b", None):
        waited, held = stages.get(stage, (0.0, 0.0))
        assert waited == pytest.approx(log.waited.get(stage, 0.0), abs=1e-6)
        assert held == pytest.approx(log.held.get(stage, 0.0), abs=1e-6)
