"""Jobs of RQ that run stages."""

from __future__ import annotations

import os
import time

import rq

import otel_pipeline_metrics as opm
from tests.integrations.engine_drivers import CALLS
from tests.integrations.engine_stages import parse_or_not, slow


@opm.process("parse")
def parse(number: int) -> int:
    opm.current_stage().add_items(2)
    if number % 10 == 5:
        raise ValueError("bad", number)
    return number


def job(first: int) -> int:
    """Make ten calls, of which one fails."""
    for number in range(first, first + 10):
        try:
            parse(number)
        except ValueError:
            opm.process("slow")(time.sleep)(0.002)
    return first


def failing() -> None:
    parse(5)


def end() -> None:
    os.kill(os.getpid(), 9)


def unsteady(number: int) -> None:
    """Make a call in each attempt; RQ tries again while it may."""
    parse(number)
    if rq.get_current_job().retries_left:
        raise KeyError("again")


def again(number: int) -> rq.Retry:
    """Make a call in each attempt, and ask for one more."""
    parse(number)
    return rq.Retry(max=1)


def slow_task(truth: str) -> None:
    """Make ten calls, of which one fails, and a slow one, and note when it is done."""
    for number in range(CALLS):
        parse_or_not(number)
    slow(0)
    with open(truth, "a") as out:  # noqa: PTH123 - appends in one call, from several processes
        out.write(f"{time.time()}\n")


def killed_once() -> None:
    if rq.get_current_job().retries_left:
        end()
    parse(0)
