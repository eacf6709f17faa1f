"""What a forked child has to forget: locks other threads held, the parent's threads and PID."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forgetful(Protocol):
    """Something with state that belongs to one process."""

    def after_fork(self) -> None:
        """Make the state that of a new process; runs in the child, before anything else."""


_watched: WeakSet[Forgetful] = WeakSet()


def watch(thing: Forgetful) -> None:
    """Call `thing.after_fork()` in every forked child for as long as `thing` lives."""
    _watched.add(thing)


def _in_child() -> None:
    for thing in list(_watched):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    # One hook for all of them: a registered hook can never be taken back.
    os.register_at_fork(after_in_child=_in_child)
