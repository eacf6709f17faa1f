"""Run plain asyncio: parallel stages, an async generator, a cancelled task.

    python -m examples.plain_asyncio --out /tmp/plain-asyncio

Waiting is part of a stage's time, so parallel stages add up to more than the run's duration. A
generator's time is the time inside it, without its consumer's. No server is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PAGES = 6
WANTED = 3


@opm.fetch
async def page(number: int) -> str:
    await asyncio.sleep(0.05)
    return f"page {number}"


@opm.process
async def numbers() -> AsyncGenerator[int, None]:
    """Count without end; a consumer that closes it makes it abandoned, not an error."""
    number = 0
    while True:
        await asyncio.sleep(0.001)
        yield number
        number += 1


@opm.write
async def upload() -> None:
    await asyncio.sleep(3600)


async def pipeline(report: Path) -> opm.RunReport:
    async with opm.run("plain-asyncio", report=report) as run:
        pages = await asyncio.gather(*(page(number) for number in range(PAGES)))
        print(f"fetched {len(pages)} pages side by side")

        async with contextlib.aclosing(numbers()) as source:
            async for number in source:
                await asyncio.sleep(0.02)  # the consumer's own time, not the generator's
                if number == WANTED:
                    break

        slow = asyncio.create_task(upload())
        await asyncio.sleep(0.02)
        slow.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await slow
    return run.report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "plain-asyncio")
    out: Path = parser.parse_args().out
    opm.configure(service_name="plain-asyncio", console="summary")
    report = asyncio.run(pipeline(out / "export_metrics.json"))
    total = {stage["name"]: stage["duration_s"]["total"] for stage in report.stages}
    print(f"{PAGES} pages took {total['page']:.2f} s in a run of {report.run['wall_s']:.2f} s")
    opm.shutdown()


if __name__ == "__main__":
    main()
