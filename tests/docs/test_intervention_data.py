"""docs/data/intervention-failures.json has the counts of the table in docs/verdict.md."""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.interventions import experiments
from benchmarks.interventions.figures import SCHEMA
from tests.docs.markdown import ROOT


def test_failures_are_as_many_as_the_table_tells() -> None:
    data: dict[str, Any] = json.loads(
        (ROOT / "docs" / "data" / "intervention-failures.json").read_text(encoding="utf-8")
    )
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    table = page.split("benchmarks/interventions/__main__.py -->")[1].split("<!-- end")[0]

    assert data["schema"] == SCHEMA
    assert data["failed"] == []
    for outcome, label in (("wrong", "wrong"), ("unknown", "`unknown`")):
        row = next(line for line in table.splitlines() if line.startswith(f"| {label} |"))
        told = sum(int(count) for count in re.findall(r"(\d+) of \d+", row))
        assert told == sum(one["outcome"] == outcome for one in data["verdicts"])
    for one in data["verdicts"]:
        assert one["best"] is None or one["best"] in one["gains"]
    for told_range in data["ranges"]:
        low, high = told_range["gain"]
        assert not low < told_range["measured"] < high


def test_predictions_are_as_many_as_the_table_tells() -> None:
    data: dict[str, Any] = json.loads(
        (ROOT / "docs" / "data" / "experiment-predictions.json").read_text(encoding="utf-8")
    )
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    table = page.split("benchmarks/interventions/experiments.py -->")[1].split("<!-- end")[0]
    row = next(line for line in table.splitlines() if "`null`" in line)
    fields = (ROOT / "docs" / "verdict-benches.md").read_text(encoding="utf-8")

    assert data["schema"] == experiments.SCHEMA
    told = [
        sum(map(int, counts))
        for counts in zip(*re.findall(r"(\d+), (\d+), (\d+)", row), strict=True)
    ]
    none = [one for one in data["predictions"] if one["predicted"] is None]
    known = [one for one in data["predictions"] if one["predicted"] is not None]
    near = [one for one in known if abs(one["predicted"] - one["measured"]) <= experiments.NEAR]
    assert told == [len(near), len(known) - len(near), len(none)]
    assert all(one["why"] for one in none)
    assert [key for key in data["predictions"][0] if f"`{key}`" not in fields] == []
