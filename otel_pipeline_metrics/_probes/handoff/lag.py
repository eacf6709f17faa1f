"""Report how many messages a consumer has yet to get, where its client tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from typing_extensions import Self


class Lag:
    """The lag of one consumer, summed over its partitions: a size of the queue.

    For clients with `assignment()` and `highwater(partition)`, as aiokafka's and kafka-python's
    consumers have. Neither makes a request.
    """

    def __init__(self, client: Any, queue: str) -> None:
        self._client = client
        # by topic and partition: messages after the latest that came from there
        self._left: dict[tuple[Any, Any], int] = {}
        registry.register(self, queue)
        sink.add_probe("queues", registry.install_queues)

    @classmethod
    def of(cls, client: Any, queue: str) -> Self | None:
        """Return the lag of a client; None if it does not tell."""
        tells = callable(getattr(client, "highwater", None))
        return cls(client, queue) if tells and hasattr(client, "assignment") else None

    def note(self, message: Any) -> None:
        """Note a message that came. Never raises."""
        try:
            found = {(one.topic, one.partition): one for one in self._client.assignment()}
            came = message.topic, message.partition
            # partitions that another consumer has now are that one's
            self._left = {key: left for key, left in self._left.items() if key in found}
            newest = self._client.highwater(found[came]) if came in found else None
            if newest is not None:
                # the high water mark is the offset of the next message
                self._left[came] = max(0, newest - message.offset - 1)
        except Exception as error:  # of the client, or a message of another kind
            errors.warn_once("lag", "the lag of a consumer is unknown: %r", error)

    def depth(self) -> int | None:
        """Return the number of messages; None before the first came."""
        return sum(self._left.values()) if self._left else None

    def capacity(self) -> None:
        """Return None: it is unbounded."""
