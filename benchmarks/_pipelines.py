"""Make random pipelines whose parameters tell the limiting stage.

A stage's demand is the busy time that the whole run asks of each of its workers:
calls times the mean service time, over the workers. The run cannot end before its
largest demand is met, so the stage with that one limits it (the bottleneck law).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import random

Shape = Literal["constant", "exponential", "lognormal"]
Spread = Literal["each", "route"]
Style = Literal["outside", "inside", "loop"]
Draws = Literal["stratified", "random"]

SHAPES: Final[tuple[Shape, ...]] = ("constant", "exponential", "lognormal")
STYLES: Final[tuple[Style, ...]] = ("outside", "outside", "inside", "loop")
INVOCATIONS: Final = 1500
"""Of all stages of a pipeline together, about: they are what a run costs."""
SOURCE: Final = "(source)"
"""Stands for the source where the truth names it."""
TIE: Final = 1.05
"""Demands closer than this factor are a tie, ..."""
CLEAR: Final = 1.10
"""... from this one on there is one right answer, and between the two both will do."""


@dataclass(frozen=True)
class Stage:
    """A stage whose call takes `takes` items and puts `gives` into its queues."""

    name: str
    workers: int
    mean_s: float
    shape: Shape
    sigma: float = 0.5
    """Of a lognormal's logarithm."""
    source: str | None = None
    """The queue it gets from; None: it makes its items itself."""
    sinks: tuple[str, ...] = ()
    spread: Spread = "each"
    """Every item into each of `sinks`, or into one of them in turn."""
    takes: int = 1
    gives: int = 1
    gap_s: float = 0.0
    """Waited between invocations, outside of the stage: its source is slow."""
    style: Style = "outside"
    """Whether gets and puts happen outside of the stage, inside, or all in one invocation."""


@dataclass(frozen=True)
class Pipeline:
    """Stages in the order of flow; each stage without a queue makes `items`."""

    stages: tuple[Stage, ...]
    capacities: dict[str, int]
    items: int
    topology: str
    arrival_s: float | None = None
    """Mean time between the items that something unseen puts into `arrivals`; None: nothing."""
    arrival_shape: Shape = "constant"
    arrivals: str | None = None
    draws: dict[str, list[float]] = field(default_factory=dict)
    """Service times in the order of their use; of the source under `SOURCE`."""

    def invocations(self) -> dict[str, int]:
        """Return how often each stage runs."""
        waiting = dict.fromkeys(self.capacities, 0.0)
        if self.arrivals is not None:
            waiting[self.arrivals] = self.items
        found = {}
        for stage in self.stages:
            found[stage.name] = (
                self.items if stage.source is None else round(waiting[stage.source] / stage.takes)
            )
            made = found[stage.name] * stage.gives
            for sink in stage.sinks:
                waiting[sink] += made / (len(stage.sinks) if stage.spread == "route" else 1)
        return found

    def demands(self) -> dict[str, float]:
        """Return the seconds that the run needs of each worker, and of the source."""
        runs = self.invocations()
        found = {
            stage.name: runs[stage.name] * (stage.mean_s + stage.gap_s) / stage.workers
            for stage in self.stages
        }
        if self.arrival_s is not None:
            found[SOURCE] = self.items * self.arrival_s
        return found


@dataclass(frozen=True)
class Truth:
    """The limit of a pipeline, by its parameters."""

    first: str
    """The stage's name, or `SOURCE`."""
    alike: tuple[str, ...]
    """Those that are no further from it than `CLEAR`, itself included."""
    ratio: float
    """Of the largest demand to the second largest."""

    @property
    def case(self) -> str:
        """Return the row of the table that it belongs to."""
        if self.ratio < CLEAR:
            return "tie" if self.ratio < TIE else "between"
        return "source" if self.first == SOURCE else "stage"


def truth(pipeline: Pipeline, demands: dict[str, float] | None = None) -> Truth:
    """Return the limit of the pipeline, by its parameters or by given demands."""
    demands = pipeline.demands() if demands is None else demands
    slow = {stage.name for stage in pipeline.stages if stage.gap_s > stage.mean_s}
    ordered = sorted(demands, key=demands.__getitem__, reverse=True)
    top = demands[ordered[0]]
    alike = tuple(SOURCE if n in slow else n for n in ordered if top < demands[n] * CLEAR)
    second = demands[ordered[1]] if len(ordered) > 1 else 0.0
    return Truth(SOURCE if ordered[0] in slow else ordered[0], alike, top / max(second, 1e-12))


# --- making them --------------------------------------------------------------------------------


def random_pipeline(
    rng: random.Random, draws: Draws = "stratified", invocations: int = INVOCATIONS
) -> Pipeline:
    """Make a pipeline of 2 to 6 stages with about this many calls in all."""
    count = rng.randint(2, 6)
    stages, topology = _wired(rng, count)
    queues = {stage.source for stage in stages if stage.source} | {
        sink for stage in stages for sink in stage.sinks
    }
    made = Pipeline(
        stages=tuple(stages),
        capacities={q: round(math.exp(rng.uniform(0, math.log(64)))) for q in sorted(queues)},
        items=100,
        topology=topology,
    )
    # a fifth of the pipelines has two equal slowest stages, a quarter a slow source
    kind = rng.random()
    if kind < 0.2:
        made = _tied(rng, made)
    per_item = sum(made.invocations().values()) / made.items
    made = replace(made, items=max(40, round(invocations / per_item)))
    made = _with_source(rng, made, slow=kind > 0.75)
    return drawn(rng, made, draws)


def _wired(rng: random.Random, count: int) -> tuple[list[Stage], str]:
    """Make stages and join them with queues."""
    fit = ["line", "line", "split", "join"] if count >= 3 else ["line"]
    topology = rng.choice([*fit, "diamond"] if count >= 4 else fit)
    stages = [_stage(rng, f"s{number}") for number in range(count)]
    flow: list[tuple[int, int]] = [(i, i + 1) for i in range(count - 1)]
    shared: dict[int, str] = {}
    if topology == "split":  # the last two both follow the one before them
        flow[-1] = (count - 3, count - 1)
    elif topology == "join":  # the first two both precede the third, through one queue
        flow[0] = (0, 2)
    elif topology == "diamond":
        start = rng.randrange(count - 3)
        flow = [(i, i + 1) for i in range(count - 1) if not start <= i <= start + 2]
        flow += [(start, start + 1), (start, start + 2)]
        flow += [(start + 1, start + 3), (start + 2, start + 3)]
    for _, to in flow:
        shared[to] = f"q{to}"
    for number, stage in enumerate(stages):
        sinks = tuple(shared[to] for begin, to in flow if begin == number)
        stages[number] = replace(
            stage,
            source=shared.get(number),
            sinks=sinks,
            spread=rng.choice(("each", "route")) if len(sinks) > 1 else "each",
            takes=rng.choice((1, 1, 1, 4)) if number in shared else 1,
            gives=rng.choice((1, 1, 1, 3)) if sinks else 1,
        )
    return stages, topology


def _stage(rng: random.Random, name: str) -> Stage:
    return Stage(
        name=name,
        workers=rng.randint(1, 4),
        mean_s=math.exp(rng.uniform(math.log(0.002), math.log(0.05))),
        shape=rng.choice(SHAPES),
        sigma=rng.uniform(0.3, 1.0),
        style=rng.choice(STYLES),
    )


def _tied(rng: random.Random, pipeline: Pipeline) -> Pipeline:
    """Make the two largest demands equal, or all but equal."""
    demands = pipeline.demands()
    first, second = sorted(demands, key=demands.__getitem__, reverse=True)[:2]
    factor = demands[first] / demands[second] * rng.uniform(0.97, 1.0)
    stages = [
        replace(s, mean_s=s.mean_s * factor) if s.name == second else s for s in pipeline.stages
    ]
    return replace(pipeline, stages=tuple(stages))


def _with_source(rng: random.Random, pipeline: Pipeline, *, slow: bool) -> Pipeline:
    """Let items come from outside, too slowly or fast enough."""
    top = max(pipeline.demands().values())
    first = pipeline.stages[0]
    factor = rng.uniform(1.1, 4.0) if slow else rng.choice((0.0, rng.uniform(0.1, 0.9)))
    if slow and rng.random() < 0.4:
        # the loop around the first stage is what waits for the source
        gap_s = top * factor / pipeline.items * first.workers
        gap_s = max(gap_s, 1.5 * first.mean_s)
        stages = (replace(first, gap_s=gap_s, style="outside"), *pipeline.stages[1:])
        return replace(pipeline, stages=stages)
    if not slow and rng.random() < 0.5:
        return pipeline  # the first stage makes its items itself
    name = "q0"
    entered = (replace(first, source=name), *pipeline.stages[1:])
    return replace(
        pipeline,
        stages=entered,
        capacities={**pipeline.capacities, name: rng.randint(1, 64)},
        arrivals=name,
        arrival_s=top * factor / pipeline.items,
        arrival_shape=rng.choice(("constant", "exponential")),
    )


# --- service times ------------------------------------------------------------------------------


def drawn(rng: random.Random, pipeline: Pipeline, draws: Draws) -> Pipeline:
    """Draw every service time beforehand.

    "stratified" takes the distribution's quantiles in random order, scaled to the exact mean:
    then the parameters tell the truth of a short run too. "random" draws independently, and a
    short run may differ from its parameters by chance.
    """
    runs = pipeline.invocations()
    found = {
        s.name: _times(
            rng,
            draws,
            s.shape,
            # more than it takes: the last batches of several workers are not full ones
            count=2 * runs[s.name] + 99,
            used=runs[s.name],
            mean=s.mean_s,
            sigma=s.sigma,
        )
        for s in pipeline.stages
    }
    if pipeline.arrival_s is not None:
        found[SOURCE] = _times(
            rng,
            draws,
            pipeline.arrival_shape,
            count=pipeline.items,
            used=pipeline.items,
            mean=pipeline.arrival_s,
            sigma=0.5,
        )
    return replace(pipeline, draws=found)


def _times(
    rng: random.Random,
    draws: Draws,
    shape: Shape,
    *,
    count: int,
    used: int,
    mean: float,
    sigma: float,
) -> list[float]:
    """Return `count` times, of which about the first `used` will be used."""
    if shape == "constant":
        return [mean] * count
    if draws == "random":
        levels = [rng.random() for _ in range(count)]
    else:
        levels = [(i + 0.5) / used for i in range(used)]
        rng.shuffle(levels)
        levels += [0.5] * (count - used)
    if shape == "exponential":
        times = [-math.log(1.0 - level) for level in levels]
        true_mean = 1.0
    else:
        normal = statistics.NormalDist(0.0, sigma)
        times = [math.exp(normal.inv_cdf(max(level, 1e-12))) for level in levels]
        true_mean = math.exp(sigma * sigma / 2)
    if draws == "stratified":
        true_mean = sum(times[:used]) / used
    return [time * mean / true_mean for time in times]
