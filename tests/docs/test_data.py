"""The files in docs/data have the shape and the counts that the documents describe."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from benchmarks import verdict
from benchmarks._pipelines import SOURCE
from tests.docs.markdown import ROOT, rows

PAGE: Final = ROOT / "docs" / "verdict-benches.md"
DATA: Final = ROOT / "docs" / "data" / "verdict-failures.json"

WHICH: Final = {"seed": str, "draws": str, "real_time": bool, "number": int}
VERDICT: Final = {
    **WHICH,
    "case": str,
    "demands_s": dict,
    "verdict": str,
    "named": list,
    "confidence": str,
    "drawn": (dict, type(None)),
}
SHARE: Final = {**WHICH, "off_simulation": float, "off_stop_watch": float}
DRAWN: Final = {"first": str, "ahead": float, "right": bool}


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def check(entry: dict[str, Any], shape: dict[str, Any]) -> None:
    assert list(entry) == list(shape)
    for key, kind in shape.items():
        assert isinstance(entry[key], kind), (key, entry)


def check_shape(data: dict[str, Any]) -> None:
    assert list(data) == ["schema", "verdicts", "shares"]
    assert data["schema"] == verdict.SCHEMA
    for entry in data["verdicts"]:
        check(entry, VERDICT)
        assert entry["draws"] in {"stratified", "random"}
        assert entry["case"] in verdict.CASES
        assert entry["confidence"] in {"low", "medium", "high"}
        assert 1 <= len(entry["demands_s"]) <= verdict.TOP_DEMANDS
        assert all(re.fullmatch(r"s\d", name) for name in entry["named"])
        assert all(name == SOURCE or re.fullmatch(r"s\d", name) for name in entry["demands_s"])
        if entry["drawn"] is not None:
            check(entry["drawn"], DRAWN)
    for entry in data["shares"]:
        check(entry, SHARE)
        assert entry["off_simulation"] > verdict.WITHIN


def test_the_failures_of_the_verdict_are_documented(data: dict[str, Any]) -> None:
    check_shape(data)
    named = {key for shape in (VERDICT, SHARE, DRAWN) for key in shape} | {"schema"}
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(key for key in named if f"`{key}`" not in text) == []


def test_the_page_counts_the_failures_of_the_file(data: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"by the parameters: {len(data['verdicts'])}." in text
    assert f"by more than 5 points: {len(data['shares'])}." in text
    table = {cells[0]: cells[1:] for cells in rows(PAGE)}

    def missed(row: str) -> int:
        parts = [re.match(r"([\d,]+) of ([\d,]+)", cell) for cell in table[row]]
        pairs = [[int(n.replace(",", "")) for n in part.groups()] for part in parts if part]
        return sum(of - held for held, of in pairs)

    assert len(data["verdicts"]) == sum(missed(text) for text in verdict.CASES.values())
    assert len(data["shares"]) == missed("shares of all stages within 5 points of the simulation")


@pytest.mark.slow
def test_the_benchmark_writes_the_documented_shape(data: dict[str, Any]) -> None:
    """Run a pipeline again that failed when the file was written."""
    first = next(entry for entry in data["verdicts"] if entry["draws"] == "random")
    found = verdict.bench("again", first["seed"], [first["number"]], draws="random")
    found.scores[0].right = False  # the verdict may be right by now
    again = verdict.failures([found])
    check_shape(again)
    assert again["verdicts"][0]["demands_s"] == first["demands_s"]
