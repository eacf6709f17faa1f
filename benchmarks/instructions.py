"""Count the instructions of a call, which the machine's noise does not change.

    python -m benchmarks.instructions [--case "ours, metrics only"]... [--write FILE]

Every case is called N times and 2N times under valgrind's callgrind; the difference, over N, is
what a call takes, with everything it causes: its share of a flushed batch, of the garbage
collector, of a span processor's thread. What is the same for both, as the reading of the
counter is, falls out. Start-up runs uncounted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import functools
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._cases import Case

CASES = (
    "bare function",
    "floor",
    "prometheus_client",
    "OTel by hand: histogram + counter",
    "OTel by hand: start_span + end",
    "OTel by hand: span + histogram + counter",
    "OTel by hand: span + histogram + counter, unsampled",
    "ours, unconfigured",
    "ours, metrics only",
    "ours, traced",
    "ours, unsampled",
    "ours, traced, past the span budget",
    "ours, metrics only, one inside another",
    "bare generator, an item",
    "ours, metrics only, generator, an item",
    "ours, metrics only, with block",
)
"""Those that bounds speak of; any other of `_cases` by its name."""

CALLS = 1024
"""N: a batch of ours, so that N and 2N differ by one hand-on."""
REPEATS = 3
NEEDED = ("valgrind", "vgdb")


def main() -> None:
    """Count, and print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", action="append", help="one case; again for another")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = tuple(arguments.case or CASES)
    if arguments.inside is not None:
        print(json.dumps(_inside(chosen, arguments.inside)))
        return
    missing = why_not()
    if missing:
        raise SystemExit(missing)
    text = table(counted(chosen))
    print(text)
    if arguments.write is not None:
        put(arguments.write, "instructions", text)


def table(counts: dict[str, float]) -> str:
    """Return the counts as Markdown."""
    lines = ["| case | sync | x floor | async | x floor |", "|---|---:|---:|---:|---:|"]
    for name in dict.fromkeys(key.partition("|")[2] for key in counts):
        cells = []
        for kind in ("sync", "async"):
            count, floor = counts.get(f"{kind}|{name}"), counts.get(f"{kind}|floor")
            cells.append("" if count is None else f"{count:,.0f}")
            cells.append("" if count is None or not floor else f"{count / floor:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def why_not() -> str:
    """Return what is missing here to count, or nothing."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    return f"instructions are not counted: no {' and no '.join(missing)} here" if missing else ""


def counted(names: tuple[str, ...] = CASES) -> dict[str, float]:
    """Return instructions a call by kind and case, counted in one process."""
    counts: dict[str, float] = under_callgrind(
        "benchmarks.instructions", *(f"--case={name}" for name in names)
    )
    return counts


def under_callgrind(module: str, *arguments: str) -> Any:
    """Return what a module prints as JSON with these arguments and `--inside`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
            *(f"--vgdb-prefix={folder}/vgdb", f"--callgrind-out-file={folder}/counts"),
            *(sys.executable, "-m", module, "--inside", folder, *arguments),
        ]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            # sets and dicts of strings in the same order, and the same collisions, every time
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    if done.returncode:
        raise SystemExit(f"valgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- under valgrind ----------------------------------------------------------------------------


def _inside(names: tuple[str, ...], folder: Path) -> dict[str, float]:
    from benchmarks._cases import cases
    from benchmarks._peers import peers

    chosen = [case for case in (*cases(), *peers()) if case.name in names]
    unknown = set(names) - {case.name for case in chosen}
    if unknown:
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}")
    loop = asyncio.new_event_loop()
    counts = {}
    for case in chosen:
        case.before()
        calls = min(CALLS, case.calls) if case.calls < CALLS // 8 else CALLS
        kind = "async" if case.is_async else "sync"
        each = of_each(folder, functools.partial(_go, loop, case), calls)
        counts[f"{kind}|{case.name}"] = each / case.units
    loop.close()
    return counts


def of_each(folder: Path, go: Callable[[int], Any], calls: int = CALLS) -> float:
    """Return the instructions of each of the calls that `go` makes, in this process."""
    all_are_fast()
    go(calls)  # caches, specialised bytecode, the first batch
    gc.collect()
    with Callgrind(folder) as callgrind:
        several = [
            callgrind.count(lambda: go(2 * calls)) - callgrind.count(lambda: go(calls))
            for _ in range(REPEATS)
        ]
    return statistics.median(several) / calls


def all_are_fast() -> None:
    """Keep calls from being samples that are none otherwise: under valgrind each one is slow."""
    from otel_pipeline_metrics._stages import sampling

    sampling.SLOW_COROUTINE_S = sampling.SLOW_FUNCTION_S = float("inf")  # type: ignore[misc]


def _go(loop: asyncio.AbstractEventLoop, case: Case, calls: int) -> None:
    if case.is_async:
        loop.run_until_complete(_await(case.call, calls))
        return
    call = case.call
    contextvars.copy_context().run(_call, call, calls)


def _call(call: Any, calls: int) -> None:
    for _ in range(calls):
        call()


async def _await(call: Any, calls: int) -> None:
    for _ in range(calls):
        await call()


class Callgrind:
    """The valgrind that runs this process, told what to do by its own debugger interface."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Callgrind:
        self._tell("instrumentation on")
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("instrumentation off")

    def count(self, run: Any) -> int:
        """Return the instructions that it takes to call `run`, and to ask for the count."""
        self._dump()
        run()
        return self._dump()

    def _dump(self) -> int:
        """Return what was counted since the last time."""
        self._tell("dump")
        (dumped,) = self._folder.glob("counts.*")
        found = re.search(r"^(?:summary|totals): (\d+)", dumped.read_text(), re.MULTILINE)
        dumped.unlink()
        if found is None:
            raise RuntimeError("callgrind's dump has no total")
        return int(found[1])

    def _tell(self, what: str) -> None:
        subprocess.run(
            [
                *("vgdb", f"--vgdb-prefix={self._folder}/vgdb", f"--pid={os.getpid()}"),
                *what.split(),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )


if __name__ == "__main__":
    main()
