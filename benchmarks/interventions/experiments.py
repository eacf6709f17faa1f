"""Check what experiments predict: the truth is what a stage that is twice as fast gains.

    python -m benchmarks.interventions.experiments              # the 20 least sure shapes, seed 1
    python -m benchmarks.interventions.experiments FILE.py --shapes 5 --seed fresh
    python -m benchmarks.interventions.experiments --only NAME
    python -m benchmarks.interventions.experiments --write docs/verdict.md --data docs/data/...

Shapes are those of the other bench. Each is run as it is, which gives a verdict and how sure that
is, and with every stage twice as fast. Those with the lowest confidence are then run again and
again for 60 seconds, in one run that experiments: in virtual time where that is possible.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import random
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from benchmarks._document import put
from benchmarks.interventions import running
from benchmarks.interventions.__main__ import own_files
from benchmarks.interventions.running import Shape, load, trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.interventions.running import Shapes, Trial

SCHEMA: Final = "otel_pipeline_metrics/experiment-predictions/1"

# A prediction is right within so many points of throughput, as a fraction.
NEAR: Final = 0.10
# Shapes in which something gains more than this are the ones that matter.
MUCH: Final = 0.20
SECONDS: Final = 60.0
SHAPES: Final = 20

_ORDER: Final = (None, "low", "medium", "high")


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one stage, and what it gains."""

    stage: str
    predicted: float | None
    interval: list[float] | None
    measured: float
    why: str | None

    @property
    def is_near(self) -> bool:
        return self.predicted is not None and abs(self.predicted - self.measured) <= NEAR


@dataclass(frozen=True)
class Tried:
    """One shape with experiments."""

    trial: Trial
    predictions: list[Prediction]
    slowed: float

    @property
    def is_right(self) -> bool:
        """Whether every stage's gain is near; one that is not predicted is not."""
        return all(one.is_near for one in self.predictions)

    @property
    def best(self) -> float:
        return max((one.measured for one in self.predictions), default=0.0)

    @property
    def confidence(self) -> str | None:
        found: str | None = self.trial.report["bottleneck"]["confidence"]
        return found


@dataclass
class Bench:
    """The shapes that were tried with one seed."""

    title: str
    tried: list[Tried] = field(default_factory=list)

    @property
    def predictions(self) -> list[Prediction]:
        return [one for shape in self.tried for one in shape.predictions]


def holds(bench: Bench) -> bool:
    """Tell whether the predictions are what docs/verdict.md promises."""
    return (
        sum(one.is_right for one in bench.tried) >= 0.75 * len(bench.tried)
        and 2 * sum(one.best > MUCH for one in bench.tried) >= len(bench.tried)
        and all(one.slowed <= 0.1 for one in bench.tried)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where it falls short of what is promised."""
    asked = _parser().parse_args(arguments)
    files = [load(path) for path in asked.files or own_files()]
    benches = []
    for was in asked.seed or ["1"]:
        seed = secrets.token_hex(4) if was == "fresh" else was
        bench = Bench(f"seed `{seed}`{' (fresh)' if was == 'fresh' else ''}")
        benches.append(bench)
        for shapes, found in _least_sure(files, seed, asked.only, asked.shapes, real=asked.real):
            bench.tried.append(_tried(shapes, found, seed))
            print(_line(bench.tried[-1]), flush=True)
    text = figures(benches)
    print("\n" + text)
    if asked.write is not None:
        put(Path(asked.write), "interventions/experiments", text)
    if asked.data is not None:
        data = json.dumps(predictions(benches), indent=1, ensure_ascii=False) + "\n"
        Path(asked.data).write_text(data, encoding="utf-8")
    return 0 if all(map(holds, benches)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interventions.experiments")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.py", help="files with SHAPES")
    parser.add_argument("--seed", action="append", help="any text, or `fresh`; may be repeated")
    parser.add_argument("--only", help="one shape")
    parser.add_argument("--shapes", type=int, default=SHAPES, help="how many")
    parser.add_argument("--real", action="store_true", help="those that compute too")
    parser.add_argument("--write", help="the document whose figures to replace")
    parser.add_argument("--data", help="the file to write each prediction to, as JSON")
    return parser


def _least_sure(
    files: Sequence[Shapes], seed: str, only: str | None, count: int, *, real: bool
) -> Iterator[tuple[Shapes, Trial]]:
    """Yield the shapes whose verdict is least sure, and what changes to them gain."""
    found: list[tuple[Shapes, Trial]] = []
    for shapes in files:
        for name, shape in shapes.real.items():
            stages = any(key.startswith("faster:") for key in shape.interventions)
            if not stages or only not in {None, name} or (shape.real_time and not real):
                continue
            try:
                found.append((shapes, trial(shapes, name, seed)))
            except Exception as error:
                print(f"{name} failed: {error!r}", file=sys.stderr)
    found.sort(key=lambda one: _ORDER.index(one[1].report["bottleneck"]["confidence"]))
    yield from found[:count]


def _tried(shapes: Shapes, found: Trial, seed: str) -> Tried:
    with running.quiet():
        if found.real_time:
            report = _again_and_again(shapes.real[found.shape.name], seed)
        else:
            with _virtual_time.virtual_time():
                report = _again_and_again(shapes.virtual[found.shape.name], seed)
    rows = {row["name"]: row for row in report["bottleneck"]["experiments"]}
    predicted = []
    for key, gain in found.gains.items():
        change, _, stage = key.partition(":")
        if change == "faster":
            row = rows.get(stage) or {"predicted": None, "interval": None, "why": "it did not run"}
            one = Prediction(stage, row["predicted"], row["interval"], gain, row["why"])
            predicted.append(one)
    return Tried(found, predicted, report["run"]["experiment"]["slowed"])


def _again_and_again(shape: Shape, seed: str) -> dict[str, Any]:
    """Run a shape for 60 seconds, with the same times each time; return the report."""
    main: Any = shape.main

    def left(began: float) -> bool:
        random.seed(f"{seed}/{shape.name}")
        return time.perf_counter() - began < SECONDS

    async def coroutine() -> Any:
        async with opm.run("shape", resources=False, experiment=True) as run:
            began = time.perf_counter()
            while left(began):
                await main()
        return run

    if inspect.iscoroutinefunction(main):
        run = asyncio.run(coroutine())
    else:
        with opm.run("shape", resources=False, experiment=True) as run:
            began = time.perf_counter()
            while left(began):
                main()
    found: dict[str, Any] = run.report.to_dict()
    return found


def _line(tried: Tried) -> str:
    told = ", ".join(f"{one.stage} {_told(one)}" for one in tried.predictions)
    shape = tried.trial.shape
    return (
        f"{'right' if tried.is_right else 'off':5} {shape.family}/{shape.name} "
        f"({tried.confidence}): {told}; slowed by {100 * tried.slowed:.1f} %"
    )


def _told(one: Prediction) -> str:
    predicted = "null" if one.predicted is None else _points(one.predicted)
    return f"{predicted} ({_points(one.measured)})"


def figures(benches: Sequence[Bench]) -> str:
    """Return the table in Markdown."""
    rows = [
        ["", *(b.title for b in benches)],
        ["---"] * (len(benches) + 1),
        ["shapes", *(f"{len(b.tried)}" for b in benches)],
        [
            "every stage's gain within 10 points",
            *(f"{sum(one.is_right for one in b.tried)} of {len(b.tried)}" for b in benches),
        ],
        [
            "with a best gain over 20 %; of these right",
            *(
                f"{len(much)}; {sum(one.is_right for one in much)}"
                for b in benches
                for much in [[one for one in b.tried if one.best > MUCH]]
            ),
        ],
        [
            "stages: within 10 points, further off, `null`",
            *(
                f"{sum(one.is_near for one in b.predictions)}, "
                f"{sum(one.predicted is not None and not one.is_near for one in b.predictions)}, "
                f"{sum(one.predicted is None for one in b.predictions)}"
                for b in benches
            ),
        ],
        [
            "intervals that hold the measured gain, within 2 points",
            *(
                f"{sum(map(_holds, told))} of {len(told)}"
                for b in benches
                for told in [[one for one in b.predictions if one.interval is not None]]
            ),
        ],
        [
            "runs slowed by, at most",
            *(f"{100 * max((one.slowed for one in b.tried), default=0):.1f} %" for b in benches),
        ],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _holds(one: Prediction) -> bool:
    assert one.interval is not None
    return one.interval[0] - 0.02 <= one.measured <= one.interval[1] + 0.02


def predictions(benches: Sequence[Bench]) -> dict[str, Any]:
    """Return every prediction as plain data."""
    return {
        "schema": SCHEMA,
        "predictions": [
            {
                "seed": one.trial.seed,
                "shape": one.trial.shape.name,
                "real_time": one.trial.real_time,
                "confidence": one.confidence,
                "slowed": one.slowed,
                "stage": told.stage,
                "predicted": told.predicted,
                "interval": told.interval,
                "measured": round(told.measured, 3),
                "why": told.why,
            }
            for bench in benches
            for one in bench.tried
            for told in one.predictions
        ],
    }


def _points(gain: float) -> str:
    return f"{100 * gain:+.0f}"


if __name__ == "__main__":
    raise SystemExit(main())
