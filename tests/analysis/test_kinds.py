"""Each kind of verdict, on reports that are built by hand."""

from __future__ import annotations

import copy
import json

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report import RunReport
from tests.analysis.support import Data, change, example, queue, report, stage, unseen

KEYS = {
    "kind", "name", "stage", "ties", "busy", "confidence", "why", "evidence", "when", "what_if",
    "advice", "assumptions",
}  # fmt: skip


def test_the_busy_stage_after_blocked_ones_limits_the_run() -> None:
    found = analyze(example())

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "write", "high")
    assert found["busy"] == 0.99
    assert found["ties"] == []
    assert "write was busy 99 % of the time" in found["why"]
    assert "process 74 % and fetch 90 %" in found["why"]


def test_a_second_writer_doubles_the_throughput_and_write_remains_the_limit() -> None:
    found = analyze(example())

    low, high, following = change(found, "workers", "write")
    assert low <= 1.0 <= high
    assert high - low < 0.2
    assert following == "write"
    assert change(found, "faster", "write") == (low, high, following)
    assert any("GIL" in line for line in found["assumptions"])


def test_the_next_limit_bounds_the_gain() -> None:
    data = report(
        [stage("parse", busy=80, blocked=19), stage("write", busy=100)],
        [queue("q", ["parse"], ["write"], blocked=19)],
    )

    low, high, following = change(analyze(data), "workers", "write")
    assert 0.0 < low <= 0.25 <= high < 0.3
    assert following == "parse"


def test_a_stage_that_was_always_busy_but_finished_early_is_not_the_limit() -> None:
    data = report(
        [stage("fetch", busy=5), stage("write", busy=90, idle=10)],
        [queue("q", ["fetch"], ["write"], span=5)],
    )

    assert analyze(data)["stage"] == "write"


def test_the_workers_of_a_stage_share_its_work() -> None:
    data = report(
        [stage("parse", busy=300, idle=100, workers=4), stage("write", busy=95, idle=5)],
        [queue("q", ["parse"], ["write"])],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("stage", "write")


def test_with_a_free_cpu_the_stage_with_fewer_workers_has_too_few() -> None:
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
    low, high, following = change(found, "workers", "write")
    assert low <= 95 / 75 - 1 <= high
    assert following == "parse"


def test_stages_of_about_the_same_demand_tie() -> None:
    data = report(
        [stage("a", busy=97, blocked=2), stage("b", busy=94, idle=5), stage("c", busy=50, idle=49)],
        [queue("q", ["a"], ["b"], blocked=2), queue("r", ["b"], ["c"])],
    )

    found = analyze(data)

    assert (found["kind"], found["ties"]) == ("tie", ["a", "b"])
    assert "a and b have about the same work" in found["why"]
    assert all(each["gain"][1] < 0.1 for each in found["what_if"])


def test_stages_ten_per_cent_apart_do_not_tie() -> None:
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


def test_a_source_that_never_finds_the_first_queue_full_limits_the_run() -> None:
    data = report(
        [stage("parse", busy=40, idle=60), stage("write", busy=20, idle=80)],
        [queue("in", [], ["parse"], span=98), queue("q", ["parse"], ["write"])],
    )

    found = analyze(data)

    assert (
        found["kind"], found["stage"], found["busy"], found["confidence"],
    ) == ("source", None, None, "high")  # fmt: skip
    assert found["name"] == "in"
    low, high, _ = change(found, "faster", "in")
    assert low <= 1.0 <= high
    assert "parse 60 % and write 80 %" in found["why"]


def test_a_source_that_took_all_the_time_outweighs_a_stage_that_is_90_percent_busy() -> None:
    data = report([stage("parse", busy=90, idle=10)], [queue("in", [], ["parse"], span=99)])

    found = analyze(data)

    assert (found["kind"], found["confidence"]) == ("source", "medium")


def test_a_source_that_is_blocked_or_finished_early_is_not_the_limit() -> None:
    held = report([stage("parse", busy=80, idle=20)], [queue("in", [], ["parse"], blocked=70)])
    early = report([stage("parse", busy=80, idle=20)], [queue("in", [], ["parse"], span=3)])

    assert [analyze(held)["stage"], analyze(early)["stage"]] == ["parse", "parse"]


def test_time_between_the_calls_of_the_first_stage_is_a_slow_source() -> None:
    data = report(
        [stage("fetch", busy=99, inside=5), stage("write", busy=30, idle=69)],
        [queue("q", ["fetch"], ["write"])],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("source", "fetch", "high")
    assert "95 % of its workers' busy time passed between its calls" in found["why"]


def test_awaiting_a_server_within_the_first_stage_is_work_of_that_stage() -> None:
    data = report(
        [stage("fetch", busy=99, inside=98), stage("write", busy=30, idle=69)],
        [queue("q", ["fetch"], ["write"])],
    )

    assert (analyze(data)["kind"], analyze(data)["stage"]) == ("stage", "fetch")


def test_the_source_limits_if_no_stage_is_busy_or_blocked() -> None:
    data = report(
        [stage("a", busy=30, idle=70), stage("b", busy=20, idle=80)], [queue("q", ["a"], ["b"])]
    )

    assert (analyze(data)["kind"], analyze(data)["confidence"]) == ("source", "low")


def test_a_stage_that_waits_at_a_limit_is_not_said_to_wait_for_the_next_stage() -> None:
    data = report(
        [stage("fetch", busy=10, blocked=47, idle=43), stage("write", busy=5, idle=95)],
        [queue("in", [], ["fetch"], span=99), queue("q", ["fetch"], ["write"])],
    )
    waits = [{"stage": "fetch", "held_s": None, "waited_s": 47.0}]
    data["limits"] = [{"name": "retry", "kind": "retry", "max": None, "stages": waits}]

    found = analyze(data)

    assert (found["kind"], found["name"]) == ("source", "in")
    assert "fetch, has 57.0 s of work and waits at limits in a run of" in found["why"]
    assert "Waiting at a limit: fetch 47 %. Waiting for input: write 95 %." in found["why"]


def test_the_advice_names_the_smallest_queue_if_bursts_block_a_stage() -> None:
    data = report(
        [stage("a", busy=50, blocked=50), stage("b", busy=60, idle=40)],
        [queue("q", ["a"], ["b"], blocked=50, capacity=1)],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "b", "low")
    assert any("the smallest is q, with room for 1" in line for line in found["advice"])


def test_blocked_time_outside_puts_is_a_wait_for_permits() -> None:
    data = report(
        [stage("fetch", busy=5, blocked=94), stage("write", busy=10, idle=89)],
        [queue("q", ["fetch"], ["write"], blocked=0)],
    )

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("limit", "fetch", "fetch")
    assert "Permits inside of fetch were in use 99 % of the time" in found["why"]
    assert [each["change"] for each in found["what_if"]] == ["limit"]


def test_the_cpu_limits_if_several_workers_are_busy_but_one_cpu_of_four() -> None:
    data = report(
        [stage("parse", busy=280, idle=20, workers=3), stage("write", busy=70, idle=30)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.25, 4, "host"),
    )

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("gil", None, "parse")
    assert "1.00 of 4 CPUs busy" in found["why"]
    assert {each["change"] for each in found["what_if"]} == {"faster"}


def test_the_cpu_limits_if_a_quota_is_used_up() -> None:
    data = report(
        [stage("parse", busy=280, idle=20, workers=3), stage("write", busy=70, idle=30)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.97, 0.5, "cgroup2"),
    )

    found = analyze(data)

    assert (found["kind"], found["confidence"]) == ("cpu", "high")
    assert "97 % of the cgroup's quota of 0.5 CPUs" in found["why"]
    assert any("Raise the quota" in line for line in found["advice"])


def test_one_computing_stage_is_the_limit_and_threads_will_not_help() -> None:
    data = report(
        [stage("parse", busy=98, idle=1), stage("write", busy=10, idle=89)],
        [queue("q", ["parse"], ["write"])],
        cpu=(0.5, 2, "host"),
    )

    found = analyze(data)

    assert (found["kind"], found["stage"], found["confidence"]) == ("stage", "parse", "medium")
    assert {each["change"] for each in found["what_if"]} == {"faster"}
    assert any("in processes" in line for line in found["advice"])


def test_a_late_event_loop_limits_the_run() -> None:
    found = analyze(example(loop_delay_s=0.4, cpu=(0.05, 2, "host")))

    assert (found["kind"], found["stage"]) == ("event loop", None)
    assert "400 ms late" in found["why"]


def test_errors_and_retries_of_the_limit_are_its_cause() -> None:
    data = report(
        [
            stage("parse", busy=20, blocked=79),
            stage("write", busy=99, count=1000, errors=200, retries=500)
            # 650 good calls of 20 ms
            | {"failed_s": 40.0, "retried": {"count": 150, "total_s": 46.0}},
        ],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("errors", "write")
    # a failed call is followed by another one, or a good one would have taken its place
    assert "Failures cost 80 % to 84 % of the time of write" in found["why"]
    low, high, _ = change(found, "errors", "write")
    assert low <= 99 / 20 - 1 <= high


def test_cheap_failures_are_not_the_cause() -> None:
    """Half of the calls fail at once: good ones in their place would take longer."""
    data = report(
        [
            stage("parse", busy=20, blocked=79),
            stage("write", busy=99, count=1000, errors=500)
            | {"failed_s": 0.5, "retried": {"count": 0, "total_s": 0.0}},
        ],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    assert analyze(data)["kind"] == "stage"


def test_failures_of_unknown_length_are_not_priced() -> None:
    data = report(
        [stage("parse", busy=20, blocked=79), stage("write", busy=99, errors=500)],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    found = analyze(data)

    assert found["kind"] == "stage"
    assert not any(each["change"] == "errors" for each in found["what_if"])


def test_errors_of_other_stages_do_not_count() -> None:
    data = report(
        [stage("parse", busy=20, blocked=79, errors=500), stage("write", busy=99)],
        [queue("q", ["parse"], ["write"], blocked=79)],
    )

    assert analyze(data)["kind"] == "stage"


def test_no_more_workers_are_suggested_if_each_item_has_its_own() -> None:
    data = report(
        [stage("get", busy=300, workers=257), stage("write", busy=50, idle=50)],
        [queue("q", ["get"], ["write"])],
    )

    found = analyze(data)

    assert found["stage"] == "get"
    assert [each["change"] for each in found["what_if"]] == ["faster"]
    assert found["confidence"] != "high"


def test_stages_of_the_same_worker_are_judged_together() -> None:
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


def test_the_verdict_is_unknown_without_an_instrumented_queue() -> None:
    found = analyze(report([unseen("parse", 60), unseen("write", 30)]))

    assert (found["kind"], found["stage"], found["confidence"]) == ("unknown", None, None)
    assert "The most time was spent in parse: 1 min 00 s" in found["why"]
    assert "wrap_queue" in found["advice"][0]


def test_a_stage_of_unknown_waits_is_named_as_left_out() -> None:
    data = example()
    data["stages"].append(unseen("audit", 40))

    assert any("audit" in line for line in analyze(data)["assumptions"])


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
def test_the_verdict_is_unknown_on_reports_without_work(data: Data) -> None:
    found = analyze(data)

    assert found["kind"] == "unknown"
    assert found["why"]


@pytest.mark.parametrize("missing", ["no queues", "no wait"])
def test_unexplained_blocked_time_is_not_a_wait_for_permits(missing: str) -> None:
    parts = queue("q", ["fetch"], ["write"])
    del parts["put_blocked_s"]
    data = report([stage("fetch", 10, blocked=90), stage("write", 100)], [parts])
    if missing == "no queues":
        del data["queues"]

    found = analyze(data)

    assert (found["kind"], found["stage"]) == ("stage", "write")


def windows(*busiest: str) -> list[Data]:
    """Return windows of ten seconds, in each of which one stage was busy all the time."""
    return [
        {
            "start_s": 10.0 * number,
            "end_s": 10.0 * (number + 1),
            "stages": [
                {"name": name, "time_s": {"busy": 10.0 if name == most else 4.0}}
                for name in ("fetch", "process", "write")
            ],
        }
        for number, most in enumerate(busiest)
    ]


def test_when_tells_how_the_busiest_stage_changed() -> None:
    changed = ("fetch",) * 3 + ("write",) * 3 + ("process",) + ("write",) * 3
    found = analyze(example() | {"windows": windows(*changed)})

    assert found["when"] == (
        "The busiest stage changed: fetch from 0 s to 30.0 s and write from 30.0 s to 1 min 40 s."
    )
    assert analyze(example() | {"windows": windows(*["write"] * 10)})["when"] is None
    assert analyze(example())["when"] is None


def test_other_programs_on_the_machine() -> None:
    data = example(cpu=(0.1, 2, "host"))
    data["resources"]["run_delay"] = 0.8
    free = example(cpu=(0.1, 2, "host"))
    free["resources"]["run_delay"] = 0.05
    full = example(cpu=(0.95, 2, "host"))
    full["resources"]["run_delay"] = 0.8

    found = analyze(data)

    assert (found["kind"], found["name"], found["confidence"]) == ("machine", None, "medium")
    assert "At 80 % of the moments" in found["why"]
    assert analyze(free)["kind"] == "stage"
    # its own threads wait for each other
    assert analyze(full)["kind"] == "cpu"


def test_the_gil_needs_to_be_held_if_that_is_known() -> None:
    data = report(
        [stage("parse", busy=280, idle=20, workers=3)],
        [queue("q", [], ["parse"], blocked=90)],
        cpu=(0.5, 2, "host"),
    )
    data["resources"]["gil_held"] = 0.97
    other = copy.deepcopy(data)
    other["resources"]["gil_held"] = 0.1

    assert (analyze(data)["kind"], analyze(data)["confidence"]) == ("gil", "high")
    # computing in C code without the GIL
    assert analyze(other)["kind"] == "stage"


def test_the_stage_that_holds_the_event_loop_is_named() -> None:
    """Others await, and take as long because they wait for their turn."""
    running = {"fetch": 1.0, "process": 95.0, "write": 1.0}
    data = report(
        [
            stage(name, busy=99, idle=1)
            | {"self_s": 99.0, "run_share": 0.33, "in_flight_avg": 0.99}
            for name in running
        ],
        [queue("a", ["fetch"], ["process"]), queue("b", ["process"], ["write"])],
        loop_delay_s=0.02,
    )
    data["resources"]["event_loop_delay_s"]["p50"] = 0.01
    for row in data["stages"]:
        ran = running[row["name"]]
        row["time_s"] |= {"running": ran, "awaiting": 99 - ran}

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("event loop", "process", "process")
    assert found["confidence"] == "high"
    assert change(found, "faster", "process")[0] > 0.3


def test_every_verdict_is_plain_data() -> None:
    for data in (example(), {}, report([unseen("a", 1)]), example(partial=True)):
        found = analyze(data)

        assert found.keys() == KEYS
        assert found == json.loads(json.dumps(found, allow_nan=False))


def test_analyze_leaves_its_argument_unchanged() -> None:
    data = example()
    before = copy.deepcopy(data)

    analyze(data)

    assert before == data


def test_analyze_takes_a_run_report() -> None:
    data = example() | {"schema": "otel_pipeline_metrics/report/1", "caches": []}
    whole = RunReport(data | {"bottleneck": {}, "telemetry": {}})

    assert analyze(whole)["stage"] == "write"


@pytest.mark.parametrize(
    ("samples", "waited", "confidence"),
    [
        (100, 10, "high"),
        (100, 25, "medium"),
        (100, 60, "low"),
        # too few moments for a share, but not for a doubt; a single one is chance
        (8, 4, "low"),
        (4, 1, "high"),
        (0, 0, "high"),
        (None, None, "high"),
    ],
)
def test_a_busy_machine_makes_every_verdict_less_sure(
    samples: int | None, waited: int | None, confidence: str
) -> None:
    data = example()
    data["resources"] = {"run_delay_samples": samples, "run_delay_waited": waited}
    found = analyze(data)
    assert (found["stage"], found["confidence"]) == ("write", confidence)
    doubted = [one for one in found["evidence"] if one["name"].startswith("moments at which")]
    assert bool(doubted) is (confidence != "high")
    assert any("had no CPU" in one for one in found["assumptions"]) is bool(doubted)
