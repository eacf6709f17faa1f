"""Check whether the verdict is right, on random pipelines whose limiting stage is known.

    python -m benchmarks.verdict                        # 1,000 pipelines, seed 1
    python -m benchmarks.verdict --seed 1 --seed fresh --write docs/verdict-benches.md
    python -m benchmarks.verdict --data docs/data/verdict-failures.json    # each failure
    python -m benchmarks.verdict --seed 1 --only 471    # one of them, in full

Every pipeline is run by the library itself, on an event loop whose clock jumps from timer to
timer, and a few on a real one.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._document import put
from benchmarks._scoring import Score, is_right, score

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks._pipelines import Draws

CASES: Final = {
    "stage": "one stage slowest by 10 % or more: that stage named, alone",
    "source": "the source slowest by 10 % or more: named as the source",
    "tie": "the two slowest within 5 %: called a tie of just those",
    "between": "5 to 10 % apart: one of the two named, or their tie",
}
WITHIN: Final = 0.05
SCHEMA: Final = "otel_pipeline_metrics/verdict-failures/1"
# Of a pipeline, the demands that are written down.
TOP_DEMANDS: Final = 3


@dataclass
class Bench:
    """One column of the table."""

    title: str
    seed: str
    scores: list[Score]
    took_s: float
    draws: Draws = "stratified"
    real_time: bool = False

    def of(self, case: str) -> list[Score]:
        return [found for found in self.scores if found.truth.case == case]

    @property
    def failures(self) -> list[Score]:
        return [found for found in self.scores if not found.right]


def bench(
    title: str,
    seed: str,
    numbers: Iterable[int],
    *,
    draws: Draws = "stratified",
    real_time: bool = False,
    causes: bool = False,
) -> Bench:
    """Run the pipelines with these numbers."""
    began = time.perf_counter()
    scores = [score(seed, n, draws, real_time=real_time, causes=causes) for n in numbers]
    took_s = time.perf_counter() - began
    return Bench(title, seed, scores, took_s, draws, real_time)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where it falls short of what is promised."""
    asked = _parser().parse_args(arguments)
    seeds = [secrets.token_hex(4) if s == "fresh" else s for s in asked.seed or ["1"]]
    if asked.only is not None:
        _in_full(score(seeds[0], asked.only, asked.draws, causes=True))
        return 0
    benches = [
        bench(
            f"seed `{seed}`{' (fresh)' if was == 'fresh' else ''}",
            seed,
            range(asked.count),
            draws=asked.draws,
            causes=True,
        )
        for seed, was in zip(seeds, asked.seed or ["1"], strict=True)
    ]
    held = all(map(_holds, benches))
    if asked.random:
        seed = seeds[-1]
        title = f"seed `{seed}`, independent draws"
        benches.append(bench(title, seed, range(asked.random), draws="random", causes=True))
    if asked.real:
        benches.append(
            bench(f"seed `{seeds[0]}`, real time", seeds[0], range(asked.real), real_time=True)
        )
    text = figures(benches)
    print(text)
    if asked.write is not None:
        put(Path(asked.write), "verdict", text)
    if asked.data is not None:
        text = json.dumps(failures(benches), indent=1) + "\n"
        Path(asked.data).write_text(text, encoding="utf-8")
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=1000, help="pipelines for each seed")
    parser.add_argument("--seed", action="append", help="any text, or `fresh`; may be repeated")
    parser.add_argument("--draws", choices=("stratified", "random"), default="stratified")
    parser.add_argument("--random", type=int, default=0, help="so many with independent draws too")
    parser.add_argument("--real", type=int, default=0, help="so many in real time too")
    parser.add_argument("--only", type=int, help="one pipeline, in full")
    parser.add_argument("--write", help="the document whose figures to replace")
    parser.add_argument("--data", help="the file to write each failure to, as JSON")
    return parser


def _holds(found: Bench) -> bool:
    clear = found.of("stage")
    return (
        _rate([s.right for s in clear]) >= 0.99
        and _rate([s.right for s in found.of("source")]) >= 0.99
        and _rate([s.right for s in found.of("tie")]) >= 0.99
        and _rate([s.worst_share <= WITHIN for s in found.scores]) >= 0.99
    )


# --- the table -----------------------------------------------------------------------------------


def figures(benches: Sequence[Bench]) -> str:
    """Return the table, and how many failures there are, in Markdown."""
    head = ["", *(b.title for b in benches)]
    rows = [["pipelines", *(f"{len(b.scores):,}" for b in benches)]]
    rows += [
        [text, *(_part([s.right for s in b.of(case)]) for b in benches)]
        for case, text in CASES.items()
    ]
    rows += [
        [
            "shares of all stages within 5 points of the simulation",
            *(_part([s.worst_share <= WITHIN for s in b.scores]) for b in benches),
        ],
        [
            "largest difference of a share, points",
            *(f"{100 * max(s.worst_share for s in b.scores):.1f}" for b in benches),
        ],
        [
            "the same against a stopwatch in the same run, points",
            *(f"{100 * max(s.worst_watch for s in b.scores):.3f}" for b in benches),
        ],
        [
            "busy share of every stage within 5 points of demand over largest demand",
            *(_part([max(s.share_formula_errors) <= WITHIN for s in b.scores]) for b in benches),
        ],
        [
            "busy time over the run's within 5 points of demand over largest demand, all stages",
            *(_part([s.worst_formula <= WITHIN for s in b.scores]) for b in benches),
        ],
        ["named stage or source is what a run gains most from", *map(_causes, benches)],
        [
            "gain of one more worker, predicted minus simulated: median",
            *(_gain(b, 0.5) for b in benches),
        ],
        ["the same, 5th to 95th percentile", *(_gain(b, 0.95) for b in benches)],
        ["right where confidence was high", *(_by(b, "high") for b in benches)],
        ["... medium", *(_by(b, "medium") for b in benches)],
        ["... low", *(_by(b, "low") for b in benches)],
        [
            "wrong by the parameters, right (same rules) by what was drawn",
            *map(_by_chance, benches),
        ],
        ["took", *(f"{b.took_s:.0f} s" for b in benches)],
    ]
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    found = failures(benches)
    return (
        f"{table}\n\nVerdicts that are not right by the parameters: {len(found['verdicts'])}. "
        f"Pipelines with a share off by more than 5 points: {len(found['shares'])}."
    )


# --- the failures --------------------------------------------------------------------------------


def failures(benches: Sequence[Bench]) -> dict[str, Any]:
    """Return every single failure as plain data; `docs/verdict-benches.md` describes the fields."""
    return {
        "schema": SCHEMA,
        "verdicts": [
            {**_which(found, wrong), **_verdict_of(wrong)}
            for found in benches
            for wrong in found.failures
        ],
        "shares": [
            {
                **_which(found, odd),
                "off_simulation": round(odd.worst_share, 3),
                "off_stop_watch": round(odd.worst_watch, 5),
            }
            for found in benches
            for odd in found.scores
            if odd.worst_share > WITHIN
        ],
    }


def _which(found: Bench, one: Score) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "draws": found.draws,
        "real_time": found.real_time,
        "number": one.number,
    }


def _verdict_of(wrong: Score) -> dict[str, Any]:
    demands = sorted(wrong.pipeline.demands().items(), key=lambda item: -item[1])
    verdict, drawn = wrong.verdict, wrong.drawn
    named = verdict["ties"] or ([verdict["stage"]] if verdict["stage"] is not None else [])
    return {
        "case": wrong.truth.case,
        "demands_s": {name: round(demand, 2) for name, demand in demands[:TOP_DEMANDS]},
        "verdict": verdict["kind"],
        "named": list(named),
        "confidence": verdict["confidence"],
        "drawn": None
        if drawn is None
        else {
            "first": drawn.first,
            "ahead": round(drawn.ratio - 1, 3),
            "right": is_right(drawn, verdict),
        },
    }


def _rate(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 1.0


def _part(found: Sequence[bool]) -> str:
    if not found:
        return "-"
    return f"{sum(found):,} of {len(found):,} ({100 * _rate(found):.1f} %)"


def _by(found: Bench, confidence: str) -> str:
    return _part([s.right for s in found.scores if s.verdict["confidence"] == confidence])


def _by_chance(found: Bench) -> str:
    """Tell of how many failures the draws are the reason: judged alike, but by what was drawn."""
    wrong = found.failures
    chance = [s for s in wrong if s.drawn is not None and is_right(s.drawn, s.verdict)]
    return f"{len(chance)} of {len(wrong)}" if wrong else "-"


def _named(found: Score) -> str | None:
    if found.verdict["kind"] == "source":
        return "(source)"
    name: str | None = found.verdict["stage"]
    return name


def _causes(found: Bench) -> str:
    return _part([_named(s) == s.causal for s in found.scores if s.causal is not None])


def _gain(found: Bench, quantile: float) -> str:
    """Return how far the gains were off, in points of throughput."""
    off = sorted(told - true for s in found.scores if s.gains for told, true in [s.gains])
    if not off:
        return "-"
    if quantile == 0.5:
        return f"{100 * statistics.median(off):+.1f} points"
    low, high = (off[round((len(off) - 1) * q)] for q in (1 - quantile, quantile))
    return f"{100 * low:+.0f} to {100 * high:+.0f} points"


def _in_full(found: Score) -> None:
    pipeline = found.pipeline
    print(pipeline.topology, pipeline.items, "items,", pipeline.capacities)
    print("arrivals", pipeline.arrivals, pipeline.arrival_s, pipeline.arrival_shape)
    for stage in pipeline.stages:
        print(stage)
    print("demands", pipeline.demands())
    print(found.truth, "drawn:", found.drawn, "causal:", found.causal)
    print("gains (told, simulated)", found.gains, "worst share", found.worst_share)
    print("right" if found.right else "wrong", json.dumps(found.verdict, indent=2))


if __name__ == "__main__":
    raise SystemExit(main())
