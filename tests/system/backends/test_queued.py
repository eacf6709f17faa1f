"""Test a pipeline with queues, through the real Collector: links and states."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import RunReport
from tests.support.process import ROOT
from tests.system.backends.test_pipeline import environment, series, tags

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import Backends

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),  # one worker starts the servers once
    pytest.mark.usefixtures("built_backends"),
]

QUEUED = """
import asyncio, sys
import otel_pipeline_metrics as opm

opm.configure()

@opm.process
async def process(n):
    await asyncio.sleep(0.001)
    return n

@opm.write(items=lambda batch: batch)
async def write(batch):
    # long enough for what a busy machine adds to the other stage not to matter
    await asyncio.sleep(0.2)
    return len(batch)

async def main():
    queue = opm.wrap_queue(asyncio.Queue(2), name="parsed")

    async def producer():
        for n in range(8):
            await queue.put(await process(n))

    async def consumer():
        for _ in range(4):
            await write([await queue.get(), await queue.get()])

    async with opm.run("queued", report=sys.argv[1]):
        await asyncio.gather(producer(), consumer())

asyncio.run(main())
"""


def test_a_write_links_to_the_process_of_each_of_its_items(
    backends: Backends, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-c", QUEUED, str(path)],
        check=True,
        cwd=ROOT,
        env=environment(backends, "queued"),
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    report = RunReport.load(path)
    assert report.bottleneck["stage"] == "write"
    (trace,) = backends.jaeger.traces(
        "queued", wait_until=lambda traces: sum(len(t["spans"]) for t in traces) == 13
    )
    spans = trace["spans"]
    processed = {s["spanID"] for s in spans if s["operationName"] == "process"}
    writes = [s for s in spans if s["operationName"] == "write"]
    linked = [
        {r["spanID"] for r in write["references"] if r["refType"] == "FOLLOWS_FROM"}
        for write in writes
    ]
    assert [len(links) for links in linked] == [2, 2, 2, 2]
    assert processed == set().union(*linked)
    assert {"queued"} == {tags(s).get("pipeline.name") for s in spans}
    states = series(
        backends,
        'pipeline_stage_time_seconds_total{service_name="queued"}',
        "pipeline_stage_name",
        "pipeline_stage_state",
    )
    assert states["process", "blocked"] > states["process", "busy"]
    assert (
        sum(
            series(
                backends,
                'pipeline_queue_item_duration_seconds_count{service_name="queued"}',
                "pipeline_queue_name",
            ).values()
        )
        == 8
    )
