"""Report the depth of queues that the program counts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class DepthByHand:
    """The depth of one queue, in the place of an instrumented queue."""

    def __init__(self) -> None:
        self._depth = 0

    def set(self, depth: int) -> None:
        """Set the number of items."""
        self._depth = depth

    def depth(self) -> int:
        """Return the number of items."""
        return self._depth

    def capacity(self) -> None:
        """Return None: it is unknown."""


def set_depth(known: MutableMapping[str, DepthByHand], name: str, depth: int) -> None:
    """Set the depth of a queue, a new one of `known` too, unless a wrapped one has its name."""
    ours = known.get(name)
    if ours is None:
        if name in registry.sizes():
            errors.warn_once(
                f"queue depth {name}",
                "the queue %r is wrapped, and its depth is measured; what set_queue_depth() gets "
                "for it is ignored",
                name,
            )
            return
        ours = known[name] = DepthByHand()
        registry.register(ours, name)
        sink.add_probe("queues", registry.install_queues)
    ours.set(depth)
