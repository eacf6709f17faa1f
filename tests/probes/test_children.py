"""The CPU time of real child processes: that live, have ended, or have some of their own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from otel_pipeline_metrics._probes.resources import children

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

COMPUTES = "import time\nwhile time.process_time() < 0.3: pass\n"
# tells that it has computed, and then lives until its input ends
STAYS = COMPUTES + "print('done', flush=True)\ninput()\n"
# has a child that computes and stays, and waits for it
HAS_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {STAYS!r}])\n"


def cpu_s() -> float:
    found = children.cpu_s()
    assert found is not None
    return found


@pytest.mark.parametrize("program", [STAYS, HAS_A_CHILD])
def test_children_count_while_they_live_and_after_their_end(program: str) -> None:
    """No second is lost, or counted twice, as they end."""
    before = cpu_s()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"done\n"

    living = cpu_s() - before
    child.communicate(b"\n")
    ended = cpu_s() - before

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # /proc counts ticks of 10 ms, for the process and what it has waited for
    assert 0.25 <= living <= ended + 0.04
    assert ended == pytest.approx(used.ru_utime + used.ru_stime - before, abs=1e-9)


def test_to_read_takes_no_child_from_who_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert children.cpu_s() is not None
    assert child.wait() == 7


def test_living_children_are_unknown_where_the_kernel_does_not_list_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert children.cpu_s() is None
        child.communicate(b"\n")
    # without any there is nothing to list
    assert children.cpu_s() is not None
