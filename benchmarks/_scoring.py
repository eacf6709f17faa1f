"""Compare the verdict on one random pipeline with the truth."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks._pipelines import SOURCE, random_pipeline, truth
from benchmarks._reference import simulate
from benchmarks._running import measured
from otel_pipeline_metrics.analysis import analyze

if TYPE_CHECKING:
    from benchmarks._pipelines import Draws, Pipeline, Truth
    from benchmarks._reference import Outcome

STATES = ("busy", "idle", "blocked")
FASTER = 0.8
"""What the service times of a stage are shortened to, to see what that does to the run."""


@dataclass
class Score:
    """The score of the verdict on one pipeline."""

    number: int
    pipeline: Pipeline
    truth: Truth
    verdict: dict[str, Any]
    right: bool
    share_errors: list[float]
    """Of each stage and state: share measured less share simulated."""
    watch_errors: list[float]
    """The same, less what a stop watch around gets and puts had in this very run."""
    share_formula_errors: list[float]
    """Of each stage: busy share less demand over the largest demand."""
    formula_errors: list[float]
    """Of each stage: busy time of a worker over the run's, less what the demands alone say."""
    causal: str | None = None
    """What the run gains most from if it gets faster, by simulation; None: not tried."""
    gains: tuple[float, float] | None = None
    """What one more worker gains, as told and as simulated."""
    drawn: Truth | None = None
    """What limits this very run, by the times that were drawn for it."""

    @property
    def worst_share(self) -> float:
        return max(self.share_errors)

    @property
    def worst_watch(self) -> float:
        return max(self.watch_errors)

    @property
    def worst_formula(self) -> float:
        return max(self.formula_errors)


def score(
    seed: str, number: int, draws: Draws, *, real_time: bool = False, causes: bool = False
) -> Score:
    """Make pipeline `number` of a seed, run it, and judge the verdict on it.

    Args:
        seed: of the whole bench; with the number it gives the pipeline.
        number: which one.
        draws: how its service times are drawn.
        real_time: run it on a real event loop.
        causes: simulate also what the run gains from a faster stage and from one more worker.
    """
    rng = random.Random(f"{seed}/{number}")
    if real_time:  # few and long ones: a sleep of a loaded machine is a millisecond off
        pipeline = lasting(random_pipeline(rng, draws, invocations=240), 6.0)
    else:
        pipeline = random_pipeline(rng, draws)
    expected = simulate(pipeline)
    report, watches = measured(pipeline, real_time=real_time)
    verdict = analyze(report)
    found = truth(pipeline)
    largest = max(pipeline.demands().values())
    scored = Score(
        number=number,
        pipeline=pipeline,
        truth=found,
        verdict=verdict,
        right=is_right(found, verdict),
        share_errors=[
            abs(stage["share"][state] - expected.times[stage["name"]].shares()[state])
            for stage in report["stages"]
            for state in STATES
        ],
        watch_errors=[
            abs(stage["share"][state] - watches[stage["name"]].shares()[state])
            for stage in report["stages"]
            for state in STATES
        ],
        share_formula_errors=[
            abs(stage["share"]["busy"] - pipeline.demands()[stage["name"]] / largest)
            for stage in report["stages"]
        ],
        formula_errors=[
            abs(_used(stage, report) - pipeline.demands()[stage["name"]] / largest)
            for stage in report["stages"]
        ],
        drawn=_drawn_truth(pipeline, expected),
    )
    if causes and found.case in {"stage", "source"}:
        scored.causal = _cause(pipeline)
        scored.gains = _gains(pipeline, expected, verdict)
    return scored


def is_right(found: Truth, verdict: dict[str, Any]) -> bool:
    """Tell whether a verdict says what it should.

    A stage or the source that is clearly the slowest must be named, and alone. A tie must be
    called one, and name none but those that tie. Between the two (slowest and next 5 to 10 %
    apart) it will do to name any of them, alone or as a tie.
    """
    kind, stage, ties = verdict["kind"], verdict["stage"], verdict["ties"]
    if found.case == "stage":
        return bool(kind in {"stage", "workers", "serial"} and stage == found.first)
    if found.case == "source":
        return bool(kind == "source")
    alike = set(found.alike)
    if found.case == "tie" and SOURCE not in alike:
        return kind == "tie" and set(ties) <= alike
    return (SOURCE in alike and kind == "source") or (stage in alike and set(ties) <= alike)


def lasting(pipeline: Pipeline, wall_s: float) -> Pipeline:
    """Return the pipeline with all times scaled to a run of about `wall_s`."""
    factor = wall_s / max(pipeline.demands().values())
    return replace(
        pipeline,
        stages=tuple(
            replace(s, mean_s=s.mean_s * factor, gap_s=s.gap_s * factor) for s in pipeline.stages
        ),
        arrival_s=None if pipeline.arrival_s is None else pipeline.arrival_s * factor,
        draws={name: [t * factor for t in times] for name, times in pipeline.draws.items()},
    )


def _used(stage: dict[str, Any], report: dict[str, Any]) -> float:
    used: float = stage["time_s"]["busy"] / stage["workers"] / report["run"]["wall_s"]
    return used


def _drawn_truth(pipeline: Pipeline, expected: Outcome) -> Truth:
    demands = {s.name: expected.times[s.name].busy / s.workers for s in pipeline.stages}
    if pipeline.arrival_s is not None:
        demands[SOURCE] = sum(pipeline.draws[SOURCE])
    return truth(pipeline, demands)


def _cause(pipeline: Pipeline) -> str:
    """Return what shortens the run most when it, and nothing else, takes a fifth less time."""
    walls = {
        stage.name: simulate(_faster(pipeline, stage.name)).wall_s for stage in pipeline.stages
    }
    if pipeline.arrivals is not None:
        walls[SOURCE] = simulate(_faster(pipeline, SOURCE)).wall_s
    slow = {stage.name for stage in pipeline.stages if stage.gap_s > stage.mean_s}
    best = min(walls, key=walls.__getitem__)
    return SOURCE if best in slow else best


def _faster(pipeline: Pipeline, name: str) -> Pipeline:
    times = [time * FASTER for time in pipeline.draws[name]]
    stages = tuple(
        replace(s, gap_s=s.gap_s * FASTER) if s.name == name else s for s in pipeline.stages
    )
    return replace(pipeline, stages=stages, draws={**pipeline.draws, name: times})


def _gains(
    pipeline: Pipeline, expected: Outcome, verdict: dict[str, Any]
) -> tuple[float, float] | None:
    """Return the gain of one more worker as told, and as the simulation has it."""
    one_more = _one_more(verdict)
    if one_more is None:
        return None
    stages = tuple(
        replace(s, workers=s.workers + 1) if s.name == verdict["stage"] else s
        for s in pipeline.stages
    )
    wall_s = simulate(replace(pipeline, stages=stages)).wall_s
    return one_more, expected.wall_s / wall_s - 1


def _one_more(verdict: dict[str, Any]) -> float | None:
    """Return the middle of the gain that was told for one more worker of the limiting stage."""
    for change in verdict["what_if"]:
        if change["change"] == "workers" and change["name"] == verdict["stage"]:
            return float(sum(change["gain"]) / 2)
    return None
