"""What the workers of several engines are given; they import it by its name."""

from __future__ import annotations

import time

import otel_pipeline_metrics as opm


@opm.process("parse")
def parse(number: int) -> int:
    """Give two items; one call in ten retries, and another one fails."""
    opm.current_stage().add_items(2)
    if number % 10 == 3:
        opm.current_stage().retry("again")
    if number % 10 == 5:
        raise ValueError("bad", number)
    return number


def parse_or_not(number: int) -> int | None:
    """Do the same, and return None of a call that fails."""
    try:
        return parse(number)
    except ValueError:
        return None


def slow(_: int) -> None:
    """Take a fifth of a second."""
    with opm.stage("slow"):
        time.sleep(0.2)
