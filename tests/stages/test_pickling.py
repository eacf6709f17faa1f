"""Test that decorated functions go to other processes, by reference and by value."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from otel_pipeline_metrics import fetch, stage
from otel_pipeline_metrics._core import stage_id
from tests.stages.support import call, run_script
from tests.stages.test_methods import Methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.conftest import Results


@stage
def plain(n: int) -> int:
    return n


@fetch("coroutine", attributes={"a": [1, 2]})
async def coroutine(n: int) -> int:
    return n


@stage(items=lambda _: 1)
def generator(n: int) -> Iterator[int]:
    yield n


@stage
async def async_generator(n: int) -> AsyncIterator[int]:
    yield n


FUNCTIONS = [plain, coroutine, generator, async_generator]
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@functions
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_by_reference(function: Any, protocol: int) -> None:
    assert function is pickle.loads(pickle.dumps(function, protocol))  # noqa: S301


@pytest.mark.parametrize("name", ["static_inside", "static_outside", "class_outside", "method"])
def test_pickling_methods_by_reference(name: str) -> None:
    method = getattr(Methods(), name)
    arguments = ("it",) if name.startswith("static") else ()
    assert pickle.loads(pickle.dumps(method))(*arguments) == "it"  # noqa: S301


@pytest.mark.parametrize(
    "make",
    [
        lambda: stage("local")(lambda n: n),
        lambda: stage("local")(coroutine.__wrapped__),
        lambda: stage("local")(generator.__wrapped__),
        lambda: stage("local")(async_generator.__wrapped__),
        lambda: stage("local", kind="k", items=lambda n: 2, attributes={"a": 1})(lambda n: n),
    ],
)
def test_pickling_by_value_in_this_process(make: Any, results: Results) -> None:
    copy = pickle.loads(cloudpickle.dumps(make()))  # noqa: S301
    assert call(copy, 3) == 3
    assert len(results.durations("local")) == 1


def test_a_stage_keeps_its_identity() -> None:
    identity = stage_id.stage_id("s", "k", {"a": (1, 2)})
    assert identity is pickle.loads(pickle.dumps(identity))  # noqa: S301
    assert identity is not stage_id.stage_id("s", "k", {"a": (1, 3)})
    assert identity is not stage_id.stage_id("s", "other", {"a": (1, 2)})


def test_a_stage_object_pickles(results: Results) -> None:
    made = pickle.loads(pickle.dumps(stage("object", kind="k")))  # noqa: S301
    with made:
        pass
    assert made(lambda n: n)(3) == 3
    assert len(results.durations("object")) == 2


DUMP = """
import sys, cloudpickle
import otel_pipeline_metrics as opm

FACTOR = 2

@opm.stage("doubled", kind="process", items=lambda r: r, attributes={"a": 1})
def double(n):
    return helper(n)

@opm.stage
def helper(n):
    return n * FACTOR

@opm.fetch
async def numbers(n):
    for i in range(n):
        yield double(i)

class Job:
    @opm.stage
    def run(self):
        return 7

if __name__ == "__main__":
    with open(sys.argv[0] + ".pickle", "wb") as file:
        cloudpickle.dump((double, numbers, Job()), file)
"""

LOAD = """
import asyncio, pickle, sys
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core import series

with open(sys.argv[0].replace("load", "dump") + ".pickle", "rb") as file:
    double, numbers, job = pickle.load(file)

class Sink:
    seen = []
    def accept(self, batch):
        self.seen += [(batch.key.stage, batch.key.kind, r.items_out) for r in batch.results]
        sizes = batch.sizes or [None] * len(batch.durations)
        self.seen += [(batch.key.stage, batch.key.kind, size) for size in sizes]

drain.set_sinks((Sink(),))

async def main():
    return [n async for n in numbers(3)]

print(double(4), asyncio.run(main()), job.run(), double.__name__, double.__module__)
drain.drain()
print(sorted(set(Sink.seen), key=str))
"""


def test_pickling_by_value_into_another_process(tmp_path: Path) -> None:
    """From a `__main__` that the other process lacks."""
    dumped = run_script(DUMP, tmp_path / "dump.py")
    assert (dumped.returncode, dumped.stderr) == (0, "")
    loaded = run_script(LOAD, tmp_path / "load.py")
    assert loaded.stderr == ""
    said, seen = loaded.stdout.splitlines()
    assert said == "8 [0, 2, 4] 7 double __main__"
    assert (
        str(
            sorted(
                [
                    ("doubled", "process", 8),
                    ("doubled", "process", 0),
                    ("doubled", "process", 2),
                    ("doubled", "process", 4),
                    ("helper", None, None),
                    ("numbers", "fetch", 3),
                    ("run", None, None),
                ],
                key=str,
            )
        )
        == seen
    )


def test_a_spawned_pool() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(plain, range(3)) == [0, 1, 2]


DILL = """
import asyncio, functools, sys
import dill
import otel_pipeline_metrics as opm

FACTOR = 2

@opm.stage(items=lambda r: r, attributes={"a": 1})
def plain(n, cell=1):
    return helper(n)

def helper(n):
    return n * FACTOR

@opm.stage
async def waits(n):
    return helper(n)

@opm.fetch
def steps(n):
    yield helper(n)

@opm.fetch
async def asteps(n):
    yield helper(n)

part = opm.write(functools.partial(helper, 3))

class Job:
    @opm.stage
    def run(self):
        return helper(4)

opm.configure(exporter="none", console=False)
with opm.run("r", resources=False):
    plain(1)
    for function, given in (
        (plain, [2]), (waits, [2]), (steps, [2]), (asteps, [2]), (part, []), (Job().run, [])
    ):
        for recurse in (False, True):
            # as Hugging Face's fingerprint: the same bytes each time
            first = dill.dumps(function, recurse=recurse)
            assert first == dill.dumps(function, recurse=recurse), function
            copied = dill.loads(first)
            got = copied(*given)
            if hasattr(got, "send") and not hasattr(got, "__next__"):
                got = asyncio.run(got)
            elif hasattr(got, "__next__"):
                got = next(got)
            elif hasattr(got, "__anext__"):
                got = asyncio.run(got.__anext__())
            print(got, end=" ")
"""


def test_dill_of_what_main_defines(tmp_path: Path) -> None:
    """In a project that is not installed, which dill pickles by value, module by module."""
    ended = run_script(DILL, tmp_path / "dilled.py")
    assert (ended.stderr, ended.stdout) == ("", "4 4 4 4 4 4 4 4 6 6 8 8 ")
