"""Define real jobs, each bare and instrumented."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_pipeline_metrics as opm
from benchmarks._cases import tracers
from examples import stdlib_index
from otel_pipeline_metrics._core import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILES = 300
ITEMS = 4000
WARM_UP = 5
"""Goes until a stage's first spans, which its budget lends it, are spent."""


@dataclass(frozen=True)
class Job:
    """A job, and the limit of what its instrumentation costs."""

    name: str
    bare: Callable[[], Any]
    ours: Callable[[], Any]
    bound: float
    """CPU time of `ours` over that of `bare`, less one."""
    items: int = 0
    """In one go, where it is work on one item after the other."""


def jobs(folder: Path) -> Iterator[Job]:
    """Yield the jobs; they write to `folder`."""
    warnings.simplefilter("ignore")  # the library's tests parse deliberate mistakes
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    opm.configure(
        tracer_provider=tracers(),
        meter_provider=provider,
        console=False,
        # half the default: the budget grows in the bare half of the time too
        spans_per_second=(settings.Config().spans_per_second or 0) / 2,
    )

    def demo() -> None:
        asyncio.run(stdlib_index.index(folder, limit=FILES))
        reader.collect()

    def bare_demo() -> None:
        with _undecorated():
            asyncio.run(_bare_index(folder))

    yield Job("the demo: batches of files, parsed and stored", bare_demo, demo, 0.01)
    payload = json.dumps([{"id": n, "name": f"item {n}", "values": [n] * 8} for n in range(40)])

    def handle(number: int) -> str:
        found = json.loads(payload)
        found[0]["id"] = number
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    staged = opm.process("handle")(handle)

    def bare_items() -> None:
        for number in range(ITEMS):
            handle(number)

    def items() -> None:
        for number in range(ITEMS):
            staged(number)
        reader.collect()

    with opm.run("items", report=None):
        for _ in range(WARM_UP):
            items()
        yield Job("a stage for every item, in a long run", bare_items, items, 0.02, ITEMS)


@contextlib.contextmanager
def _undecorated() -> Iterator[None]:
    """Take the decorators off the demo's functions."""
    names = ("read_sources", "parse", "parse_module", "store")
    bare = {name: getattr(stdlib_index, name).__wrapped__ for name in names}
    with mock.patch.multiple(stdlib_index, **bare):
        yield


async def _bare_index(folder: Path) -> None:
    """Do what the demo's `index` does, without a run."""
    stdlib_index.resolves.cache_clear()
    database = stdlib_index.open_database(folder / "index.db")
    try:
        async for sources in stdlib_index.read_sources(stdlib_index.STDLIB, FILES):
            await stdlib_index.store(database, stdlib_index.parse(sources))
    finally:
        database.close()
