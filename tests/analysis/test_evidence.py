"""What else could have caused what the stages show: it is named, or the verdict is less sure."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.analysis.recent import since
from tests.analysis.support import Data, change, example, own, queue, report, stage


def test_processes_that_are_no_workers_of_ours_use_all_cpus() -> None:
    """The one stage waits for a process pool, so no stage computes."""
    data = report([own("crunch", 99.0, 0.99)], cpu=(0.02, 2, "host"))
    data["resources"] |= {"children_cpu_s": 190.0, "system_cpu_utilization": 0.98}

    found = analyze(data)

    assert (found["kind"], found["confidence"]) == ("cpu", "high")
    assert "1.9 of them in child processes" in found["why"]


def test_worker_processes_that_are_children_count_once() -> None:
    data = report([own("crunch", 99.0, 0.99)], cpu=(0.02, 4, "host"))
    data["resources"]["children_cpu_s"] = 190.0
    data["processes"] = [{"host": "a", "cpu_s": 190.0, "cpus": 4}]

    assert analyze(data)["kind"] == "serial"


@pytest.mark.parametrize("children_s", [None, 0.0])
def test_nothing_is_sure_while_something_unseen_uses_all_cpus(children_s: float | None) -> None:
    """Such as processes that are no children: a database, or what a daemon started."""
    data = report([own("crunch", 99.0, 0.99)], cpu=(0.02, 2, "host"))
    data["resources"] |= {"children_cpu_s": children_s, "system_cpu_utilization": 0.5}
    taken = copy.deepcopy(data)
    taken["resources"]["system_cpu_utilization"] = 0.97

    assert analyze(data)["confidence"] == "high"
    assert analyze(taken)["confidence"] == "medium"
    assert any("All CPUs of the host were busy" in one for one in analyze(taken)["assumptions"])


def computing(cpu_s: float, machine: float) -> Data:
    data = report(
        [stage("crunch", busy=99.0) | {"self_s": 99.0, "run_share": 0.99, "cpu_s": cpu_s}],
        [queue("q", [], ["crunch"], blocked=90)],
        cpu=(cpu_s / 200, 2, "host"),
    )
    data["stages"][0]["time_s"] |= {"running": 99.0, "awaiting": 0.0}
    data["resources"]["system_cpu_utilization"] = machine
    return data


def test_a_stage_that_gets_a_part_of_a_cpu_on_a_busy_machine() -> None:
    """The kernel wakes the sampling thread at once, so no moment shows a wait."""
    assert (analyze(computing(45.0, 0.98))["kind"], analyze(computing(45.0, 0.98))["stage"]) == (
        "machine",
        "crunch",
    )
    # with CPUs to spare it waits for something else
    assert analyze(computing(45.0, 0.6))["kind"] == "stage"
    # it hardly computes, so a CPU would not make it faster
    assert analyze(computing(1.0, 0.98))["kind"] == "stage"


def test_few_moments_without_a_cpu_are_enough_where_all_cpus_are_busy() -> None:
    data = computing(6.0, 0.98)
    assert analyze(data)["kind"] == "stage"
    data["resources"] |= {"run_delay_samples": 17, "run_delay_waited": 16}
    assert (analyze(data)["kind"], analyze(data)["confidence"]) == ("machine", "medium")
    # a stage that waits is as slow on a free machine
    waiting = computing(0.5, 0.98)
    waiting["resources"] |= {"run_delay_samples": 17, "run_delay_waited": 16}
    assert (analyze(waiting)["kind"], analyze(waiting)["confidence"]) == ("stage", "low")


def test_a_busy_machine_is_not_the_limit_where_stages_wait_for_others() -> None:
    """A short stage computes, and gets hardly a CPU; the others only await."""
    rows = [own("get", 66.0, 0.66), own("parse", 2.0, 0.02), own("save", 32.0, 0.32)]
    data = report(rows, cpu=(0.01, 2, "host"))
    for row, running, cpu_s in zip(data["stages"], (0.1, 2.0, 0.1), (0.1, 0.5, 0.1), strict=True):
        awaiting = row["self_s"] - running
        row |= {"cpu_s": cpu_s, "time_s": {"running": running, "awaiting": awaiting}}
    data["resources"] |= {"run_delay_samples": 60, "run_delay_waited": 59, "run_delay": 0.98}
    data["resources"]["system_cpu_utilization"] = 1.0

    found = analyze(data)

    assert (found["kind"], found["name"], found["confidence"]) == ("serial", "get", "low")


def test_one_stage_that_computes_beside_others_that_wait_does_not_share_the_gil() -> None:
    rows = {"fetch": (0.0, 99.0, 0.1), "parse": (90.0, 0.0, 88.0), "write": (0.0, 99.0, 0.1)}
    data = report(
        [
            stage(name, busy=ran + awaits or 1.0)
            | {"self_s": ran + awaits, "run_share": 0.33, "cpu_s": cpu_s}
            for name, (ran, awaits, cpu_s) in rows.items()
        ],
        cpu=(0.46, 2, "host"),
    )
    for row in data["stages"]:
        ran, awaits, _ = rows[row["name"]]
        row["time_s"] |= {"running": ran, "awaiting": awaits}
    data["resources"]["gil_held"] = 0.95
    # what coroutines await in threads computes, and is no stage's
    elsewhere = copy.deepcopy(data)
    elsewhere["stages"][1]["cpu_s"] = 0.1
    elsewhere["stages"][1]["time_s"] |= {"running": 0.1, "awaiting": 89.9}

    assert analyze(data)["kind"] != "gil"
    assert analyze(elsewhere)["kind"] == "gil"


# --- without CPUs --------------------------------------------------------------------------------

OPEN = {1: (3, 0.1), 2: (20, 0.1), 3: (50, 0.1), 4: (76, 0.1), 5: (52, 0.1), 6: (29, 0.1)}
LIMITED = {1: (1, 0.1), 2: (1, 0.1), 3: (1, 0.1), 4: (227, 0.1)}
BATCHES = {1: (58, 0.1), 2: (58, 0.1), 3: (57, 0.1), 4: (57, 0.1)}


@pytest.mark.parametrize(
    ("levels", "kind", "confidence"),
    [
        (OPEN, "source", "medium"),
        # a pace at which calls of the same length begin looks like a limit
        (LIMITED, "stage", "low"),
        (BATCHES, "serial", "high"),
    ],
)
def test_tasks_that_something_begins_at_its_own_pace(
    levels: dict[int, tuple[int, float]], kind: str, confidence: str
) -> None:
    at_a_time = 2.5 if levels is BATCHES else 3.8
    made = own("get", 100 * at_a_time, 0.97, levels, tasks=64, count=230)
    found = analyze(report([made]))

    assert (found["kind"], found["confidence"]) == (kind, confidence)
    if kind == "source":
        assert (found["name"], found["what_if"]) == (None, [])


def test_no_run_is_shorter_than_its_longest_call() -> None:
    """`save` is busy all the time, with what `fetch` brings at last."""
    fetch = own("fetch", 4000.0, 0.5, {16: (200, 20.0)}, tasks=64, count=200)
    fetch["duration_s"] |= {"max": 98.0}
    found = analyze(report([fetch, own("save", 99.0, 0.5)]))

    assert (found["kind"], set(found["ties"])) == ("tie", {"fetch", "save"})
    assert all(entry["gain"][1] < 0.1 for entry in found["what_if"])


def test_the_latest_part_of_a_run_has_its_own_calls_and_child_processes() -> None:
    """A live verdict reads what was added; children computed, and a call was long, before it."""

    def until(wall_s: float, self_s: float, children_s: float) -> Data:
        row = own("save", self_s, self_s / wall_s)
        row["duration_s"] |= {"max": 300.0}
        data = report([row], wall_s=wall_s, cpu=(0.02, 2, "host"))
        data["resources"]["children_cpu_s"] = children_s
        return data

    latest = since(until(600.0, 590.0, 900.0), until(500.0, 491.0, 899.0))

    assert latest["resources"]["children_cpu_s"] == 1.0
    assert latest["stages"][0]["duration_s"]["max"] is None
    assert analyze(latest)["kind"] == "serial"
    assert analyze(until(600.0, 590.0, 1100.0))["kind"] == "cpu"


def test_the_longest_call_of_several_runs_bounds_none_of_them() -> None:
    fetch = own("fetch", 4000.0, 0.5, {16: (200, 20.0)}, tasks=64, count=200)
    fetch["duration_s"] |= {"max": 98.0}
    data = report([fetch, own("save", 99.0, 0.5)])
    data["run"] |= {"merged_from": ["a", "b"], "observed_s": 100.0}

    assert (analyze(data)["kind"], analyze(data)["name"]) == ("stage", "save")


def again(**more: Any) -> Data:
    """A worker calls again what failed, and waits before; 300 items, 100 failures."""
    send = stage("send", busy=396.0, workers=4, count=400, inside=240.0, errors=100)
    send |= {"self_s": 240.0, "run_share": 0.97, "failed_s": 60.0}
    send |= {"retried": {"count": 0, "total_s": 0.0}}
    return report([send], [queue("q", [], ["send"], blocked=90) | {"got": 300} | more])


def test_waits_before_a_call_that_is_made_again_are_the_failures() -> None:
    found = analyze(again())

    assert (found["kind"], found["name"], found["confidence"]) == ("errors", "send", "medium")
    # without the failed calls at least, and at most without the waits too
    low, high, _ = change(found, "errors", "send")
    assert (low, high) == (pytest.approx(0.14, abs=0.03), pytest.approx(1.2, abs=0.1))
    # half of the calls' time, and the waits stay
    assert change(found, "faster", "send")[1] < 0.6


def test_failures_that_are_given_up_have_no_waits() -> None:
    """As many calls as items: what is between them may be anything."""
    assert analyze(again(got=400))["kind"] != "errors"


def bulk(**more: Any) -> Data:
    """`bulk` takes all that has come meanwhile, so it is as busy as `read`."""
    rows = queue("rows", ["read"], ["bulk"]) | {"got": 1000, "depth_avg": 0.3}
    return report(
        [stage("read", busy=98.0, blocked=1.0), stage("bulk", busy=99.0, count=200)],
        [rows | more],
    )


def test_a_stage_that_takes_all_there_is_does_not_limit() -> None:
    assert (analyze(bulk())["kind"], analyze(bulk())["name"]) == ("stage", "read")
    # what lets others wait, or takes one at a time, does
    assert analyze(bulk(depth_avg=4.0))["kind"] == "tie"
    assert analyze(bulk(put_blocked_s=40.0))["kind"] == "tie"
    assert analyze(bulk(got=210))["kind"] == "tie"


def test_a_loop_that_is_one_call_limits_as_before() -> None:
    data = bulk()
    data["stages"][1] |= {"count": 1}
    assert analyze(data)["kind"] == "tie"
    assert analyze(example())["name"] == "write"
