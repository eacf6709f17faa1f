"""A report may come from anywhere: whatever its numbers are, there is a verdict, as plain data."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.flow import verdict_in_words
from tests.analysis.support import Data, own, queue, report, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES: tuple[Any, ...] = (None, 0, -1.5, 1e300, 1e-300, float("inf"), [], "x", {})


def rich() -> Data:
    """Return a report with all that a verdict reads."""
    levels = {1: (2, 0.03), 4: (500, 0.06)}
    known: Data = {"busiest_s": 99.0, "failed_s": 3.0, "retried": {"count": 5, "total_s": 2.0}}
    states = {"running": 50.0, "awaiting": 40.0}
    call = stage("call", busy=396, idle=4, workers=4, errors=9, retries=7) | known
    seen = {key: own("call", 396, 0.7, levels)[key] for key in ("self_s", "service_by_in_flight")}
    call |= seen | {"run_share": 0.7, "in_flight_avg": 3.9}
    call["time_s"] |= states
    data = report(
        [call, own("inner", 30, 0.2, levels, tasks=64), stage("write", busy=60, idle=30)],
        [queue("a", [], ["call"], blocked=70), queue("b", ["call"], [], blocked=50)],
        cpu=(0.4, 2, "host"),
        loop_delay_s=0.01,
    )
    data["resources"] |= {"gil_held": 0.9, "run_delay": 0.6}
    data["limits"] = [
        {"name": "l", "max": 2, "stages": [{"stage": "call", "held_s": 190.0, "waited_s": 9.0}]}
    ]
    return data


def places(data: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value inside of some data."""
    inside = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in inside:
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*before, key))


@pytest.mark.parametrize("seed", range(4))
def test_there_is_a_verdict_whatever_the_numbers_are(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secrets
    every = list(places(rich()))
    for _ in range(150):
        data = copy.deepcopy(rich())
        for path in rng.sample(every, rng.randint(1, 12)):
            place: Any = data
            for key in path[:-1]:
                # an earlier change may have replaced what led there
                exists = place.__class__ in (dict, list) and (
                    key in place if isinstance(place, dict) else key < len(place)
                )
                if not exists:
                    break
                place = place[key]
            else:
                if isinstance(place, dict):
                    place[path[-1]] = rng.choice(VALUES)
        found = analyze(data)
        assert found["why"]
        json.dumps(found, allow_nan=False)
        verdict_in_words(found)
