"""Test that what other processes measured is in the run's report, exactly once."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics.report.schema import report_schema

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured


def work(
    clock: Clock, seconds: float, *, items: int = 0, error: type[Exception] | None = None
) -> None:
    try:
        with opm.stage("work") as call:
            clock.advance(seconds)
            if items:
                call.add_items(items)
            if error is not None:
                call.retry(error("again"))
                raise error
    except KeyError:
        pass


def there() -> opm.Run:
    return opm.run("there", resources=False, parts_timeout=0)


def over_the_wire(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def flat(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, list):
        data = {str(index): one for index, one in enumerate(data)}
    if not isinstance(data, dict):
        return {path: data}
    return {k: v for key, one in data.items() for k, v in flat(one, f"{path}/{key}").items()}


def row(report: opm.RunReport, name: str = "work") -> dict[str, Any]:
    (found,) = [stage for stage in report.stages if stage["name"] == name]
    return found


def test_parts_add_up_to_what_one_process_would_say(clock: Clock) -> None:
    with opm.run("here", resources=False) as alone:
        for seconds in (1.0, 2.0, 4.0):
            work(clock, seconds, items=2)
        work(clock, 8.0, error=KeyError)
    with there() as run:
        sent = [over_the_wire(run.context()) for _ in range(2)]
        parts = []
        with opm.part(sent[0]) as part:
            work(clock, 1.0, items=2)
            work(clock, 8.0, error=KeyError)
        parts.append(over_the_wire(part.data))
        with opm.part(sent[1]) as part:
            work(clock, 2.0, items=2)
        parts.append(over_the_wire(part.data))
        work(clock, 4.0, items=2)  # the driver works too
        assert [run.add_part(part) for part in reversed(parts)] == [True, True]
    one, folded = row(alone.report), row(run.report)
    for key in (
        "count", "errors", "retries", "items", "bytes", "duration_s", "time_s", "share", "self_s",
        "wall_s", "in_flight", "in_flight_avg", "throughput", "run_share", "service_by_in_flight",
    ):  # fmt: skip
        assert flat(folded[key]) == pytest.approx(flat(one[key])), key
    assert {k: run.report.run[k] for k in ("parts", "parts_missing", "parts_rejected")} == {
        "parts": 2,
        "parts_missing": 0,
        "parts_rejected": 0,
    }
    assert [process["wall_s"] for process in run.report.to_dict()["processes"]] == [11.0]


def test_a_part_has_no_run_span_or_report_of_its_own(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with there() as run:
        with caplog.at_level(0), opm.part(run.context()) as part:
            work(clock, 1.0)
        assert caplog.records == []
        assert run.report.stages == []
        run.add_part(part.data)
        assert row(run.report)["count"] == 1
    assert row(run.report)["count"] == 1


def test_the_context_is_plain_and_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    with there() as run:
        context = run.context()
        assert over_the_wire(context) == context
        assert context.keys() <= {
            "schema", "pipeline", "run", "part", "traceparent", "tracestate",
        }  # fmt: skip
        run.add_part({})
    for end in ("before", "after"):
        with pytest.raises(RuntimeError, match="not in progress"):
            (opm.run(end) if end == "before" else run).context()


def test_the_same_part_counts_once_and_a_newer_one_replaces_it(clock: Clock) -> None:
    with there() as run:
        with opm.part(run.context()) as part:
            work(clock, 1.0)
            first = over_the_wire(part.data)
            work(clock, 1.0)
            second = over_the_wire(part.data)
            work(clock, 1.0)
        last = over_the_wire(part.data)
        counts = []
        for data in (second, first, second):
            assert run.add_part(data)
            counts.append(row(run.report)["count"])
        assert counts == [2, 2, 2]
        for data in (last, second, last):
            assert run.add_part(data)
            counts.append(row(run.report)["count"])
        assert counts[3:] == [3, 3, 3]
    assert row(run.report)["count"] == 3
    assert row(run.report)["duration_s"]["total"] == 3.0
    assert run.report.run["parts"] == 1


def test_workers_of_each_process_are_its_own(clock: Clock) -> None:
    """Two parts that one thread measured have one worker; another process has its own."""
    with there() as run:
        for process in ("one", "one", "other"):
            with opm.part(run.context()) as part:
                work(clock, 1.0)
            data = over_the_wire(part.data)
            data["process"]["id"] = process
            run.add_part(data)
    assert (row(run.report)["workers"], row(run.report)["count"]) == (2, 3)
    assert run.report.bottleneck["kind"] == "serial"
    assert run.report.bottleneck["stage"] == "work"


def test_queues_and_limits_fold_too(clock: Clock) -> None:
    import queue

    with there() as run:
        for _ in range(2):
            with opm.part(run.context()) as part:
                jobs = opm.wrap_queue(queue.Queue(5), name="jobs")
                lock = opm.wrap_limit(threading.Lock(), name="lock")
                jobs.put(1)
                clock.advance(2.0)
                with opm.stage("taking"), lock:
                    assert jobs.get() == 1
                    clock.advance(1.0)
            assert run.add_part(over_the_wire(part.data))
        clock.advance(4.0)
    (queue_row,) = run.report.queues
    assert (queue_row["put"], queue_row["got"], queue_row["wait_s"]["max"]) == (2, 2, 2.0)
    assert queue_row["consumers"] == ["taking"]
    (limit,) = run.report.to_dict()["limits"]
    assert (limit["acquired"], limit["stages"]) == (
        2,
        [{"stage": "taking", "waited_s": 0.0, "held_s": 2.0}],
    )


@pytest.mark.parametrize("comes", [True, False])
def test_items_that_another_process_gets_count_in_the_depth(clock: Clock, comes: bool) -> None:
    with there() as run:
        jobs: Any = opm.wrap_queue(multiprocessing.Queue(), name="jobs")
        jobs.put("a")
        with opm.part(run.context()) as part:
            clock.advance(2.0)
            # the part's own count, of the same queue
            assert jobs.get(timeout=60) == "a"
        if comes:
            assert run.add_part(over_the_wire(part.data))
        clock.advance(2.0)
        assert jobs._opm_queue.empty()
    (row,) = run.report.queues
    assert (row["put"], row["got"]) == (1, int(comes))
    assert (row["depth_avg"] is not None) is comes
    data = run.report.to_dict()
    other = opm.RunReport(data | {"run": data["run"] | {"id": "of another run"}})
    merged = opm.RunReport.merge(run.report, other).queues[0]
    assert (merged["depth_avg"] is not None) is comes
    jobs.close()
    jobs.join_thread()


def test_spans_of_a_part_are_in_the_runs_trace(captured: Captured) -> None:
    captured.configure()
    with there() as run:
        context = run.context()

        def elsewhere() -> None:
            with opm.part(context), opm.stage("inside"):
                pass
            opm.stage("after")(lambda: None)()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        run.add_part({})
    spans = {span.name: span for span in captured.spans()}
    root = spans["run there"].context
    assert spans["inside"].parent.span_id == root.span_id
    assert spans["inside"].context.trace_id == root.trace_id
    assert spans["after"].parent is None


# --- waiting for what was sent out ----------------------------------------------------------------


def test_the_end_waits_for_parts_that_were_sent_for() -> None:
    with opm.run("there", resources=False, parts_timeout=60) as run:
        context = run.context()

        def late() -> None:
            with opm.part(context) as part, opm.stage("late"):
                pass
            waits.wait(30)
            run.add_part(part.data)

        waits = threading.Event()
        thread = threading.Thread(target=late)
        thread.start()
        threading.Timer(0.05, waits.set).start()
    thread.join()
    assert row(run.report, "late")["count"] == 1
    assert run.parts_missing == 0


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_what_does_not_come_is_missing(timeout: float) -> None:
    with opm.run("there", resources=False, parts_timeout=timeout) as run:
        contexts = [run.context() for _ in range(3)]
        with opm.part(contexts[1]) as part:
            pass
        run.add_part(part.data)
    assert run.parts_missing == run.report.run["parts_missing"] == 2
    with opm.part(contexts[0]) as part:
        pass
    assert not run.add_part(part.data)  # the run is over
    assert run.report.run["parts"] == 1


def test_a_run_without_parts_says_nothing_of_them() -> None:
    with opm.run("plain", resources=False) as run:
        pass
    assert not [key for key in run.report.run if key.startswith("parts")]
    assert "processes" not in run.report.to_dict()


def test_other_tasks_work_while_an_async_run_waits() -> None:
    async def main() -> opm.Run:
        async with opm.run("there", resources=False, parts_timeout=60) as run:
            context = run.context()

            async def late() -> None:
                async with opm.part(context) as part:
                    with opm.stage("late"):
                        await asyncio.sleep(0.02)
                run.add_part(part.data)

            task = asyncio.create_task(late())
        await task
        return run

    run = asyncio.run(main())
    assert (row(run.report, "late")["count"], run.parts_missing) == (1, 0)


def test_a_run_of_trio_waits_too() -> None:
    async def main() -> None:
        async with opm.run("there", resources=False, parts_timeout=0.05) as run:
            run.context()
        assert run.parts_missing == 1

    trio.run(main)


def test_an_interrupted_run_does_not_wait() -> None:
    run = opm.run("there", resources=False, parts_timeout=3600)
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt(run.context())
    assert run.report.run["parts_missing"] == 1


# --- strangers --------------------------------------------------------------------------------


def good_part(run: opm.Run, clock: Clock) -> dict[str, Any]:
    with opm.part(run.context()) as part:
        work(clock, 1.0, items=1)
    found: dict[str, Any] = over_the_wire(part.data)
    return found


def _nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "part",
        {},
        {"schema": "otel_pipeline_metrics/part/2"},
        {"run": "f" * 32},
        {"id": 5},
        {"id": "x" * 1000},
        {"number": -1},
        {"number": 1e400},
        {"number": True},
        {"wall_s": float("nan")},
        {"wall_s": "1"},
        {"stages": {}},
        {"stages": [1]},
        {"stages": [{"name": ""}]},
        {"stages": [{"name": "x"}]},
        {"process": None},
        {"more": "x" * 5_000_000},
        {"more": _nested(200_000)},
        {"more": object()},
        {"more": {1, 2}},
    ],
)
def test_a_bad_part_is_dropped_and_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture, broken: Any
) -> None:
    with there() as run:
        good = good_part(run, clock)
        bad = {**good, **broken} if isinstance(broken, dict) and broken else broken
        assert [run.add_part(bad) for _ in range(3)] == [False] * 3
        assert run.add_part(good)
    assert row(run.report)["count"] == 1
    assert run.report.run["parts_rejected"] == 3
    assert caplog.text.count("is dropped") == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("count",), -1),
        (("count",), None),
        (("count",), 2**70),
        (("name",), 5),
        (("kind",), {}),
        (("errors",), None),
        (("errors", "by_type"), {"KeyError": "x"}),
        (("duration_s",), None),
        (("duration_s", "total"), float("inf")),
        (("duration_s", "sketch", "buckets"), {"0": -1}),
        (("duration_s", "sketch", "buckets"), {"99999999": 1}),
        (("duration_s", "sketch", "buckets"), {"x": 1}),
        (("duration_s", "sketch", "buckets"), {str(n): 1 for n in range(3000)}),
        (("duration_s", "sketch", "rel_error"), 0.5),
        (("time_s",), []),
        (("worker_ids",), [1]),
        (("service_by_in_flight",), 1),
    ],
)
def test_a_bad_row_is_dropped(clock: Clock, path: tuple[str, ...], value: Any) -> None:
    with there() as run:
        bad = good_part(run, clock)
        place = bad["stages"][0]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not run.add_part(bad)
    assert run.report.stages == []


def test_keys_of_a_later_version_are_left_out(clock: Clock) -> None:
    with there() as run:
        later = good_part(run, clock)
        later["stages"][0]["new"] = later["new"] = {"x": 1}
        assert run.add_part(later)
    assert "new" not in row(run.report)


def test_the_number_of_stages_is_bounded(clock: Clock) -> None:
    with there() as run:
        one = good_part(run, clock)
        many = {**one, "id": "many", "stages": [{**one["stages"][0]} for _ in range(10_001)]}
        assert not run.add_part(many)
        for part in range(3):
            stages = [
                {**one["stages"][0], "name": f"{part} {n}", "duration_s": {"total": 1}}
                for n in range(3400)
            ]
            assert run.add_part({**one, "id": str(part), "stages": stages}) is (part < 2)


def test_a_folded_report_is_as_its_schema_says(clock: Clock) -> None:
    import jsonschema

    with there() as run:
        run.add_part(good_part(run, clock))
    data = over_the_wire(run.report.to_dict())
    jsonschema.validate(data, report_schema())
    for format in ("console", "markdown", "html"):  # noqa: A001 - the word of `render`
        assert "work" in run.report.render(format)  # type: ignore[arg-type]


def test_a_part_is_small(clock: Clock) -> None:
    import random

    numbers = random.Random(1)  # noqa: S311 - no secret
    with there() as run, opm.part(run.context()) as part:
        for stage in range(10):
            for _ in range(200):
                with opm.stage(f"stage {stage}"):
                    clock.advance(numbers.lognormvariate(-5, 1))
    packed = len(zlib.compress(json.dumps(part.data).encode()))
    assert packed < 10 * 1500
    run.add_part({})


@pytest.mark.parametrize(
    ("context", "error"),
    [
        (None, TypeError),
        ("x", TypeError),
        ({}, ValueError),
        ({"schema": "otel_pipeline_metrics/context/1", "pipeline": "p"}, ValueError),
        (
            {"schema": "otel_pipeline_metrics/context/1", "pipeline": "p", "run": "", "part": "p"},
            ValueError,
        ),
    ],
)
def test_a_part_needs_the_context_of_a_run(context: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="context"):
        opm.part(context)


def test_a_part_is_entered_once() -> None:
    with opm.run("there", resources=False, parts_timeout=0) as run:
        part = opm.part(run.context())
        with part:
            pass
        with pytest.raises(RuntimeError, match="entered"):
            part.__enter__()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", "", None, False])
def test_parts_timeout_is_checked(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="parts_timeout"):
        opm.run("there", parts_timeout=timeout)


def test_what_is_raised_inside_passes(clock: Clock) -> None:
    with there() as run:
        part = opm.part(run.context())
        with pytest.raises(ZeroDivisionError), part, opm.stage("work"):
            raise ZeroDivisionError
        run.add_part(part.data)
    assert row(run.report)["errors"]["by_type"] == {"ZeroDivisionError": 1}


CHILD = """
import json, sys
import otel_pipeline_metrics as opm
with opm.part(json.loads(sys.argv[1])) as part:
    for number in range(100):
        with opm.stage("there") as call:
            call.add_items(3)
print(json.dumps(part.data))
"""


def test_two_real_processes() -> None:
    with there() as run:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, json.dumps(run.context())],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for child in children:
            assert run.add_part(json.loads(child.communicate(timeout=60)[0]))
    found = row(run.report, "there")
    assert (found["count"], found["items"]["out"], found["workers"]) == (200, 600, 2)
    processes = run.report.to_dict()["processes"]
    assert sorted(process["pid"] for process in processes) == sorted(c.pid for c in children)
    assert min(process["rss_bytes_peak"] for process in processes) > 1_000_000


SIGTERM = """
import os, signal, sys
import otel_pipeline_metrics as opm
from otel_pipeline_metrics.report import parts

add = parts.Sums.add

def ended_meanwhile(self, part):
    add(self, part)
    os.kill(os.getpid(), signal.SIGTERM)

with opm.run("driver", report=sys.argv[1], resources=False) as run:
    with opm.part(run.context()) as part, opm.stage("work"):
        pass
    parts.Sums.add = ended_meanwhile
    run.add_part(part.data)
    print("went on")
"""


def test_sigterm_while_a_part_is_folded_leaves_a_report(tmp_path: Path) -> None:
    """The report needs the lock that the interrupted thread holds."""
    path = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr
    report = json.loads(path.read_text())
    assert [(stage["name"], stage["count"]) for stage in report["stages"]] == [("work", 1)]


def test_an_internal_error_reaches_nobody(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_pipeline_metrics.report import parts

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(errors, "raise_faults", False)
    with there() as run:
        good = good_part(run, clock)
        with monkeypatch.context() as patched:
            patched.setattr(parts, "checked", broken)
            assert not run.add_part(good)
        run.add_part(good)
        monkeypatch.setattr(parts.Parts, "fold", broken)
    assert run.report.stages == []
    assert "internal error" in caplog.text
