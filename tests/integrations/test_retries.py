"""Test the recipes for stamina and backoff that docs/engines.md shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable


def flaky() -> Callable[[], str]:
    answers = iter([ConnectionError(), TimeoutError(), "page"])

    def download() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return download


def row(download: Callable[[], str]) -> dict[str, Any]:
    with opm.run("crawl", resources=False) as run:
        assert opm.fetch("download")(download)() == "page"
    (stage,) = run.report.stages
    return stage


def test_stamina() -> None:
    stamina = pytest.importorskip("stamina")
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    before = get_on_retry_hooks()
    set_on_retry_hooks([lambda details: opm.current_stage().retry(details.caused_by)])
    try:
        again = stamina.retry(on=Exception, attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)
        stage = row(again(flaky()))
    finally:
        set_on_retry_hooks(before)
    assert (stage["count"], stage["retries"], stage["errors"]["total"]) == (1, 2, 0)


def test_backoff() -> None:
    backoff = pytest.importorskip("backoff")
    again = backoff.on_exception(
        backoff.constant,
        Exception,
        max_tries=3,
        interval=0,
        jitter=None,
        on_backoff=lambda details: opm.current_stage().retry(details.get("exception")),
    )
    stage = row(again(flaky()))
    assert (stage["count"], stage["retries"], stage["errors"]["total"]) == (1, 2, 0)
