"""A small part of `benchmarks/verdict.py`, to detect changes that harm the verdict."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import _virtual_time, verdict
from benchmarks._scoring import score

SEED = "tests"
COUNT = 60


@pytest.mark.slow
def test_verdicts_on_random_pipelines_are_right() -> None:
    """The limiting stage is known from the parameters, the shares from a simulation."""
    scores = [score(SEED, number, "stratified") for number in range(COUNT)]

    assert {"stage", "source", "tie"} <= {found.truth.case for found in scores}
    assert [found.number for found in scores if not found.right] == []
    assert [found.number for found in scores if found.worst_watch > 0.01] == []
    assert sum(found.worst_share <= 0.05 for found in scores) >= 0.95 * COUNT


def test_runs_of_the_same_seed_print_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        verdict.main(["--count", "3", "--seed", "7"])
        outputs.append(capsys.readouterr().out)

    without_time = ["\n".join(o for o in out.splitlines() if "took" not in o) for out in outputs]
    assert without_time[0] == without_time[1]
    assert "| pipelines | 3 |" in outputs[0]


def test_virtual_time_is_exact() -> None:
    async def nap() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - began

    assert _virtual_time.run(nap()) == 3600.0


def test_virtual_time_detects_a_deadlock() -> None:
    async def forever() -> None:
        await asyncio.Queue[int]().get()

    with pytest.raises(RuntimeError, match="deadlock"):
        _virtual_time.run(forever())
