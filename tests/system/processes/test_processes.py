"""Test every way to start a process: sums are exact, it ends by itself, and has an identity."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.faults.collector.servers import collector
from tests.system.processes.program import PARENT
from tests.system.processes.support import invocations, points, run_module, spans

if TYPE_CHECKING:
    from tests.system.faults.collector.servers import Protocol

pytestmark = pytest.mark.processes

PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
PROGRAM = "tests.system.processes.program"
WAYS = [
    ("os.fork",),
    ("pre-fork",),
    *(
        (how, method)
        for how in ("Process", "Pool", "ProcessPoolExecutor")
        for method in ("fork", "forkserver", "spawn")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_sums_are_exact(way: tuple[str, ...], protocol: Protocol) -> None:
    with collector("none", protocol) as there:
        done = run_module(PROGRAM, *way, collector=there, protocol=protocol)
    assert done.returncode == 0, done.stderr
    # an executor may need only one process for both calls
    assert set(json.loads(done.stdout)["ended"]) == {0}
    counted = invocations(there)
    assert sum(counted.values()) == PARENT + 2, (counted, done.stderr)
    assert max(counted.values()) == PARENT  # the parent's own, in one instance
    made = {instance: len(found) for instance, found in spans(there).items()}
    assert made == counted
    assert "internal error" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("support", ["", "1"], ids=["default", "GRPC_ENABLE_FORK_SUPPORT=1"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fifteen_of_fifteen_with_four_threads_recording(protocol: Protocol, support: str) -> None:
    """Other threads hold our locks and the SDK's at most forks; each child reports one of each."""
    env = {"GRPC_ENABLE_FORK_SUPPORT": support} if support else {}
    busy = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
    with collector("none", protocol) as there:
        done = run_module(PROGRAM, "crowd", collector=there, protocol=protocol, **busy, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ended"] == [0] * 15
    children = invocations(there, "child")
    assert sorted(children.values()) == [1] * 15
    worked = invocations(there, "work")
    assert [worked[instance] for instance in children] == [1] * 15
    own = {instance: point.as_int for instance, _, point in points(there, "counted")}
    assert [own[instance] for instance in children] == [1] * 15
    assert len(own) == 16
