"""What happened in a program, written down by the program itself, and what follows from it.

Nothing here knows how the library keeps its account. A program tells when its workers enter and
leave stages, and when they compute, await and wait. The numbers of a report are then computed from
these segments by their definitions alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Clock

OPEN = ("running", "awaiting")
STATES = (*OPEN, "idle", "blocked")


class Sums(dict[str, float]):
    """Seconds by name, 0 where there are none."""

    def __missing__(self, _: str) -> float:
        return 0.0

    def add(self, others: dict[str, float]) -> None:
        for name, seconds in others.items():
            self[name] += seconds


class Invocation:
    """One call of a stage, one block, or one whole iteration of a generator."""

    def __init__(self, stage: str, *, stepped: bool) -> None:
        self.stage = stage
        # whether somebody can tell its running from its awaiting
        self.stepped = stepped
        self.over = False
        # of a generator that began tasks: what it was inside of then
        self.pinned: frozenset[Invocation] | None = None


class Frame(NamedTuple):
    """An invocation on a worker's stack, with the invocations that it is inside of."""

    invocation: Invocation
    inside_of: frozenset[Invocation]


class Segment(NamedTuple):
    """A time in which nothing about a worker changed."""

    begin: float
    end: float
    state: str
    frames: tuple[Frame, ...]


class Between:
    """A worker's time between its outermost stages: whose it is.

    A wait for input is the next stage's, a wait for room the last one's, whichever there is. Time
    in the worker's own code is the last stage's, or before the first one the next stage's, if it
    lies beside a queue; else, and after the last queue or stage, it is nobody's.
    """

    def __init__(self) -> None:
        self.of_stage: dict[str, Sums] = defaultdict(Sums)
        self.last: str | None = None
        self.met = False
        self.code = 0.0
        self.for_the_next: Sums = Sums()
        self.nobodys = 0.0

    def copy(self) -> Between:
        other = Between()
        other.of_stage.update({name: Sums(each) for name, each in self.of_stage.items()})
        other.last, other.met, other.code = self.last, self.met, self.code
        other.for_the_next, other.nobodys = Sums(self.for_the_next), self.nobodys
        return other

    def spent(self, state: str, seconds: float) -> None:
        if state in OPEN:
            self.code += seconds
        elif state == "idle" or self.last is None:
            self.for_the_next[state] += seconds
        else:
            self.of_stage[self.last][state] += seconds

    def _code_is_somebodys(self, *, somebodys: bool) -> None:
        code, self.code = self.code, 0.0
        if not somebodys or (self.last is None and not self.met):
            self.nobodys += code
        elif self.last is None:
            self.for_the_next["busy"] += code
        else:
            self.of_stage[self.last]["busy"] += code

    def at_queue(self, *, puts: bool) -> None:
        if puts and self.last is None:
            # only feeds
            self.nobodys += sum(self.for_the_next.values()) + self.code
            self.for_the_next.clear()
            self.code, self.met = 0.0, False
            return
        self._code_is_somebodys(somebodys=True)
        self.met = True

    def entered(self, stage: str) -> None:
        self._code_is_somebodys(somebodys=self.met or self.last in {None, stage})
        self.of_stage[stage].add(self.for_the_next)
        self.for_the_next.clear()
        self.last, self.met = stage, False

    def ended(self) -> None:
        self._code_is_somebodys(somebodys=False)
        if self.last is None:
            self.nobodys += sum(self.for_the_next.values())
        else:
            self.of_stage[self.last].add(self.for_the_next)
        self.for_the_next.clear()


class Worker:
    """A task or thread, with the stages that it is in."""

    def __init__(self, truth: Truth, inherited: frozenset[Invocation]) -> None:
        self._truth = truth
        self._inherited = inherited
        self.frames: tuple[Frame, ...] = ()
        self.state = "running"
        self.between = Between()
        self.began: float | None = None
        self.over = False
        self._since = 0.0

    def starts(self) -> None:
        self.began = self._since = self._truth.clock.now()

    def ends(self) -> None:
        self._flush()
        self.between.ended()
        self.over = True

    def becomes(self, state: str) -> None:
        self._flush()
        self.state = state

    def at_queue(self, *, puts: bool = False) -> None:
        """Note that the worker is at a queue or another wait that is known."""
        self._flush()
        if not self.frames:
            self.between.at_queue(puts=puts)
        self._truth.met.update(frame.invocation.stage for frame in self.frames)

    def enters(self, invocation: Invocation) -> None:
        self._flush()
        if not self.frames:
            self.between.entered(invocation.stage)
        self.frames = (*self.frames, Frame(invocation, self.here()))

    def leaves(self, *, over: bool) -> None:
        self._flush()
        self.frames[-1].invocation.over = over
        self.frames = self.frames[:-1]

    def here(self) -> frozenset[Invocation]:
        """Return the invocations that a call or a task made now is inside of."""
        if not self.frames:
            return self._inherited
        return self.frames[-1].inside_of | {self.frames[-1].invocation}

    def spawns(self) -> frozenset[Invocation]:
        """Return what a task made now is inside of."""
        for frame in self.frames:
            frame.invocation.pinned = frame.inside_of
        return self.here()

    def now(self) -> Segment | None:
        """Return what has not ended yet."""
        now = self._truth.clock.now()
        if self.over or self.began is None or now == self._since:
            return None
        return Segment(self._since, now, self.state, self.frames)

    def _flush(self) -> None:
        segment = self.now()
        if segment is not None:
            self._truth.segments.append(segment)
            if not self.frames:
                self.between.spent(self.state, segment.end - segment.begin)
            self._since = segment.end


class Truth:
    """All that happened since the run began."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began = clock.now()
        self.workers: list[Worker] = []
        self.segments: list[Segment] = []
        self.stages: set[str] = set()
        # in which a worker was at a queue
        self.met: set[str] = set()

    def worker(self, inherited: frozenset[Invocation] = frozenset()) -> Worker:
        self.workers.append(Worker(self, inherited))
        return self.workers[-1]

    def invocation(self, stage: str, *, stepped: bool) -> Invocation:
        self.stages.add(stage)
        return Invocation(stage, stepped=stepped)

    def so_far(self) -> list[Segment]:
        open_ = [worker.now() for worker in self.workers]
        return self.segments + [segment for segment in open_ if segment is not None]

    def account(self) -> Account:
        return Account(self)


class Account:
    """The numbers that a report must have now, by their definitions."""

    def __init__(self, truth: Truth) -> None:
        self.wall = truth.clock.now() - truth.began
        self._segments = truth.so_far()
        self.stages = truth.stages
        self.met = truth.met
        # of workers in a stage
        self.time: dict[str, Sums] = {stage: Sums() for stage in truth.stages}
        self.unstepped: Sums = Sums()
        # stages that were inside of themselves, with another one between or in another task
        self.recursive: set[str] = set()
        self.in_own_task: set[str] = set()
        self.wall_s: Sums = Sums()
        self.duration_s: Sums = Sums()
        self.self_s: Sums = Sums()
        self.shared_s: Sums = Sums()
        self.union_s = 0.0
        self.overlaps = False
        # of workers beside a stage, and of nobody
        self.between: dict[str, Sums] = {stage: Sums() for stage in truth.stages}
        self.nobodys = 0.0
        self.workers_wall = 0.0
        self._sum_up()
        self._divide()
        self._between(truth)

    def _sum_up(self) -> None:
        for begin, end, state, frames in self._segments:
            seconds = end - begin
            for stage in {frame.invocation.stage for frame in frames}:
                self.time[stage][state] += seconds
                its = [n for n, frame in enumerate(frames) if frame.invocation.stage == stage]
                # who sees the steps of the outermost sees those inside
                if state in OPEN and not frames[its[0]].invocation.stepped:
                    self.unstepped[stage] += seconds
                if its != list(range(its[0], its[0] + len(its))):
                    self.recursive.add(stage)
            for invocation, inside_of in frames:
                self.wall_s[invocation.stage] += seconds
                own = {frame.invocation for frame in frames}
                if any(o.stage == invocation.stage for o in inside_of - own):
                    # in a task that a call of the same stage began
                    self.in_own_task.add(invocation.stage)
                if state in OPEN and invocation.over:
                    self.duration_s[invocation.stage] += seconds

    def _divide(self) -> None:
        for seconds, frames in self._moments():
            is_open = {frame.invocation for frame in frames}
            covered = frozenset[Invocation]().union(*(frame.inside_of for frame in frames))
            innermost = is_open - covered
            for invocation in innermost:
                self.self_s[invocation.stage] += seconds
            sharing = {invocation.stage for invocation in innermost}
            for stage in sharing:
                self.shared_s[stage] += seconds / len(sharing)
            self.union_s += seconds
            self.overlaps = self.overlaps or len(innermost) > 1

    def _moments(self) -> Iterator[tuple[float, list[Frame]]]:
        """Yield times in which nothing about any worker changed, with the frames open then."""
        changes: dict[float, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for number, segment in enumerate(self._segments):
            if segment.state in OPEN and segment.frames:
                changes[segment.begin][0].append(number)
                changes[segment.end][1].append(number)
        going: set[int] = set()
        last = 0.0
        for at in sorted(changes):
            frames = [frame for number in going for frame in self._segments[number].frames]
            if frames:
                yield at - last, frames
            begun, ended = changes[at]
            going.difference_update(ended)
            going.update(begun)
            last = at

    def _between(self, truth: Truth) -> None:
        for worker in truth.workers:
            if worker.began is None:
                continue
            between, segment = worker.between.copy(), worker.now()
            if segment is not None and not segment.frames:
                between.spent(segment.state, segment.end - segment.begin)
            if not worker.over:
                between.ended()
            for stage, states in between.of_stage.items():
                self.between[stage].add(states)
            self.nobodys += between.nobodys
        self.workers_wall = sum(end - begin for begin, end, _, _ in self._segments)

    def outermost(self) -> float:
        """Return the seconds of workers in a stage, however many they were in at once."""
        return sum(end - begin for begin, end, _, frames in self._segments if frames)
