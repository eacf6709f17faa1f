"""Verdicts on pipelines without queues, on steps that are no stages, limits and uneven work."""

from __future__ import annotations

import pytest

from otel_pipeline_metrics.analysis import analyze
from tests.analysis.support import Data, change, own, queue, report, stage


def in_a_row(**times: float) -> Data:
    """Return stages that follow one another in a run of 100 s."""
    data = report([own(name, seconds, seconds / 100) for name, seconds in times.items()])
    data["run"]["outside_s"] = 100 - sum(times.values())
    return data


def test_the_largest_own_time_counts_where_nothing_overlaps() -> None:
    found = analyze(in_a_row(fetch=50, parse=20, write=28))

    assert (found["kind"], found["name"], found["confidence"]) == ("serial", "fetch", "high")
    low, high, _ = change(found, "faster", "fetch")
    assert low <= 1 / 0.75 - 1 <= high
    assert high - low < 0.1
    low, high, _ = change(found, "faster", "parse")
    assert low <= 1 / 0.9 - 1 <= high


def test_time_outside_of_all_stages_is_a_step_without_a_name() -> None:
    found = analyze(in_a_row(fetch=20, write=15))

    assert (found["kind"], found["name"], found["stage"]) == ("undecorated", None, None)
    low, high, _ = change(found, "faster", None)
    assert low <= 100 / (100 - 65 / 2) - 1 <= high


def test_stages_in_many_tasks_of_the_same_kind_share_the_time_by_their_own() -> None:
    """Eight tasks fetch for 10 ms and then store for 30 ms."""
    levels = dict.fromkeys(range(1, 6), (100, 0.01))
    data = report(
        [
            own("fetch", 200, 0.47, levels),
            own("store", 600, 0.53, dict.fromkeys(range(1, 9), (100, 0.03))),
        ]
    )

    found = analyze(data)

    assert (found["kind"], found["name"]) == ("serial", "store")
    assert found["confidence"] != "high"
    low, high, _ = change(found, "faster", "store")
    assert low <= 1 / (1 - 0.75 / 2) - 1 <= high


def tasks(held: float, number: int) -> Data:
    """Return stages in so many tasks, of which eight were at work on average."""
    levels = dict.fromkeys(range(1, 9), (100, 0.01))
    return report(
        [
            own("fetch", 0.6 * held, 0.5, levels, tasks=number),
            own("store", 0.4 * held, 0.5, levels, tasks=number),
        ]
    ) | {"run": {"wall_s": 100.0, "partial": False, "outside_s": 0.0}}


def test_a_steady_number_of_many_tasks_is_a_limit_around_the_stages() -> None:
    found = analyze(tasks(held=795.0, number=64))

    assert (found["kind"], found["name"], found["confidence"]) == ("limit", "fetch", "medium")
    low, high, _ = change(found, "limit", "fetch")
    assert low < 1.0 < high


@pytest.mark.parametrize(("held", "number"), [(795.0, 8), (740.0, 64)])
def test_few_tasks_or_a_number_that_varies_is_no_limit(held: float, number: int) -> None:
    assert (analyze(tasks(held, number))["kind"]) == "serial"


def test_retries_count_where_nothing_overlaps() -> None:
    """Without its 20 s of retries, `call` would take 20 s of the 60."""
    data = in_a_row(call=40, write=20)
    data["run"] |= {"wall_s": 60.0, "outside_s": 0.0}
    for row, share in zip(data["stages"], (4 / 6, 2 / 6), strict=True):
        row |= {"run_share": share, "in_flight_avg": share}
    data["stages"][0] |= {
        "retries": 100,
        "failed_s": 0.0,
        "retried": {"count": 100, "total_s": 22.0},
    }

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("errors", "call", "call")
    low, high, _ = change(found, "errors", "call")
    assert low <= 60 / 40 - 1 <= high


def test_what_others_overlap_may_gain_nothing() -> None:
    """Of two calls at a time, the shorter one is never waited for."""
    data = report(
        [
            own("job", 13, 0.13),
            own("short", 52, 0.26),
            own("long", 87, 0.61),
        ]
    )
    data["run"]["outside_s"] = 0.0

    found = analyze(data)

    assert (found["kind"], found["name"]) == ("serial", "long")
    low, high, _ = change(found, "faster", "long")
    assert low <= 1 / (1 - 0.35) - 1 <= high
    assert change(found, "faster", "short")[0] == 0.0


def test_a_pool_that_is_never_idle_limits_a_run_without_queues() -> None:
    data = report(
        [
            own("fetch", 35, 0.14, {1: (1000, 0.035)}),
            own("parse", 198, 0.7, {1: (1, 0.2), 2: (999, 0.2)}, in_flight_avg=1.98),
            own("store", 40, 0.16, {1: (1000, 0.04)}),
        ]
    )

    found = analyze(data)

    # nothing shows how long a call takes with no other in flight
    assert (found["kind"], found["name"], found["confidence"]) == ("stage", "parse", "medium")
    low, high, _ = change(found, "faster", "parse")
    assert low <= 1.0 <= high


def test_a_step_between_queues_that_is_no_stage_is_named_by_its_queue() -> None:
    data = report(
        [stage("fetch", busy=30, blocked=69), stage("store", busy=45, idle=55)],
        [
            queue("a", [], ["fetch"], blocked=95),
            queue("b", ["fetch"], [], blocked=69),
            queue("c", [], ["store"], span=98),
        ],
    )

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("undecorated", "b", None)
    low, high, _ = change(found, "faster", "b")
    assert low <= 1.0 <= high


def test_an_undecorated_last_step_is_seen_by_the_full_queue_before_it() -> None:
    data = report(
        [stage("fetch", busy=30, blocked=69)],
        [
            queue("a", [], ["fetch"], blocked=95),
            queue("b", ["fetch"], [], blocked=69),
        ],
    )

    assert (analyze(data)["kind"], analyze(data)["name"]) == ("undecorated", "b")


def test_a_step_that_is_no_stage_and_quick_is_not_the_limit() -> None:
    data = report(
        [stage("fetch", busy=30, blocked=69), stage("store", busy=99, idle=1)],
        [
            queue("a", [], ["fetch"], blocked=95),
            queue("b", ["fetch"], [], blocked=69),
            queue("c", [], ["store"], span=98, blocked=70),
        ],
    )

    assert (analyze(data)["kind"], analyze(data)["name"]) == ("stage", "store")


def limited(max_held: int, held_s: float, waited_s: float) -> Data:
    data = report(
        [
            stage("fetch", busy=20, blocked=79),
            stage("call", busy=held_s, blocked=waited_s, workers=4),
        ],
        [queue("q", ["fetch"], ["call"], blocked=79)],
    )
    data["limits"] = [
        {
            "name": "slots",
            "max": max_held,
            "stages": [{"stage": "call", "held_s": held_s, "waited_s": waited_s}],
        }
    ]
    return data


def test_a_limit_whose_permits_are_all_held_is_named() -> None:
    found = analyze(limited(2, 198, 200))

    assert (found["kind"], found["name"], found["stage"]) == ("limit", "slots", "call")
    assert found["confidence"] == "high"
    low, high, _ = change(found, "limit", "slots")
    assert low <= 1.0 <= high
    assert not any(each["change"] == "workers" for each in found["what_if"])


def test_a_limit_that_is_hardly_waited_for_limits_nothing() -> None:
    found = analyze(limited(8, 390, 4))

    assert (found["kind"], found["name"]) == ("stage", "call")


@pytest.mark.parametrize(("shortest", "kind"), [(0.03, "limit"), (0.0, "stage")])
def test_calls_that_get_slower_with_more_in_flight_show_a_limit_inside(
    shortest: float, kind: str
) -> None:
    """Unless one of the few that found few others in flight had nothing to do."""
    call = stage("call", busy=396, idle=4, workers=4, count=6000, spread=0.1)
    call |= {
        "self_s": 396.0,
        "run_share": 0.9,
        "in_flight_avg": 3.96,
        "service_by_in_flight": [
            {"in_flight": 1, "count": 2, "avg_s": 0.033},
            {"in_flight": 4, "count": 500, "avg_s": 0.066},
        ],
    }
    call["duration_s"]["min"] = shortest
    data = report(
        [stage("fetch", busy=20, blocked=79), call],
        [queue("q", ["fetch"], ["call"], blocked=79)],
    )

    found = analyze(data)

    assert (found["kind"], found["name"]) == (kind, "call")
    assert any(c["change"] == "workers" for c in found["what_if"]) == (kind == "stage")


def test_one_worker_with_most_of_the_work_is_skew() -> None:
    data = report(
        [
            stage("read", busy=60, blocked=39),
            stage("agg", busy=160, idle=240, workers=4) | {"busiest_s": 99.0},
        ],
        [queue("q", ["read"], ["agg"], blocked=39)],
    )

    found = analyze(data)

    assert (found["kind"], found["name"], found["stage"]) == ("skew", "agg", "agg")
    low, high, following = change(found, "faster", "agg")
    assert low <= 99 / 60 - 1 <= high
    assert following == "read"


def test_a_step_that_overlaps_nothing_adds_up_with_a_pipeline() -> None:
    """50 s of a pipeline, and then 50 s of a commit."""
    store = stage("store", busy=49, idle=1) | {"self_s": 49.0, "run_share": 0.34}
    fetch = stage("fetch", busy=30, blocked=19) | {"self_s": 30.0, "run_share": 0.16}
    data = report(
        [fetch, store, own("commit", 50, 0.5, {1: (1, 50.0)})],
        [queue("q", ["fetch"], ["store"], blocked=19, span=48)],
    )

    found = analyze(data)

    assert (found["kind"], found["name"]) == ("serial", "commit")
    low, high, _ = change(found, "faster", "commit")
    assert low <= 1 / 0.75 - 1 <= high
    low, high, following = change(found, "faster", "store")
    assert low <= 1 / 0.81 - 1 <= high
    assert following == "fetch"


def pool_of_processes(cpu_s: float, cpus: float = 8.0) -> Data:
    """Two processes that are busy all the time, beside a driver that waits for them."""
    data = report([own("call", 160.0, 0.8), own("save", 10.0, 0.1)], cpu=(0.01, cpus, "host"))
    data["limits"] = [
        {
            "name": "pool",
            "kind": "process pool",
            "max": 2,
            "stages": [{"stage": "call", "held_s": 198.0, "waited_s": 500.0}],
        }
    ]
    data["processes"] = [
        {"id": n, "host": "h", "pid": n, "wall_s": 100.0, "cpu_s": cpu_s / 2, "cpus": cpus}
        for n in (1, 2)
    ]
    return data


def test_the_workers_of_a_pool_limit_a_run() -> None:
    found = analyze(pool_of_processes(20.0))

    assert (found["kind"], found["name"], found["stage"]) == ("limit", "pool", "call")
    assert found["why"].startswith("The 2 workers of pool were busy 99 % of the time, and tasks")
    assert found["advice"] == ["Give pool more workers, or make its tasks shorter."]
    low, high, _ = change(found, "limit", "pool")
    assert low <= 0.98 <= high
    # its tasks take longer than the stage in them, which is all that gets faster
    low, high, _ = change(found, "faster", "call")
    assert low <= 99 / 59 - 1 <= high


def test_more_processes_gain_no_more_than_the_cpus_that_are_left() -> None:
    """The driver uses hardly any of them itself."""
    limit = change(analyze(pool_of_processes(120.0, 2.0)), "limit", "pool")
    assert limit[1] == pytest.approx(1 / 0.61 - 1, abs=0.001)
    found = analyze(pool_of_processes(190.0, 2.0))
    assert (found["kind"], found["name"]) == ("cpu", None)
    # on which machine the others were is not certain
    apart = pool_of_processes(190.0, 2.0)
    apart["processes"][0]["host"] = "another"
    assert analyze(apart)["kind"] == "limit"
