"""Reset state in forked children, delay forks, and run code when a child ends.

The hooks of `os.register_at_fork` can never be removed, so the whole package shares the ones that
are registered here. That happens at import, before the providers of `configure()` register theirs.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable


C = TypeVar("C", bound="Callable[[], None]")


class ProcessState(Protocol):
    """An object whose state belongs to one process."""

    def after_fork(self) -> None:
        """Reset the state; runs in the child, before anything else."""


class Gate:
    """A lock around calls that a fork must not interrupt.

    A fork waits a moment for their end. A child that is forked during a gRPC call cannot use gRPC,
    and one that is forked during the import of a module cannot import it.

    Args:
        patience_s: how long a fork waits for a call.
    """

    def __init__(self, patience_s: float = 0.25) -> None:
        self._patience_s = patience_s
        self.renew()
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def shut(self) -> bool:
        """Keep calls out; return False if one is still in progress after `patience_s`."""
        return self._lock.acquire(timeout=self._patience_s)

    def reopen(self) -> None:
        """Let calls in again."""
        self._lock.release()

    def renew(self) -> None:
        """Be open, with a new lock."""
        self._lock = threading.Lock()


_calls: list[Callable[[], None]] = []
_objects: WeakSet[ProcessState] = WeakSet()
_gates: WeakSet[Gate] = WeakSet()


class _Fork(NamedTuple):
    """What a thread undoes once its fork is done."""

    shut: list[Gate]
    blocked: set[int]


# By thread: the fork that it is doing.
_forks: dict[int, _Fork] = {}
# Signals that are blocked during a fork. Python forgets those that reach a child before the fork
# has returned in it: a signal with a handler would be lost.
held_back: set[int] = set()


# Replaced in every forked child.
_this_process = os.urandom(8).hex()


def this_process() -> str:
    """Return what tells this process from others."""
    return _this_process


def in_child(call: C) -> C:
    """Call this function in every forked child; also a decorator."""
    _calls.append(call)
    return call


def watch(thing: ProcessState) -> None:
    """Call `thing.after_fork()` in every forked child while `thing` is alive."""
    _objects.add(thing)


def _before() -> None:
    already = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    blocked = {number for number in held_back if number not in already}
    gates = [gate for gate in list(_gates) if gate.shut()]
    _forks[threading.get_ident()] = _Fork(gates, blocked)
    if blocked:
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


def _in_parent() -> None:
    fork = _forks.pop(threading.get_ident(), None)
    if fork is None:
        return
    for gate in fork.shut:
        gate.reopen()
    _unblock(fork)


def _in_child() -> None:
    global _this_process  # of the child
    _this_process = os.urandom(8).hex()
    fork = _forks.get(threading.get_ident())
    _forks.clear()
    try:
        for gate in list(_gates):
            gate.renew()
        for call in (*_calls, *[thing.after_fork for thing in list(_objects)]):
            with errors.suppress_errors("starting a forked child"):
                call()
    finally:
        if fork is not None:
            _unblock(fork)


def _unblock(fork: _Fork) -> None:
    if fork.blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, fork.blocked)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


# --- the end of a child ---------------------------------------------------------------------------

# Runs before multiprocessing closes its queues and waits for children of the child.
_EXIT_PRIORITY: Final = 100

# How often the end of a worker of billiard's pool is looked for.
_LOOK_S: Final = 0.1

# Called as such a child begins, once `at_end_of_child()` has been called.
at_begin: list[Callable[[], None]] = []
_at_end: Callable[[], None] | None = None
# Packages like multiprocessing whose children are known here.
_registered: set[str] = set()
# multiprocessing itself, its fork with dill (pathos, Hugging Face datasets), and Celery's
_PACKAGES: Final = ("multiprocessing", "multiprocess", "billiard")


def at_end_of_child(call: Callable[[], None]) -> None:
    """Call this at the end of a process that multiprocessing, or one of its kind, started.

    It holds for this process and its children. Call it again in a forked child: multiprocessing
    may not have been imported before.
    """
    global _at_end  # written here only
    _at_end = call
    _watch_celery()
    # A program that starts children has imported the package; no other pays for its import.
    if "billiard" in sys.modules:
        # it imports these at its first process only
        with errors.suppress_errors("the end of a child process"):
            for name in ("billiard.util", "billiard.process"):
                importlib.import_module(name)
    for package in _PACKAGES:
        util = sys.modules.get(f"{package}.util")
        process = sys.modules.get(f"{package}.process")
        if util is None or process is None:
            continue
        if package not in _registered:
            _registered.add(package)
            util.register_after_fork(_finish, functools.partial(_begin, util))
        if _is_child(process):
            _begin(util)


def _is_child(process: Any) -> bool:
    if hasattr(process, "parent_process"):
        return process.parent_process() is not None
    return getattr(process.current_process(), "_parent_pid", None) is not None  # billiard


def _watch_celery() -> None:
    """Have the children of Celery's pool end as others do: they leave by `os._exit`."""
    celery = sys.modules.get("celery.signals")
    if celery is not None and "celery" not in _registered:
        _registered.add("celery")
        celery.worker_process_shutdown.connect(
            lambda **_: _finish(), weak=False, dispatch_uid="otel_pipeline_metrics"
        )


def _begin(util: Any, _: object = None) -> None:
    util.Finalize(None, _finish, exitpriority=_EXIT_PRIORITY)
    # Celery's say when they end
    if util.__name__ == "billiard.util" and "celery" not in _registered:
        threading.Thread(target=_watch_billiard, name="opm-end", daemon=True).start()
    for call in at_begin:
        with errors.suppress_errors("the beginning of a child process"):
            call()


def _watch_billiard() -> None:
    """Finish a worker of billiard's pool, which leaves by `os._exit` after a pause of a second."""
    here = threading.main_thread().ident or 0
    while sys._current_frames()[here].f_code.co_name != "_do_exit":
        time.sleep(_LOOK_S)
    _finish()


def _finish() -> None:
    if _at_end is not None:
        with errors.suppress_errors("the end of a child process"):
            _at_end()
