"""When the items in a queue were put: stamps kept beside the queue, never in it.

A stamp is paired with an item only where the pair is certain; elsewhere the item's wait is
unknown. What keeps a pair certain is the number of items: the stamps and the items without one
are together as many as the queue holds. Where they are not, somebody changed the queue's content
behind its methods, and every item in it counts as one without a stamp.

A stamp holds its item, so no other object can have the item's `id` while the stamp exists.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


Stamp = tuple[Any, "float | None", Any]
"""The item, when it was put (None if that is unknown), and the span context of its producer."""

FORGOTTEN_BOUND: Final = 16
"""Sets of stamps that wait to be released outside of the queue's lock."""


class Stamps(Protocol):
    """The stamps of one queue. Callers hold the queue's lock, if it has one."""

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's since."""

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got, if it is certain."""


class OrderedStamps:
    """For a queue that is known to be first in, first out, or last in, first out.

    The order alone tells equal and identical items apart. The identity is compared all the same:
    the queue's content may have been changed behind its methods.
    """

    __slots__ = ("_first_out", "_forgotten", "_stamps", "_unknown")

    def __init__(self, size: int, forgotten: list[Any], *, fifo: bool) -> None:
        self._stamps: deque[Stamp] = deque()
        # items without a stamp: the oldest, since all that is put later gets one
        self._unknown = size
        self._first_out = fifo
        self._forgotten = forgotten

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's since."""
        if size != self._unknown + len(self._stamps) + 1:
            self._forget(size - 1)
        self._stamps.append(stamp)

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got; `size` is the queue's since."""
        stamps = self._stamps
        if size + 1 != self._unknown + len(stamps):
            self._forget(size)
            return None
        if self._unknown and (self._first_out or not stamps):
            self._unknown -= 1
            return None
        stamp = stamps.popleft() if self._first_out else stamps.pop()
        if stamp[0] is item:
            return stamp
        self._forget(size)
        return None

    def _forget(self, size: int) -> None:
        _release_later(self._forgotten, self._stamps)
        self._stamps = deque()
        self._unknown = max(0, size)


class IdentityStamps:
    """For a queue in any other order: a stamp belongs to the item with its identity.

    Of an object that is in the queue several times nobody can tell which one comes out, so its
    waits are unknown until none of it is left.
    """

    __slots__ = ("_by_id", "_content", "_forgotten", "_stamped", "_steady", "_unknown")

    def __init__(
        self, size: int, forgotten: list[Any], content: Callable[[], Iterable[Any]] | None
    ) -> None:
        self._by_id: dict[int, tuple[Stamp, int]] = {}
        """By identity: the stamp, and how many of it are in the queue."""
        self._stamped = 0
        self._unknown = size
        self._forgotten = forgotten
        # A subclass may do anything at a put; one whose content can be read adds an item.
        self._steady = content is not None
        # Read at most once, because that takes as long as the queue is.
        self._content = content

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's since."""
        if size != self._stamped + self._unknown + 1:
            if not self._steady:
                # it may have dropped or replaced an item, this one or another
                self._forget(size)
                return
            self._forget(size - 1)
        _, count = self._by_id.get(id(stamp[0]), (None, 0))
        self._by_id[id(stamp[0])] = ((stamp[0], None, None) if count else stamp, count + 1)
        self._stamped += 1

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got; `size` is the queue's since."""
        if size + 1 != self._stamped + self._unknown:
            self._forget(size)
            return None
        if self._unknown and self._content is not None:
            content, self._content = self._content(), None
            self._look_at(item, content)
        found = self._by_id.get(id(item))
        if found is None:
            if self._unknown:
                self._unknown -= 1
            else:
                # a subclass that hands out another object than was put
                self._forget(size)
            return None
        self._drop_one(id(item), *found)
        # one of the items without a stamp may be this very object
        return None if self._unknown else found[0]

    def _drop_one(self, key: int, stamp: Stamp, count: int) -> None:
        self._stamped -= 1
        if count == 1:
            del self._by_id[key]
        else:
            self._by_id[key] = stamp, count - 1

    def _look_at(self, taken: Any, content: Iterable[Any]) -> None:
        """Count every item, so that none is without a stamp, be it an empty one."""
        seen: dict[int, tuple[Stamp, int]] = {}
        for item in (taken, *content):
            _, count = seen.get(id(item), (None, 0))
            seen[id(item)] = (item, None, None), count + 1
        if sum(count for _, count in seen.values()) != self._stamped + self._unknown:
            return
        for key, (_, count) in seen.items():
            stamp, stamped = self._by_id.get(key, (None, 0))
            if stamp is not None and stamped == count:
                seen[key] = stamp, count
        self._by_id, self._stamped, self._unknown = seen, self._stamped + self._unknown, 0

    def _forget(self, size: int) -> None:
        _release_later(self._forgotten, self._by_id)
        self._by_id, self._stamped, self._unknown = {}, 0, max(0, size)


def _release_later(forgotten: list[Any], stamps: Any) -> None:
    """Keep stamps until the queue's lock is free: a destructor of an item may want that lock."""
    if stamps and len(forgotten) < FORGOTTEN_BOUND:
        forgotten.append(stamps)
