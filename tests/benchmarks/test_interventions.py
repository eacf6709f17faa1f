"""The bench of interventions: which verdicts it calls right, and that it runs a file as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.interventions import __main__ as bench
from benchmarks.interventions.figures import Bench, holds
from benchmarks.interventions.judging import Judgement, judge
from benchmarks.interventions.running import NotVirtualError, Shape, Trial, load, trial

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = """
import asyncio, queue, threading, time
from beside import line
import otel_pipeline_metrics as opm

opm.configure(exporter="none", console=False)

async def three(fetch=0.004, parse=0.020):
    return await line(40, fetch, parse)

def threads(read=0.003, write=0.010):
    q = opm.wrap_queue(queue.Queue(4), name="q")

    @opm.fetch("read")
    def reads(n):
        time.sleep(read)
        return n

    @opm.write("write")
    def writes(n):
        time.sleep(write)

    def consume():
        while (n := q.get()) is not None:
            writes(n)

    thread = threading.Thread(target=consume)
    thread.start()
    for n in range(40):
        q.put(reads(n))
    q.put(None)
    thread.join()
    return 40

def computes(twice=False):
    until = time.thread_time() + (0.01 if twice else 0.02)
    while time.thread_time() < until:
        pass
    return 1

SHAPES = {
    "right": ("lines", three, {"faster:fetch": {"fetch": 0.002}, "faster:parse": {"parse": 0.010}}),
    # the file has them the wrong way round, so what the verdict names gains nothing
    "wrong": ("lines", three, {"faster:parse": {"fetch": 0.002}, "faster:fetch": {"parse": 0.010}}),
    "in threads": ("threads", threads, {"faster:read": {"read": 0.0015}, "workers:write": {}}),
    "computing": ("computing", computes, {"faster:computes": {"twice": True}}),
}
"""

BESIDE = """
import asyncio
import otel_pipeline_metrics as opm

async def line(items, fetch_s, parse_s):
    q = opm.wrap_queue(asyncio.Queue(4), name="q")

    @opm.fetch("fetch")
    async def fetch(n):
        await asyncio.sleep(fetch_s)
        return n

    @opm.process("parse")
    async def parse(n):
        await asyncio.sleep(parse_s)

    async def produce():
        for n in range(items):
            await q.put(await fetch(n))
        await q.put(None)

    async def consume():
        while (n := await q.get()) is not None:
            await parse(n)

    await asyncio.gather(produce(), consume())
    return items
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text(BESIDE, encoding="utf-8")
    path = tmp_path / "shapes_of_others.py"
    path.write_text(SHAPES, encoding="utf-8")
    return path


def test_gains_are_measured_in_virtual_time(file: Path) -> None:
    found = trial(load(file), "right", "1")

    assert not found.real_time
    # the last one of 40 is begun when 39 have been parsed, and the first one was fetched
    assert found.throughput == pytest.approx(40 / (0.004 + 40 * 0.020))
    assert found.gains["faster:parse"] == pytest.approx((0.004 + 0.8) / (0.004 + 0.4) - 1)
    assert found.gains["faster:fetch"] == pytest.approx(0.804 / 0.802 - 1)


def test_threads_run_in_virtual_time_too(file: Path) -> None:
    found = trial(load(file), "in threads", "1")

    assert not found.real_time
    assert found.throughput == pytest.approx(40 / (0.003 + 40 * 0.010))
    assert found.gains == pytest.approx({"faster:read": 0.403 / 0.4015 - 1, "workers:write": 0.0})


def test_what_computes_runs_in_real_time(file: Path) -> None:
    found = trial(load(file), "computing", "1")

    assert found.real_time
    assert found.why_real is not None
    assert "computes" in found.why_real
    with pytest.raises(NotVirtualError, match="computes"):
        trial(load(file), "computing", "1", "virtual")


def test_a_verdict_is_right_if_what_it_names_gains_most(file: Path) -> None:
    """The same pipeline, but in the second one the file says that the other stage gains."""
    shapes = load(file)

    right, wrong = (judge(trial(shapes, name, "1")) for name in ("right", "wrong"))

    assert (right.verdict["stage"], right.outcome, right.best) == ("parse", "right", "faster:parse")
    assert (wrong.verdict["stage"], wrong.outcome, wrong.best) == ("parse", "wrong", "faster:fetch")


def test_the_command_writes_each_failure(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "failures.json"

    code = bench.main([str(file), "--seed", "3", "--data", str(data)])

    assert code == 1
    assert "**lines 1 of 2**." in capsys.readouterr().out
    found = json.loads(data.read_text(encoding="utf-8"))
    wrong = next(one for one in found["verdicts"] if one["shape"] == "wrong")
    assert (wrong["seed"], wrong["family"], wrong["outcome"]) == ("3", "lines", "wrong")
    assert (wrong["verdict"]["stage"], wrong["best"]) == ("parse", "faster:fetch")
    assert found["failed"] == []


def test_a_shape_that_fails_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails in virtual and in real time; the others are judged all the same."""
    file.write_text(
        SHAPES + "\ndef fails(): raise ZeroDivisionError('here')\n"
        "SHAPES = {'fails': ('bad', fails, {}), 'right': SHAPES['right']}\n",
        encoding="utf-8",
    )

    assert bench.main([str(file)]) == 1

    out, err = capsys.readouterr()
    assert "Right by family: lines 1 of 1." in out
    assert "fails failed: ZeroDivisionError('here')" in err


def test_a_file_without_shapes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.py"
    path.write_text("SHAPE = {}\n", encoding="utf-8")

    with pytest.raises(ValueError, match=r"none\.py has no SHAPES"):
        load(path)


@pytest.mark.parametrize(
    ("verdict", "gains", "outcome"),
    [
        # within 5 points of the best
        ({"kind": "stage", "stage": "a"}, {"faster:a": 0.30, "workers:a": 0.34}, "right"),
        ({"kind": "stage", "stage": "a"}, {"faster:a": 0.30, "workers:a": 0.36}, "wrong"),
        ({"kind": "workers", "stage": "a"}, {"faster:a": 0.30, "workers:a": 0.36}, "right"),
        ({"kind": "serial", "stage": "a"}, {"faster:a": 0.30}, "right"),
        ({"kind": "skew", "stage": "a"}, {"faster:a": 0.30, "faster:b": 0.36}, "wrong"),
        ({"kind": "event loop", "stage": "a"}, {"faster:a": 0.30}, "right"),
        # a limit is tested by raising it, by its name or by its stage's
        ({"kind": "limit", "name": "pool"}, {"limit:pool": 0.9, "faster:a": 0.9}, "right"),
        ({"kind": "limit", "stage": "a"}, {"limit:a": 0.9}, "right"),
        ({"kind": "limit", "name": "other"}, {"limit:pool": 0.9}, "wrong"),
        ({"kind": "stage", "stage": "a"}, {"limit:a": 0.9}, "wrong"),
        # kinds that the file names
        ({"kind": "undecorated", "name": "q"}, {"undecorated": 0.9, "faster:a": 0.0}, "right"),
        ({"kind": "undecorated", "name": "q"}, {"undecorated:q": 0.9}, "right"),
        ({"kind": "undecorated", "name": "p"}, {"undecorated:q": 0.9}, "wrong"),
        ({"kind": "source"}, {"source": 0.4, "faster:a": 0.42}, "right"),
        ({"kind": "cpu", "stage": "a"}, {"faster:a": 0.4}, "wrong"),
        ({"kind": "gil", "stage": "a"}, {"gil": 0.4, "faster:a": 0.4}, "right"),
        ({"kind": "errors", "stage": "a"}, {"errors": -0.4, "faster:a": 0.4}, "wrong"),
        ({"kind": "unknown"}, {"faster:a": 0.4}, "unknown"),
        # a tie is right only where neither stage alone gains
        ({"kind": "tie", "ties": ["b", "a"]}, {"faster:a": 0.01, "tie:a,b": 0.5}, "right"),
        ({"kind": "tie", "ties": ["a", "c"]}, {"faster:a": 0.01, "tie:a,b": 0.5}, "wrong"),
        ({"kind": "tie", "ties": ["a", "b"]}, {"faster:a": 0.01, "tie": 0.5}, "right"),
        ({"kind": "tie", "ties": ["a", "b"]}, {"faster:a": 0.30, "tie": 0.5}, "wrong"),
        ({"kind": "stage", "stage": "a"}, {"faster:a": 0.30, "tie": 0.5}, "right"),
        # nothing gains: only the kind that the file names
        ({"kind": "machine"}, {"faster:a": 0.01, "machine": 0.0}, "right"),
        ({"kind": "stage", "stage": "a"}, {"faster:a": 0.01, "machine": 0.0}, "wrong"),
        ({"kind": "unknown"}, {"faster:a": 0.01, "unknown": 0.0}, "right"),
        ({"kind": "stage", "stage": "a"}, {"faster:a": 0.01, "workers:a": 0.0}, "no answer"),
    ],
)
def test_outcomes(verdict: dict[str, Any], gains: dict[str, float], outcome: str) -> None:
    assert judged(verdict, gains).outcome == outcome


def test_a_gain_of_a_faster_stage_is_not_compared_with_that_of_no_errors() -> None:
    entry = {"change": "faster", "name": "a", "stage": "a", "by": 2, "gain": [0.2, 0.4]}
    verdict = {"kind": "errors", "name": "a", "stage": "a", "what_if": [entry]}
    assert [told.measured for told in judged(verdict, {"errors": 0.3}).ranges] == [None]
    source = verdict | {"kind": "source"}
    assert [told.measured for told in judged(source, {"source": 0.3}).ranges] == [0.3]


def test_told_ranges_are_compared_with_what_was_measured() -> None:
    def told(change: str, name: str, by: int, gain: list[float]) -> dict[str, Any]:
        return {"change": change, "name": name, "stage": name, "by": by, "gain": gain, "next": None}

    what_if = [
        told("faster", "a", 2, [0.2, 0.4]),
        told("workers", "a", 1, [0.5, 0.7]),
        told("workers", "a", 8, [0.5, 0.7]),
        told("faster", "b", 2, [0.0, 0.1]),
    ]

    found = judged(
        {"kind": "stage", "stage": "a", "what_if": what_if}, {"faster:a": 0.4, "workers:a": 0.4}
    ).ranges

    assert [(r.measured, r.holds) for r in found] == [
        (0.4, True),
        (0.4, False),
        (None, None),
        (None, None),
    ]
    assert [round(r.width, 3) for r in found] == [0.2, 0.2, 0.2, 0.1]


@pytest.mark.parametrize(
    ("confidence", "gain", "kept"),
    [("high", [0.3, 0.5], True), ("low", [0.3, 0.5], False), ("high", [0.1, 0.3], False)],
)
def test_what_is_promised(confidence: str, gain: list[float], kept: bool) -> None:
    """Half of the right ones have high confidence, and the ranges hold the gain."""
    what_if = [{"change": "faster", "name": "a", "stage": "a", "by": 2, "gain": gain, "next": None}]
    verdict = {"kind": "stage", "stage": "a", "confidence": confidence, "what_if": what_if}

    assert holds(Bench("", [judged(verdict, {"faster:a": 0.4})])) is kept


def test_one_wrong_verdict_with_high_confidence_is_too_much() -> None:
    right = judged({"kind": "stage", "stage": "a", "confidence": "high"}, {"faster:a": 0.4})
    wrong = {"kind": "stage", "stage": "b", "confidence": "low"}
    gains = {"faster:a": 0.4, "faster:b": 0.0}

    assert holds(Bench("", [*[right] * 39, judged(wrong, gains)]))
    assert not holds(Bench("", [*[right] * 39, judged(wrong | {"confidence": "high"}, gains)]))


def judged(verdict: dict[str, Any], gains: dict[str, float]) -> Judgement:
    whole = {"name": None, "stage": None, "confidence": "low", "ties": [], "what_if": [], **verdict}
    shape = Shape("shape", "family", lambda: 1, {}, False)
    return judge(Trial(shape, "1", False, {"bottleneck": whole}, 1.0, gains))
