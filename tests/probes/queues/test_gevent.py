"""Test gevent's queues with and without monkey-patching, each in its own process."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.stages.support import run_script

if TYPE_CHECKING:
    from pathlib import Path

GEVENT = """
    from gevent import monkey
    {patch}
    import queue

    import gevent
    import gevent.queue

    import otel_pipeline_metrics as opm
    from otel_pipeline_metrics._core import clock, errors

    errors.raise_faults = True
    opm.configure(exporter="none", console=False)
    time = [0.0]
    clock.now = lambda: time[0]
    kinds = [gevent.queue.Queue, gevent.queue.LifoQueue, gevent.queue.PriorityQueue,
             gevent.queue.SimpleQueue, gevent.queue.JoinableQueue, {more}]
    for kind in kinds:
        q = opm.wrap_queue(kind(2), name="q", sentinel=StopIteration)
        assert isinstance(q, kind)
        got = []

        def make():
            for n in range(3):
                with opm.stage("make"):
                    time[0] += 1
                q.put(1000 + n)
            gevent.sleep(0)
            time[0] += 8
            q.put(1003)

        def use():
            for n in range(4):
                got.append(q.get())
                with opm.stage("use"):
                    pass

        with opm.run("r", resources=False) as run:
            # two puts at 1 and 2; the third waits for room from 3 to 7
            making = gevent.spawn(make)
            gevent.sleep(0)
            time[0] += 4
            # the fourth put is at 15, and a get waits for it
            gevent.joinall([making, gevent.spawn(use)], raise_error=True)
        assert sorted(got) == [1000, 1001, 1002, 1003], got
        (found,) = run.report.queues
        assert (found["put"], found["got"], found["capacity"]) == (4, 4, 2), found
        assert (found["put_blocked_s"], found["get_waited_s"]) == (4.0, 8.0), found
        assert found["wait_s"]["avg"] * 4 == (7 - 1) + (7 - 2), found
        assert (found["producers"], found["consumers"]) == (["make"], ["use"]), found
        blocked = [s["time_s"]["blocked"] for s in run.report.stages]
        assert blocked == [4.0, 0.0], blocked

    q = opm.wrap_queue(gevent.queue.Channel(), name="channel")
    gevent.spawn(lambda: [q.put(n) for n in range(3)])
    with opm.run("r", resources=False) as run:
        assert [q.get() for _ in range(3)] == [0, 1, 2]
    assert run.report.queues[0]["got"] == 3

    q = opm.wrap_queue(gevent.queue.Queue(items=[1, 2]), name="items", sentinel=StopIteration)
    assert (len(q), bool(q), q.peek()) == (2, True, 1)
    q.put(StopIteration)
    with opm.run("r", resources=False) as run:
        assert [item for item in q] == [1, 2]
    assert run.report.queues[0]["got"] == 2
    print("well")
"""


@pytest.mark.processes
@pytest.mark.parametrize("patched", [True, False])
def test_gevents_queues_count_like_the_standard_ones(patched: bool, tmp_path: Path) -> None:
    patch = "monkey.patch_all()" if patched else ""
    more = "queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue" if patched else ""
    found = run_script(dedent(GEVENT).format(patch=patch, more=more), tmp_path / "program.py")
    assert found.stdout == "well\n", found.stderr
