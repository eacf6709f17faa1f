"""Link the spans of consumers to the producers of their items."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics._stages.execution import Execution


# Of many producers, the first 64 and the last 63 are linked: the SDK takes 128 links.
FIRST_LINKS: Final = 64
LAST_LINKS: Final = 63


class Links:
    """The producers of what a worker got since it last entered a stage."""

    __slots__ = ("dropped", "first", "last")

    def __init__(self) -> None:
        self.first: list[Any] = []
        self.last: deque[Any] = deque(maxlen=LAST_LINKS)
        self.dropped = 0

    def add(self, link: Any) -> None:
        """Keep a link; among the last ones it replaces the oldest."""
        if len(self.first) < FIRST_LINKS:
            self.first.append(link)
            return
        if len(self.last) == LAST_LINKS:
            self.dropped += 1
        self.last.append(link)


# By stage in progress: the links that may still be replaced by later ones.
LateLinks = dict["Execution", "deque[Any]"]


def link_in_progress(late: LateLinks, execution: Execution, link: Any) -> None:
    """Link a stage in progress to a producer: now, or in `link_late`."""
    if execution.span is None:
        return
    if len(execution.links) < FIRST_LINKS:
        execution.links = (*execution.links, link)
        execution.span.link(link)
        return
    last = late.get(execution)
    if last is None:
        room = max(0, FIRST_LINKS + LAST_LINKS - len(execution.links))
        last = late[execution] = deque(maxlen=room)
    if len(last) == last.maxlen:
        execution.links_dropped += 1
    last.append(link)


def link_late(late: LateLinks, execution: Execution) -> None:
    """Link a stage that ends or pauses to its last producers; count those left out."""
    last = late.pop(execution, None)
    if last is None or execution.span is None:
        return
    execution.links = (*execution.links, *last)
    for link in last:
        execution.span.link(link)
    if execution.links_dropped:
        execution.span.drop_links(execution.links_dropped)
