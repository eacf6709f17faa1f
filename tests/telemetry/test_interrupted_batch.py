"""Raise at every place where a batch is taken, as a signal handler may: it is taken once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.records import (
    Batch,
    Counts,
    EventTime,
    LimitBatch,
    Progress,
    QueueBatch,
    StageKey,
    StageResult,
)
from otel_pipeline_metrics._lifecycle import limit_stats, run_stats
from otel_pipeline_metrics._telemetry import (
    backlog,
    pending,
    sink,
    stage_metrics,
    totals,
    values,
)
from tests.support.interrupting import strike_at, strike_at_every_line, striking
from tests.telemetry.test_bulk_record import points_in, sampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._telemetry.backlog import AnyBatch

KEY = StageKey(None, "struck", None)
DURATIONS = (defs.STAGE_DURATION.name, ("pipeline.stage.name", "struck"))


def plain(count: int = 3) -> Batch:
    batch = Batch(KEY, {}, [0.25] * count, [])
    batch.time, batch.cpu_s = (0.25 * count, 0.0, 0.0, 0.0, 0.0), 0.125 * count
    return batch


def full() -> Batch:
    """Return a batch with all that one may have."""
    batch = plain()
    batch.time = (0.5, 1.0, 2.0, 4.0, 8.0)
    batch.exemplars = [(0.25, sampled(1))]
    batch.sizes = [3, 4, 5]
    batch.results = [
        StageResult(0.5, items_in=2, items_out=3, bytes_out=7, context=sampled(2)),
        StageResult(0.5, outcome="error", error_type="A", items_in=1, retries=(("B", 2),)),
        StageResult(4.0, attributes={"tenant": "own"}, reported=Counts(1), items_in=5),
    ]
    batch.progress = [Progress(Counts(1, 2, 3, 4), {"tenant": "own"})]
    batch.event_times = [
        EventTime(1.0, 2.0, {}, sampled(3)),
        EventTime(5.0, 8.0, {"tenant": "own"}),
        EventTime(2.0, 2.5, {}),
    ]
    return batch


BATCHES: dict[str, Callable[[], AnyBatch]] = {
    "only durations": plain,
    "all kinds": full,
    "more than wait": lambda: plain(1030),
    "a queue's": lambda: QueueBatch("q", [0.5, 1.0]),
    "a limit's": lambda: LimitBatch("l", [0.5, 1.0], 2500),
}
MODULES = (stage_metrics, pending, totals, backlog)


class Reported:
    """A sink on a provider, and what its reader collects."""

    def __init__(self, *, live: bool = True) -> None:
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.sink = sink.OtelSink(trace.NoOpTracerProvider(), provider, ("tenant",))
        self.stages = self.sink.stages
        self._live = [
            (instrument, instrument.instrument) for instrument in self.stages._instruments.values()
        ]
        if not live:
            for instrument, real in self._live:
                instrument.instrument = Proxy(real)

    def come_live(self) -> None:
        for instrument, real in self._live:
            instrument.instrument._real_instrument = real

    def numbers(self) -> dict[tuple[Any, ...], Any]:
        """Return counts and sums, which are exact, by metric and attributes."""
        for instrument in self.stages._instruments.values():
            instrument.flush()
        found = {}
        for point in points_in(self._reader):
            # that depends on the time
            if point["metric"] != defs.WATERMARK_LAG.name:
                numbers = [
                    getattr(point.get(name), "expected", point.get(name))
                    for name in ("value", "count", "sum", "min", "max", "bucket_counts")
                ]
                found[(point["metric"], *sorted(point["attributes"].items()))] = numbers
        return found


class Proxy:
    """An instrument of the API before there is a provider."""

    def __init__(self, real: Any) -> None:
        self._real_instrument = None
        self.record = getattr(real, "record", None)
        self.add = getattr(real, "add", None)


def deliver(to: Reported | run_stats.RunStats, batch: AnyBatch) -> None:
    """Do what the flush does: an interrupted batch comes again."""
    stages = to.stages if isinstance(to, Reported) else to
    if isinstance(batch, QueueBatch):
        stages.accept_queue(batch)
    elif isinstance(batch, LimitBatch):
        stages.accept_limit(batch)
    else:
        stages.accept(batch)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("kind", BATCHES)
def test_an_interrupted_batch_is_taken_once(kind: str, before: int) -> None:
    """All that it has: durations, states, CPU, items, event times, waits."""

    def prepared() -> Reported:
        reported = Reported()
        for _ in range(before):
            deliver(reported, BATCHES[kind]())
        return reported

    clean = prepared()
    deliver(clean, BATCHES[kind]())
    deliver(clean, plain())
    expected = clean.numbers()
    assert expected
    with striking():
        for n in range(10_000):
            reported, batch = prepared(), BATCHES[kind]()
            if not strike_at(n, lambda b=batch, r=reported: deliver(r, b), *MODULES):
                break
            deliver(reported, batch)
            deliver(reported, plain())
            assert reported.numbers() == expected, n
    assert n > 8


def test_an_interrupted_batch_before_there_is_a_provider_is_taken_once() -> None:
    """Whether it is struck as it is kept, or as what was kept is taken."""
    kinds = [plain, BATCHES["a queue's"], lambda: LimitBatch("l", [0.5], 2)]
    clean = Reported()
    for make in kinds:
        deliver(clean, make())
    expected = clean.numbers()
    with striking():
        for late in range(len(kinds) + 1):
            for n in range(10_000):
                reported, batches = Reported(live=False), [make() for make in kinds]
                struck = False
                for place, batch in enumerate(batches):
                    if place == late:
                        reported.come_live()
                    if place in {late, late - 1}:
                        struck |= not struck and strike_at(
                            n, lambda b=batch, r=reported: deliver(r, b), *MODULES
                        )
                    deliver(reported, batch)
                reported.come_live()
                reported.stages._is_live()
                assert reported.numbers() == expected, (late, n)
                if not struck:
                    break
            assert n > 4


def test_what_another_sink_kept_is_taken_once() -> None:
    """As `configure()` replaces one without a provider."""
    with striking():
        for n in range(10_000):
            before, reported = Reported(live=False), Reported()
            deliver(before, plain())
            deliver(reported, plain())
            take_over = reported.stages.take_over
            if not strike_at(n, lambda t=take_over, b=before: t(b.stages), *MODULES):
                break
            for _ in range(2):
                deliver(reported, plain())
            reported.stages.take_over(before.stages)
            (found,) = [
                count
                for (metric, *_), (_, count, *_) in reported.numbers().items()
                if metric == defs.STAGE_DURATION.name
            ]
            assert found == 12, n
    assert n > 20


def test_a_batch_that_cannot_be_taken_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was kept before there was a provider, which would get nothing for ever."""
    monkeypatch.setattr("otel_pipeline_metrics._core.errors.raise_faults", False)
    reported, broken = Reported(live=False), plain()
    broken.attributes = {"tenant": {"not": "hashable"}}  # type: ignore[dict-item]
    for batch in (plain(), broken, plain()):
        deliver(reported, batch)
    reported.come_live()
    deliver(reported, plain())
    assert reported.numbers()[DURATIONS][1] == 9


def test_a_zero_that_the_sdk_refuses_costs_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first record of a counter may fail, in an exemplar filter of the program."""
    monkeypatch.setattr("otel_pipeline_metrics._core.errors.raise_faults", False)
    reported = Reported()
    counter = reported.stages._instruments[defs.STAGE_TIME.name].instrument
    add = counter.add

    def failing(value: float, *others: Any) -> None:
        if not value:
            raise ValueError
        add(value, *others)

    monkeypatch.setattr(counter, "add", failing)
    for _ in range(2):
        deliver(reported, plain())
    found = reported.numbers()
    (seconds,) = [value for (metric, *_), (value, *_) in found.items() if metric == counter.name]
    assert (found[DURATIONS][1], seconds) == (6, 1.5)


@pytest.mark.parametrize("live", [True, False])
def test_values_of_the_program_are_taken_once(live: bool) -> None:
    """Counters and histograms, before and after there is a provider."""
    orders, waits = opm.counter("orders"), opm.histogram("waits", unit="s")
    reported = Reported()
    recorders = {}
    for name in ("orders", "waits"):
        metric = values._measures[name].metric
        recorders[name] = values._Recorder(metric, reported.sink.instruments)
        reported.sink.values._recorders[name] = recorders[name]
        reported.stages._instruments[name] = recorders[name].instrument
    added = 0

    def add() -> None:
        nonlocal added
        added += 1
        for tenant in ("a", "b"):
            orders.add(3, {"tenant": tenant})
            waits.record(0.5, {"tenant": tenant})
            token = trace.context_api.attach(sampled(added))
            waits.record(0.25, {"tenant": tenant})
            trace.context_api.detach(token)

    def flush() -> None:
        drain.unless_draining(reported.sink.values.flush)

    def early() -> None:
        """Keep what waits, as before there is a provider."""
        for name in ("orders", "waits"):
            drain.unless_draining(values._measures[name].keep)

    def after(strikes: int) -> None:
        flush()
        found = reported.numbers()
        for tenant in ("a", "b"):
            assert found["orders", ("tenant", tenant)][0] == 3 * added, strikes
            assert found["waits", ("tenant", tenant)][1:3] == [2 * added, 0.75 * added], strikes
        add()

    add()
    after(0)
    flush()
    add()
    assert strike_at_every_line(flush if live else early, after, values, backlog, pending) > 10


def test_an_interrupted_batch_is_in_a_report_once() -> None:
    """Waits and permits too."""
    batches = [make() for make in BATCHES.values()]

    def rows(stats: run_stats.RunStats) -> Any:
        waits = (*stats.queues.values(), *stats.limits.values())
        return (
            [each.to_dict(1.0, {}) for each in stats.stages.values()],
            [(each.count, each.total_s, each.max_s, each.sketch.to_dict()) for each in waits],
        )

    clean = run_stats.RunStats()
    for batch in batches:
        deliver(clean, batch)
    with striking():
        for struck in batches:
            for n in range(10_000):
                stats, more = run_stats.RunStats(), False
                for batch in batches:
                    if batch is struck:
                        more = strike_at(
                            n, lambda s=stats, b=batch: deliver(s, b), run_stats, limit_stats
                        )
                    deliver(stats, batch)
                assert rows(stats) == rows(clean), n
                if not more:
                    break
            assert n > 2


def test_the_metrics_know_the_duration_of_a_stage() -> None:
    """Without it, none of these tests would see a batch twice."""
    reported = Reported()
    for _ in range(2):
        deliver(reported, plain())
    durations = [k for k in reported.numbers() if k[0] == defs.STAGE_DURATION.name]
    assert [reported.numbers()[key][1] for key in durations] == [6]
