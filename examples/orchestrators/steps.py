"""What the tasks of all three do: download 500 numbers and parse them, where one in ten is bad."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import otel_pipeline_metrics as opm

STARTS = (0, 500)
COUNT = 500


@opm.fetch("download")
def download(number: int) -> str:
    return str(number)


@opm.process("parse")
def parse(text: str) -> int:
    time.sleep(0.004)
    if text.endswith("5"):
        raise ValueError("bad")
    return int(text)


def load(start: int) -> None:
    for number in range(start, start + COUNT):
        with contextlib.suppress(ValueError):
            parse(download(number))


def reported(start: int) -> dict[str, Any]:
    """Do it in a run of its own, and return the report."""
    # in the task, since each one may have a process of its own
    opm.configure(console=False)
    with opm.run("load", resources=False) as run:
        # as a module does that the task uses: the same call again changes nothing
        opm.configure(console=False)
        load(start)
    # before the process of the task is ended
    opm.flush(2.0)
    return run.report.to_dict()


def show(report: opm.RunReport) -> None:
    for stage in report.stages:
        print(stage["name"], stage["count"], stage["errors"]["total"])
    print("the limit is", report.bottleneck["stage"], flush=True)
