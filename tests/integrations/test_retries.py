"""Test the recipes for stamina and backoff that docs/engines.md shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lifecycle.configure.support import Captured


def flaky() -> Callable[[], str]:
    answers = iter([ConnectionError(), TimeoutError(), "page"])

    def download() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return download


def check(again: Callable[[Any], Any], captured: Captured) -> None:
    """Retry a function and a coroutine function, each below the stage's decorator."""
    download, answers = flaky(), flaky()

    async def download_async() -> str:
        return answers()

    captured.configure()
    with opm.run("crawl", resources=False) as run:
        assert opm.fetch("download")(again(download))() == "page"
        assert asyncio.run(opm.fetch("download")(again(download_async))()) == "page"
    (stage,) = run.report.stages
    assert (stage["count"], stage["retries"], stage["errors"]["total"]) == (2, 4, 0)
    counted = captured.values("pipeline.stage.retries", "error.type")
    assert counted == {"ConnectionError": 2, "TimeoutError": 2}


def test_stamina(captured: Captured) -> None:
    stamina = pytest.importorskip("stamina")
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    before = get_on_retry_hooks()
    set_on_retry_hooks([lambda details: opm.current_stage().retry(details.caused_by)])
    try:
        again = stamina.retry(on=Exception, attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)
        check(again, captured)
    finally:
        set_on_retry_hooks(before)


def test_backoff(captured: Captured) -> None:
    backoff = pytest.importorskip("backoff")
    again = backoff.on_exception(
        backoff.constant,
        Exception,
        max_tries=3,
        interval=0,
        jitter=None,
        on_backoff=lambda details: opm.current_stage().retry(details.get("exception")),
    )
    check(again, captured)
