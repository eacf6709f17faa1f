"""Run a pipeline in several processes.

Usage: python -m tests.system.processes.program HOW [START_METHOD]

The parent calls the stage `work` five times, and each child once. At the end the number of
children is printed as JSON, with how each of them ended.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Callable

PARENT = 5


@opm.stage("work")
def work(number: int) -> int:
    return number + 1


def child(number: int = 0) -> int:
    """Do a child's work; spawned ones configure for themselves."""
    return work(number)


def configure() -> None:
    opm.configure(flush_timeout=8)


def by_os_fork(_: Any) -> list[int]:
    """Fork two children: one ends normally, one by `os._exit` after `shutdown`."""
    pids = []
    for hard in (False, True):
        pid = os.fork()
        if not pid:
            child()
            if hard:
                opm.shutdown()
                os._exit(0)
            sys.exit()
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def by_process(context: Any) -> list[int]:
    processes = [context.Process(target=child if forks(context) else alone) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def alone() -> None:
    """Be a spawned child without an initializer."""
    configure()
    child()


def by_pool(context: Any) -> list[int]:
    pool = context.Pool(2, initializer=None if forks(context) else configure)
    assert sorted(pool.map(child, range(2), chunksize=1)) == [1, 2]
    pool.close()
    workers = list(pool._pool)
    pool.join()
    return [worker.exitcode for worker in workers]


def by_executor(context: Any) -> list[int]:
    executor = ProcessPoolExecutor(
        2, mp_context=context, initializer=None if forks(context) else configure
    )
    with executor:
        assert sorted(executor.map(child, range(2))) == [1, 2]
        workers = list((executor._processes or {}).values())
    return [worker.exitcode for worker in workers]


def by_prefork(_: Any) -> list[int]:
    """Work like gunicorn with `preload_app`: workers are forked, serve, and get a SIGTERM."""
    listening = multiprocessing.get_context("fork").SimpleQueue()

    def serve() -> None:
        done = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: done.set())
        child()
        listening.put(os.getpid())
        while not done.is_set():
            done.wait(0.05)
        opm.shutdown()  # the hook `worker_exit`

    pids = []
    for _worker in range(2):
        pid = os.fork()
        if not pid:
            serve()
            os._exit(0)
        pids.append(pid)
    for _worker in pids:
        listening.get()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def forks(context: Any) -> bool:
    return context is None or context.get_start_method() == "fork"


HOW: dict[str, Callable[[Any], list[int]]] = {
    "os.fork": by_os_fork,
    "Process": by_process,
    "Pool": by_pool,
    "ProcessPoolExecutor": by_executor,
    "pre-fork": by_prefork,
}


def wait_for(pids: list[int], seconds: float) -> list[int]:
    """Return how the children ended that did so in time; kill the others."""
    codes = []
    deadline = time.monotonic() + seconds
    while pids and time.monotonic() < deadline:
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                pids.remove(pid)
                codes.append(os.waitstatus_to_exitcode(status))
        time.sleep(0.02)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return codes


def crowd(children: int) -> list[int]:
    """Fork repeatedly while four threads record and a fifth collects; exports go on."""
    stop = threading.Event()
    counter = metrics.get_meter("program").create_counter("counted")
    tracer = trace.get_tracer("program")

    def record() -> None:
        while not stop.is_set():
            work(0)
            counter.add(1)
            tracer.start_span("own").end()

    def collect() -> None:
        # the reader's own interval is also the time that the SDK gives its last collection
        while not stop.is_set():
            metrics.get_meter_provider().force_flush()

    threads = [threading.Thread(target=record, daemon=True) for _ in range(4)]
    threads.append(threading.Thread(target=collect, daemon=True))
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(children):
        pid = os.fork()
        if not pid:
            opm.stage("child")(functools.partial(child, 1))()
            counter.add(1)
            sys.exit()
        pids.append(pid)
        time.sleep(0.05)
    codes = wait_for(pids, 60)
    stop.set()
    for thread in threads:
        thread.join()
    return codes


def main(how: str, method: str | None = None) -> None:
    configure()
    if how == "crowd":
        ended = crowd(15)
    else:
        for number in range(PARENT):
            work(number)
        context = None if method is None else multiprocessing.get_context(method)
        ended = HOW[how](context)
    print(json.dumps({"parent": os.getpid(), "ended": ended}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
