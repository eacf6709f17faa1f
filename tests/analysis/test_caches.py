"""Test the advice to make a cache larger."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report import RunReport
from tests.report import samples


def cache(name: str = "geo", ratio: float = 0.93, looks: int = 1_000, **what_if: Any) -> Any:
    hits = round(ratio * looks)
    return {"name": name, "hits": hits, "misses": looks - hits, "what_if": what_if or None}


def advice(*caches: Any) -> list[str]:
    found: list[str] = analyze({"caches": list(caches)})["advice"]
    return found


@pytest.mark.parametrize(
    ("what_if", "sentence"),
    [
        (
            {"twice": 0.97, "four_times": 0.98},
            "Cache geo would hit more often, with twice the entries: 0.97 instead of 0.93.",
        ),
        (
            {"twice": 0.96, "four_times": 0.99},
            (
                "Cache geo would hit more often, with twice the entries: 0.96 instead of 0.93, "
                "four times: 0.99."
            ),
        ),
        (
            {"half": 0.2, "twice": 0.94, "four_times": 0.96},
            "Cache geo would hit more often, with four times the entries: 0.96 instead of 0.93.",
        ),
        (
            {"twice": None, "four_times": 0.96},
            "Cache geo would hit more often, with four times the entries: 0.96 instead of 0.93.",
        ),
    ],
)
def test_a_larger_size_is_advised(what_if: dict[str, Any], sentence: str) -> None:
    assert advice(cache(**what_if)) == [sentence]


@pytest.mark.parametrize(
    "found",
    [
        cache(twice=0.949, four_times=0.949),  # within the error
        cache(looks=99, twice=1.0, four_times=1.0),
        cache(half=0.9),
        cache(),
        {"name": "empty", "hits": 0, "misses": 0, "what_if": {"twice": 1.0}},
        {"name": "damaged", "what_if": {"twice": 1.0}},
    ],
    ids=["no gain", "few", "unknown", "not asked", "not used", "damaged"],
)
def test_otherwise_there_is_no_advice(found: dict[str, Any]) -> None:
    assert advice(found) == []


def test_the_three_caches_with_the_most_to_gain_are_named() -> None:
    caches = [cache(f"c{n}", 0.5, 1_000 * n, twice=0.6) for n in range(1, 6)]
    assert [sentence.split()[1] for sentence in advice(*caches)] == ["c5", "c4", "c3"]


def test_it_is_part_of_every_verdict_and_on_the_console_without_one() -> None:
    sentence = "Cache geo would hit more often, with twice the entries: 0.97 instead of 0.93."
    data = samples.full_data() | {"caches": [cache(twice=0.97)]}
    data["bottleneck"] = analyze(data)
    assert data["bottleneck"]["advice"][-1] == sentence
    assert RunReport(data).render().count(sentence) == 1
    data |= {"stages": [], "queues": []}
    data["bottleneck"] = analyze(data)
    assert data["bottleneck"]["kind"] == "unknown"
    assert RunReport(data).render().count(sentence) == 1
