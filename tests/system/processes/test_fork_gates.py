"""Test that a fork waits for a gate, but not for long."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from otel_pipeline_metrics._core.process import forking

# forking this process, which has threads, is what users do too
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def test_a_thread_inside_a_gate_delays_a_fork_for_a_moment_only() -> None:
    gate = forking.Gate()
    with gate:
        pid = os.fork()
        if not pid:
            with gate:
                os._exit(0)  # it is open in the child
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    assert gate.shut()  # and open again in the parent after a fork that shut it
    gate.reopen()


def test_forks_of_several_threads_leave_no_gate_shut() -> None:
    """In a program with `-W error` that forks from several threads at a time."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import os, threading, warnings
                warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
                from otel_pipeline_metrics._core.process import forking
                gates = [forking.Gate() for _ in range(5)]
                def fork():
                    for _ in range(20):
                        pid = os.fork()
                        if not pid:
                            for gate in gates:
                                with gate: pass
                            os._exit(0)
                        os.waitpid(pid, 0)
                threads = [threading.Thread(target=fork) for _ in range(4)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                assert not forking._forks
                assert all(gate.shut() for gate in gates)
            """),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
