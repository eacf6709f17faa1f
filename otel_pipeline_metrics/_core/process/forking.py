"""What a forked child has to forget: locks other threads held, the parent's threads and PID.

A registered hook can never be taken back, so modules and objects share the one that is registered
here. That is done when the package is imported, so in a child it comes before those of the
providers that `configure()` builds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


C = TypeVar("C", bound="Callable[[], None]")


class Forgetful(Protocol):
    """Something with state that belongs to one process."""

    def after_fork(self) -> None:
        """Make the state that of a new process; runs in the child, before anything else."""


class Gate:
    """Entered for a call that no fork should meet half-way; a fork waits a moment for its end.

    A child that is forked during a gRPC call cannot use gRPC, and one that is forked during the
    import of a module cannot import it.

    Args:
        patience_s: how long a fork may be held up here.
    """

    def __init__(self, patience_s: float = 0.25) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def shut(self) -> bool:
        """Let nobody in; False where a call is still under way when patience ends."""
        return self._lock.acquire(timeout=self._patience_s)

    def reopen(self) -> None:
        """Let calls in again."""
        self._lock.release()

    def renew(self) -> None:
        """Be open, as that of a new process."""
        self._lock = threading.Lock()


_calls: list[Callable[[], None]] = []
_watched: WeakSet[Forgetful] = WeakSet()
_gates: WeakSet[Gate] = WeakSet()


class _Fork(NamedTuple):
    """What a thread undoes once its fork is done."""

    shut: list[Gate]
    blocked: set[int]


_forks: dict[int, _Fork] = {}
"""By thread: the fork that it is doing."""
held_back: set[int] = set()
"""Signals that no child loses: they are blocked during a fork.

Python forgets those that reach a child before the fork has returned in it. One with the default
action ends the child all the same; one with a handler would be lost.
"""


def in_child(call: C) -> C:
    """Call this in every forked child: what a module has to forget. Also a decorator."""
    _calls.append(call)
    return call


def watch(thing: Forgetful) -> None:
    """Call `thing.after_fork()` in every forked child for as long as `thing` lives."""
    _watched.add(thing)


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
    fork = _forks.get(threading.get_ident())
    _forks.clear()
    try:
        for gate in list(_gates):
            gate.renew()
        for call in (*_calls, *[thing.after_fork for thing in list(_watched)]):
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


_EARLY: Final = 100
"""Before multiprocessing closes its queues and waits for children of the child."""

_at_end: Callable[[], None] | None = None
_known = False


def at_end_of_child(call: Callable[[], None]) -> None:
    """Call this at the end of this process if multiprocessing started it, and of such children.

    To be called again in a forked child: multiprocessing may not have been imported before.
    """
    global _at_end, _known  # the one place that holds them
    _at_end = call
    # Whoever starts children has it imported by then; nobody else is to pay for it.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    if not _known:
        _known = True
        util.register_after_fork(_finish, _begin)
    if process.parent_process() is not None:
        _begin(None)


def _begin(_: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _finish, exitpriority=_EARLY)


def _finish() -> None:
    with errors.suppress_errors("the end of a child process"):
        if _at_end is not None:
            _at_end()
