"""Run in other processes."""

from __future__ import annotations

from typing import Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock, errors, settings


def echo(source: Any, sink: Any) -> None:
    """Pass items on until None comes; return the measurements."""
    errors.raise_faults = True
    settings.replace(settings.Config(console="off"))
    with opm.run("child", resources=False) as run:
        count = 0
        while (item := source.get()) is not None:
            with opm.stage("echo"):
                count += 1
            sink.put(("echo", item))
    report = run.report.to_dict()
    sink.put((type(source).__name__, _of(report["stages"]), _of(report["queues"])))


def _of(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def join(queue: Any) -> None:
    """Process all items of a joinable queue."""
    while queue.get() is not None:
        queue.task_done()
    queue.task_done()


def work_after_fork(began: float, answers: Any) -> None:
    """Work in a forked child, and return the measurements since the fork."""
    errors.raise_faults = True
    q = opm.wrap_queue(__import__("queue").Queue(), name="child's")
    with opm.run("child", resources=False) as run:
        for n in range(3):
            q.put(n)
        for _ in range(3):
            q.get()
            with opm.stage("work"):
                pass
    report = run.report.to_dict()
    answers.put((clock.now() - began, _of(report["stages"]), _of(report["queues"])))
