"""Measure what the monitors cost a program that does nothing, at their default intervals.

    python -m benchmarks.monitors [--seconds 60] [--rounds 5]

Each round starts a bare program, which sleeps, and others beside it that sleep with monitors: a
service (an event loop, metrics each 10 s, readings each 30 s, a manager, health), a
`ResourceMonitor`, and a run, which samples each second. What a program costs is its CPU time, in
which waiting has no part, so the programs of a round run at the same time. Each may take 1 % of a
core more than the bare one, by the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

ALLOWED = 0.01
KINDS = ("bare", "service", "monitor", "run")


def main() -> None:
    """Print a line for each kind; exit 1 if one costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stderr.write(json.dumps(asyncio.run(idle(options.child, options.seconds))))
        return
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        # the order changes, so that none is always the first to be started
        for kind, found in _round(KINDS[:: (-1) ** len(shares["bare"])], options.seconds).items():
            shares[kind].append(found["cpu_s"] / found["wall_s"])
    bare = statistics.median(shares["bare"])
    wrong = 0
    for kind in KINDS[1:]:
        more = statistics.median(shares[kind]) - bare
        worst = max(shares[kind]) - bare
        print(f"{kind}: {more:.3%} of a core more than the bare program; at most {worst:.3%}")
        wrong |= more > ALLOWED
    sys.exit(wrong)


def _round(kinds: tuple[str, ...], seconds: float) -> dict[str, dict[str, float]]:
    """Run one program of each kind at the same time; return what each took."""
    command = [sys.executable, "-m", "benchmarks.monitors", f"--seconds={seconds}", "--child"]
    # exported metrics are encoded, and thrown away
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console"}
    children = {
        kind: subprocess.Popen(
            [*command, kind],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind in kinds
    }
    # the last line: a summary may stand before it
    return {
        kind: json.loads(child.communicate()[1].splitlines()[-1])
        for kind, child in children.items()
    }


async def idle(kind: str, seconds: float) -> dict[str, Any]:
    """Sleep with the monitors of a kind; return the CPU time and the time that passed."""
    if kind == "bare":
        return await _sleep(seconds)
    import otel_pipeline_metrics as opm
    from otel_pipeline_metrics.service import MetricsManager, get_event_metrics, health

    if kind == "monitor":
        with opm.ResourceMonitor():
            return await _sleep(seconds)
    opm.configure(service_name="idle", console="off")
    if kind == "run":
        with opm.run("idle"):
            return await _sleep(seconds)
    get_event_metrics().set_connections("database", 1)
    with tempfile.TemporaryDirectory() as folder:
        async with MetricsManager(folder) as manager:
            await manager.record_operation("bench", "operation", 1.0)
            assert health().status in ("ok", "degraded")
            return await _sleep(seconds)


async def _sleep(seconds: float) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


if __name__ == "__main__":
    main()
