"""SIGTERM reaches forked children and workers of multiprocessing, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.system.processes.support import run_forking

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_child_that_is_terminated_before_it_runs_ends() -> None:
    """On one core a parent goes on after its fork, so the signal is there before the child is."""
    run_forking("""
        import signal
        opm.configure()
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for _ in range(20):
            pid = os.fork()
            if not pid:
                time.sleep(10)
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    """)


def test_a_signal_that_the_program_blocks_stays_blocked_in_a_child() -> None:
    _, done = run_forking("""
        import signal
        opm.configure()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        def child():
            print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
        forked(child)
        child()
    """)
    assert done.stdout.split() == ["True", "True"]


def test_a_child_of_a_process_that_is_ending_can_be_terminated() -> None:
    """A pool replaces its workers on a thread, which goes on during the last flush."""
    program = """
        import os, signal, time
        import otel_pipeline_metrics as opm
        from otel_pipeline_metrics._core.process import signals
        def fork():
            pid = os.fork()
            if not pid:
                signals.at_end.clear()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        with opm.run("ending", resources=False):
            signals.at_end.append(fork)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, f"{-signal.SIGTERM}\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_does_not_notice_its_signal_is_sent_it_again(
    method: str, tmp_path: Path
) -> None:
    """The signal goes to another thread here: so the call of the main thread is not interrupted."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing, signal, sys, threading
        import otel_pipeline_metrics as opm
        def child():
            opm.configure()
            def send():
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            threading.Timer(0.2, send).start()
            lock = multiprocessing.Lock()
            lock.acquire()
            lock.acquire()
        if __name__ == "__main__":
            opm.configure()
            process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
            process.start()
            process.join(20)
            print(process.exitcode)
            process.kill()
        """)
    )
    done = subprocess.run(
        [sys.executable, program, method],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{-signal.SIGTERM}\n", done.stderr
