"""The CPU time of real child processes: that live, have ended, or have some of their own."""

from __future__ import annotations

import os
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

# in a process of its own, since that of the tests has children of other tests
PARENT = """
import os, resource, subprocess, sys
from otel_pipeline_metrics._probes.resources import children

child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=-1, stdout=-1)
assert child.stdout.readline() == b"done\\n"
living = children.cpu_s()
can_be_read, os.access = os.access, lambda *_: False
assert children.cpu_s() is None
os.access = can_be_read
child.communicate(b"\\n")
ended = children.cpu_s()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
assert ended == used.ru_utime + used.ru_stime, (ended, used)
os.access = lambda *_: False
# without any there is nothing to list
assert children.cpu_s() == ended
print(living, ended)
"""


@pytest.mark.parametrize("program", [STAYS, HAS_A_CHILD])
def test_children_count_while_they_live_and_after_their_end(program: str) -> None:
    """No second is lost, or counted twice, as they end."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    living, ended = map(float, done.stdout.split())
    # /proc counts ticks of 10 ms, for the process and what it has waited for
    assert 0.25 <= living <= ended + 0.04


def test_to_read_takes_no_child_from_who_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert children.cpu_s() is not None
    assert child.wait() == 7
