"""Each kind of verdict, on reports made by hand."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report import RunReport
from tests.analysis.support import Data, example, queue, report, stage, unseen

KEYS = {
    "kind", "stage", "ties", "busy", "confidence", "why", "advice", "what_if", "assumptions",
}  # fmt: skip


def test_stage() -> None:
    """The busy one below the blocked ones."""
    found = analyze(example())

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "write", "high")
    assert found["busy"] == 0.99
    assert found["ties"] == []
    assert "write was busy 99 % of the time" in found["why"]
    assert "process 74 % and fetch 90 %" in found["why"]


def test_one_more_worker() -> None:
    """Twice the writers, twice the throughput; and write is the limit even then."""
    found = analyze(example())

    assert {"more_workers": 1, "gain": pytest.approx(1.0), "next": "write"} == found["what_if"]
    assert any("3 more workers of write, process would limit" in a for a in found["advice"])
    assert any("GIL" in said for said in found["assumptions"])


def test_the_next_limit_bounds_the_gain() -> None:
    data = report(
        [stage("parse", busy=80, blocked=19), stage("write", busy=100)],
        [queue("q", ["parse"], ["write"], blocked=19)],
    )

    assert {"more_workers": 1, "gain": pytest.approx(0.25), "next": "parse"} == (
        analyze(data)["what_if"]
    )


def test_the_demand_counts_and_not_the_share() -> None:
    """A stage that is done early was busy all of its short life, and limits nothing."""
    data = report(
        [stage("fetch", busy=5), stage("write", busy=90, idle=10)],
        [queue("q", ["fetch"], ["write"], span=5)],
    )

    assert analyze(data)["stage"] == "write"


def test_workers_share_the_work() -> None:
    data = report(
        [stage("parse", busy=300, idle=100, workers=4), stage("write", busy=95, idle=5)],
        [queue("q", ["parse"], ["write"])],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("stage", "write")


def test_too_few_workers() -> None:
    """With a free CPU, the one that awaits with fewer workers is short of them."""
    data = report(
        [stage("parse", busy=300, idle=100, workers=4), stage("write", busy=95, idle=5)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.05, 4, "host"),
    )

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("workers", "write")
    assert (
        "parse has more work in all (5 min 00 s against 1 min 35 s), but 4 workers" in found["why"]
    )
    assert found["what_if"]["gain"] == pytest.approx(95 / 75 - 1)
    assert found["what_if"]["next"] == "parse"


def test_tie() -> None:
    data = report(
        [stage("a", busy=97, blocked=2), stage("b", busy=94, idle=5), stage("c", busy=50, idle=49)],
        [queue("q", ["a"], ["b"], blocked=2), queue("r", ["b"], ["c"])],
    )

    found = analyze(data)

    assert (found["kind"], found["ties"]) == ("tie", ["a", "b"])
    assert "a and b have about the same work" in found["why"]
    assert pytest.approx(97 / 94 - 1) == found["what_if"]["gain"]
    assert found["what_if"]["next"] == "b"


def test_ten_per_cent_is_no_tie() -> None:
    data = report(
        [stage("a", busy=99), stage("b", busy=90, idle=9)], [queue("q", ["a"], ["b"], blocked=0)]
    )

    assert analyze(data)["kind"] == "stage"


def test_noise_lowers_the_confidence() -> None:
    data = report(
        [
            stage("a", busy=99, count=20, spread=1.5),
            stage("b", busy=80, idle=19, count=20, spread=1.5),
        ],
        [queue("q", ["a"], ["b"])],
    )

    assert analyze(data)["confidence"] == "medium"


def test_source() -> None:
    """Something that is no stage fills the first queue, never finds it full, is slow."""
    data = report(
        [stage("parse", busy=40, idle=60), stage("write", busy=20, idle=80)],
        [queue("in", [], ["parse"], span=98), queue("q", ["parse"], ["write"])],
    )

    found = analyze(data)

    assert (
        found["kind"], found["stage"], found["busy"], found["confidence"],
    ) == ("source", None, None, "high")  # fmt: skip
    assert found["what_if"] is None
    assert "parse 60 % and write 80 %" in found["why"]


def test_slow_source_and_a_nearly_busy_stage() -> None:
    """90 % busy is not the limit where the source took all of the time."""
    data = report([stage("parse", busy=90, idle=10)], [queue("in", [], ["parse"], span=99)])

    found = analyze(data)

    assert (found["kind"], found["confidence"]) == ("source", "medium")


def test_source_in_plenty() -> None:
    """It is held back, or done early."""
    held = report([stage("parse", busy=80, idle=20)], [queue("in", [], ["parse"], blocked=70)])
    early = report([stage("parse", busy=80, idle=20)], [queue("in", [], ["parse"], span=3)])

    assert [analyze(held)["stage"], analyze(early)["stage"]] == ["parse", "parse"]


def test_source_in_the_loop_around_the_first_stage() -> None:
    data = report(
        [stage("fetch", busy=99, inside=5), stage("write", busy=30, idle=69)],
        [queue("q", ["fetch"], ["write"])],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("source", "fetch", "high")
    assert "95 % of its workers' busy time passed between its calls" in found["why"]


def test_a_first_stage_that_works_is_a_stage() -> None:
    """Awaiting a server inside of `fetch` is what `fetch` does."""
    data = report(
        [stage("fetch", busy=99, inside=98), stage("write", busy=30, idle=69)],
        [queue("q", ["fetch"], ["write"])],
    )

    assert (analyze(data)["kind"], analyze(data)["stage"]) == ("stage", "fetch")


def test_nobody_busy_and_nobody_blocked() -> None:
    data = report(
        [stage("a", busy=30, idle=70), stage("b", busy=20, idle=80)], [queue("q", ["a"], ["b"])]
    )

    assert (analyze(data)["kind"], analyze(data)["confidence"]) == ("source", "low")


def test_bursts_and_small_queues() -> None:
    """Nobody busy all the time, yet held back: say which queue is small."""
    data = report(
        [stage("a", busy=50, blocked=50), stage("b", busy=60, idle=40)],
        [queue("q", ["a"], ["b"], blocked=50, capacity=1)],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "b", "low")
    assert any("the smallest is q, with room for 1" in said for said in found["advice"])


def test_rate_limit() -> None:
    """Blocked, but in no put: it waits for permits."""
    data = report(
        [stage("fetch", busy=5, blocked=94), stage("write", busy=10, idle=89)],
        [queue("q", ["fetch"], ["write"], blocked=0)],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("stage", "fetch")
    assert "waited for permits or rate limits 95 % of the time" in found["why"]
    assert found["what_if"] is None


def test_one_cpu_for_many() -> None:
    """Several workers are busy, and one CPU of four is."""
    data = report(
        [stage("parse", busy=280, idle=20, workers=3), stage("write", busy=70, idle=30)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.25, 4, "host"),
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("cpu", "parse", "medium")
    assert "1.00 of 4 CPUs busy" in found["why"]
    assert found["what_if"] is None


def test_quota() -> None:
    data = report(
        [stage("parse", busy=280, idle=20, workers=3), stage("write", busy=70, idle=30)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.97, 0.5, "cgroup2"),
    )

    found = analyze(data)

    assert (found["kind"], found["confidence"]) == ("cpu", "high")
    assert "97 % of the cgroup's quota of 0.5 CPUs" in found["why"]
    assert any("Raise the quota" in said for said in found["advice"])


def test_one_stage_that_computes() -> None:
    """One of them busy and one CPU busy: it is that stage, and threads will not help."""
    data = report(
        [stage("parse", busy=98, idle=1), stage("write", busy=10, idle=89)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.5, 2, "host"),
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "parse", "medium")
    assert found["what_if"] is None
    assert any("run it in processes" in said for said in found["advice"])


def test_event_loop() -> None:
    found = analyze(example(loop_delay_s=0.4, cpu=(0.05, 2, "host")))

    assert (found["kind"], found["stage"]) == ("event loop", None)
    assert "400 ms late" in found["why"]


def test_errors_and_retries() -> None:
    data = report(
        [
            stage("parse", busy=20, blocked=79),
            stage("write", busy=99, count=1000, errors=200, retries=500),
        ],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("errors", "write", "medium")
    assert "47 % of its attempts failed" in found["why"]


def test_errors_elsewhere_do_not_count() -> None:
    data = report(
        [stage("parse", busy=20, blocked=79, errors=500), stage("write", busy=99)],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    assert analyze(data)["kind"] == "stage"


def test_a_worker_for_each_item() -> None:
    """Their number is no capacity."""
    data = report(
        [stage("get", busy=300, workers=257), stage("write", busy=50, idle=50)],
        [queue("q", ["get"], ["write"])],
    )

    found = analyze(data)

    assert (found["stage"], found["what_if"]) == ("get", None)
    assert found["confidence"] != "high"


def test_stages_of_the_same_worker() -> None:
    """Parse and check take turns in one worker: together they are what is busy."""
    data = report(
        [
            stage("fetch", busy=10, blocked=89),
            stage("parse", busy=60, idle=1),
            stage("check", busy=38, blocked=0),
            stage("write", busy=70, idle=29),
        ],
        [
            queue("a", ["fetch"], ["parse"], blocked=89),
            queue("b", ["check"], ["write"]),
        ],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "parse", "high")
    assert "The same workers run parse and check" in found["why"]


def test_no_queue() -> None:
    found = analyze(report([unseen("parse", 60), unseen("write", 30)]))

    assert (found["kind"], found["stage"], found["confidence"]) == ("unknown", None, None)
    assert "The most time was spent in parse: 1 min 00 s" in found["why"]
    assert "wrap_queue" in found["advice"][0]


def test_unseen_stage_is_named_as_left_out() -> None:
    data = example()
    data["stages"].append(unseen("audit", 40))

    assert any("audit" in said for said in analyze(data)["assumptions"])


@pytest.mark.parametrize(
    "data",
    [
        {},
        report([]),
        {"run": None, "stages": None, "queues": "?", "resources": []},
        {"run": {"wall_s": 1.0}, "stages": [{"name": "a"}], "queues": [{}], "resources": {}},
        report([stage("a", busy=0, idle=1)]),
        report([stage("a", busy=1)], wall_s=0.0),
    ],
)
def test_nothing_to_tell(data: Data) -> None:
    found = analyze(data)

    assert found["kind"] == "unknown"
    assert found["why"]


@pytest.mark.parametrize("silent", ["no queues", "no wait"])
def test_blocked_on_nobody_knows_what_is_no_permit(silent: str) -> None:
    """A report made by hand, or by a part of ours, may not tell who was blocked at which queue."""
    parts = queue("q", ["fetch"], ["write"])
    del parts["put_blocked_s"]
    data = report([stage("fetch", 10, blocked=90), stage("write", 100)], [parts])
    if silent == "no queues":
        del data["queues"]

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("stage", "write")


def test_any_verdict_is_plain_data() -> None:
    for data in (example(), {}, report([unseen("a", 1)]), example(partial=True)):
        found = analyze(data)

        assert found.keys() == KEYS
        assert found == json.loads(json.dumps(found, allow_nan=False))


def test_changes_nothing() -> None:
    data = example()
    before = copy.deepcopy(data)

    analyze(data)

    assert before == data


def test_takes_a_report() -> None:
    data = example() | {"schema": "otel_pipeline_metrics/report/1", "caches": []}
    whole = RunReport(data | {"bottleneck": {}, "telemetry": {}})

    assert analyze(whole)["stage"] == "write"


def merged(span: float, blocked: float, wall_s: float) -> Data:
    """Two runs of 100 s, merged: their workers and seconds add up."""
    data = report(
        [stage("parse", busy=160, idle=40, workers=2)],
        [queue("in", [], ["parse"], span=span, blocked=blocked) | {"observed_s": 200.0}],
        wall_s=wall_s,
    )
    data["run"]["merged_from"] = ["a", "b"]
    return data


@pytest.mark.parametrize("wall_s", [100.0, 200.0, 3600.0])
def test_merged_runs(wall_s: float) -> None:
    """At once, one after the other, or a while apart: it is the same verdict."""
    held = analyze(merged(span=198, blocked=150, wall_s=wall_s))
    slow = analyze(merged(span=198, blocked=0, wall_s=wall_s))

    assert (held["kind"], held["stage"]) == ("stage", "parse")
    assert slow["kind"] == "source"


def in_turn(times: dict[str, float], *, workers: int = 1, span: float = 97.5, **more: Any) -> Data:
    """Stages in one loop, a queue between each two; none ever waits."""
    names = list(times)
    return report(
        [
            stage(name, busy=busy * workers, inside=busy * workers, workers=workers)
            for name, busy in times.items()
        ],
        [queue(f"q{i}", [a], [b], span=span) for i, (a, b) in enumerate(itertools.pairwise(names))],
        **more,
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_taking_turns(workers: int) -> None:
    """More workers of one of them cannot help, however little the others do."""
    found = analyze(in_turn({"fetch": 4, "process": 78, "write": 16}, workers=workers))

    assert (found["kind"], found["stage"], found["ties"]) == ("stage", "process", [])
    assert found["what_if"] is None
    assert "fetch, process and write take turns in" in found["why"]
    assert "with a queue between: at most about 26 % more throughput" in found["advice"][0]
    assert not any("more workers of process, " in said for said in found["advice"])


def test_taking_turns_alike() -> None:
    found = analyze(in_turn({"p": 49, "w": 48}))

    assert (found["kind"], found["ties"], found["what_if"]) == ("tie", ["p", "w"], None)
    assert "p and w take turns in one worker" in found["why"]


def test_taking_turns_while_computing() -> None:
    """Threads would share the GIL."""
    found = analyze(in_turn({"p": 80, "w": 18}, cpu=(0.49, 2, "host")))

    assert (found["kind"], found["stage"]) == ("stage", "p")
    assert "in processes" in found["advice"][0]


def test_taking_turns_in_vain() -> None:
    data = in_turn({"p": 70, "w": 28})
    data["stages"][0]["errors"]["total"] = 500

    found = analyze(data)

    assert (found["kind"], found["stage"], found["what_if"]) == ("errors", "p", None)


def test_taking_turns_behind_a_queue_filled_by_the_same_loop() -> None:
    """What fills the first queue seems to take all of the time, but nobody ever lacked input."""
    data = in_turn({"p": 49, "w": 48})
    data["queues"].insert(0, queue("in", [], ["p"], span=97.5))

    assert analyze(data)["kind"] == "tie"


def test_done_early_is_not_taking_turns() -> None:
    """A worker of its own puts within its own time, however late the other one began."""
    found = analyze(in_turn({"p": 12, "w": 86}, span=11.9))

    assert (found["kind"], found["stage"]) == ("stage", "w")
    assert "turns" not in found["why"]
    assert found["what_if"] is not None


@pytest.mark.parametrize(("second", "kind"), [(48, "tie"), (25, "source")])
def test_no_source_without_idleness(second: float, kind: str) -> None:
    """Nobody waited: then all of the run was work, or part of it was spent elsewhere."""
    assert analyze(in_turn({"p": 49, "w": second}, span=10))["kind"] == kind


def threads(cores: float, *, idle: float = 140, source: float = 1) -> Data:
    """Four threads that compute, fed by one that is mostly blocked."""
    return report(
        [stage("work", busy=400 - idle, idle=idle, workers=4)],
        [queue("q", [], ["work"], span=98, blocked=98 - source, capacity=4)],
        cpu=(cores / 2, 2, "host"),
    )


@pytest.mark.parametrize("cores", [0.76, 0.83, 0.9, 1.0, 1.24])
def test_gil(cores: float) -> None:
    """On a noisy machine the GIL leaves part of its CPU unused."""
    found = analyze(threads(cores))

    assert (found["kind"], found["stage"], found["confidence"]) == ("cpu", "work", "medium")
    assert found["what_if"] is None
    assert not any("more throughput" in said for said in found["advice"])
    assert any("less than one CPU" in said for said in found["assumptions"]) == (cores < 0.9)


def test_no_gil_without_overlap_or_with_a_slow_source() -> None:
    assert analyze(threads(0.83, idle=270))["kind"] == "stage"
    assert analyze(threads(0.83, source=98))["kind"] == "source"


@pytest.mark.parametrize("cores", [0.05, 0.35, 0.5, 0.7])
def test_no_gain_beyond_the_cpu(cores: float) -> None:
    found = analyze(threads(cores, idle=0))

    most = 1 / cores - 1 if cores > 0.3 else math.inf
    assert found["kind"] == "stage"
    assert found["what_if"]["gain"] == pytest.approx(min(0.25, most))
    workers, percent = re.findall(
        r"With (\d+) more workers of work, .* about (\d+) %", "".join(found["advice"])
    )[0]
    assert 2 <= int(workers) <= 8
    assert int(percent) <= min(200, most * 100 + 0.5)


def test_one_more_worker_and_a_cpu_half_used() -> None:
    data = example(cpu=(0.3, 2, "host"))

    found = analyze(data)

    assert found["what_if"]["gain"] == pytest.approx(1 / 0.6 - 1)
    assert not any("more workers of write" in said for said in found["advice"])
    assert any("0.60 CPUs were busy already" in said for said in found["assumptions"])
