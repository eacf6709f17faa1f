"""Let the SDK read repaired values of broken variables, without importing it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# reentrant, as a signal handler may call configure() while this thread holds it
_lock = threading.RLock()


@forking.in_child
def _renew_lock() -> None:
    """Replace the lock, which a thread of the parent may have held at the fork."""
    global _lock
    _lock = threading.RLock()


@contextmanager
def repaired_environment(repairs: Mapping[str, str | None]) -> Iterator[None]:
    """Replace broken variables with their repaired values, and restore them after.

    The SDK reads `os.environ` at its import and in its constructors, and offers no other way.
    """
    if not repairs:
        yield
        return
    with _lock:
        before = {name: os.environ.get(name) for name in repairs}
        try:
            update(os.environ, repairs)
            yield
        finally:
            update(os.environ, before)


def update(env: Any, values: Mapping[str, str | None]) -> None:
    """Set variables; None removes one."""
    for name, value in values.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
