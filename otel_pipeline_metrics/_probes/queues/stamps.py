"""Keep the time of each put beside the queue, in stamps.

A stamp is paired with an item only if the pair is certain; otherwise the item's time in the queue
is unknown. The number of items shows whether pairs are certain: the stamps and the items without
a stamp are together as many as the queue holds. If they are not, the queue's content was changed
directly, and from then on all of its items count as items without a stamp.

A stamp holds its item, so no other object can have the item's `id` while the stamp exists.
"""

from __future__ import annotations

import contextlib
from collections import deque
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# The item, the time of its put (None if unknown), and the span context of its producer.
Stamp = tuple[Any, "float | None", Any]

_TIME: Final = itemgetter(1)

# Looks at stamps while other threads change them.
TRIES: Final = 3

# Sets of stamps kept until they can be released outside of the queue's lock.
FORGOTTEN_BOUND: Final = 16


class Stamps(Protocol):
    """The stamps of one queue. Callers hold the queue's lock, if it has one."""

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's after the put."""

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got, if it is certain."""

    def times(self, sentinel: object, step: int) -> list[float | None]:
        """Return when every `step`-th item in the queue was put, as far as that is known.

        None stands for a sentinel. It is called without the queue's lock.
        """


def known_times(stamps: Stamps, sentinel: object, step: int) -> list[float | None]:
    """Return `stamps.times(sentinel, step)`; nothing if other threads keep changing them."""
    for _ in range(TRIES):
        with contextlib.suppress(RuntimeError):  # changed during the look
            return stamps.times(sentinel, step)
    return []


class OrderedStamps:
    """The stamps of a queue that is first in, first out, or last in, first out.

    The order alone tells equal and identical items apart. The identity is compared as well, since
    the queue's content may have been changed directly.
    """

    __slots__ = ("_forgotten", "first_out", "held", "unknown")

    def __init__(self, size: int, forgotten: list[Any], *, fifo: bool) -> None:
        self.held: deque[Stamp] = deque()
        # items without a stamp: they are the oldest, since every later put gets a stamp
        self.unknown = size
        self.first_out = fifo
        self._forgotten = forgotten

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's after the put."""
        if size != self.unknown + len(self.held) + 1:
            self._forget(size - 1)
        self.held.append(stamp)

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got; `size` is the queue's after the get."""
        stamps = self.held
        if size + 1 != self.unknown + len(stamps):
            self._forget(size)
            return None
        if self.unknown and (self.first_out or not stamps):
            self.unknown -= 1
            return None
        stamp = stamps.popleft() if self.first_out else stamps.pop()
        if stamp[0] is item:
            return stamp
        self._forget(size)
        return None

    def times(self, sentinel: object, step: int) -> list[float | None]:
        """Return when every `step`-th item in the queue was put, as far as that is known."""
        # in C, so that no other thread puts or gets meanwhile
        return list(map(_TIME, islice(self.held, 0, None, step)))

    def _forget(self, size: int) -> None:
        self.unknown = max(0, size)
        _release_later(self._forgotten, self.held.copy())
        self.held.clear()


class IdentityStamps:
    """The stamps of a queue in any other order, found by the identity of the item.

    If an object is in the queue several times, which of its puts a get belongs to is unknown. So
    its times in the queue are unknown until it is no longer in the queue.
    """

    __slots__ = ("_by_id", "_content", "_forgotten", "_stamped", "_steady", "_unknown")

    def __init__(
        self, size: int, forgotten: list[Any], content: Callable[[], Iterable[Any]] | None
    ) -> None:
        # by identity: the stamp, and how many times the item is in the queue
        self._by_id: dict[int, tuple[Stamp, int]] = {}
        self._stamped = 0
        self._unknown = size
        self._forgotten = forgotten
        # Whether a put adds exactly one item. A subclass may do anything; the content of the
        # standard priority queues can be read.
        self._steady = content is not None
        # Reading takes time in proportion to the queue's length, so it is read at most once.
        self._content = content

    def add(self, stamp: Stamp, size: int) -> None:
        """Keep the stamp of an item that was put; `size` is the queue's after the put."""
        if size != self._stamped + self._unknown + 1:
            if not self._steady:
                # the put may have dropped or replaced this item or another
                self._forget(size)
                return
            self._forget(size - 1)
        _, count = self._by_id.get(id(stamp[0]), (None, 0))
        self._by_id[id(stamp[0])] = ((stamp[0], None, None) if count else stamp, count + 1)
        self._stamped += 1

    def take(self, item: Any, size: int) -> Stamp | None:
        """Return the stamp of an item that was got; `size` is the queue's after the get."""
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
                # a subclass returned an object other than the one that was put
                self._forget(size)
            return None
        self._drop_one(id(item), *found)
        # one of the items without a stamp may be this very object
        return None if self._unknown else found[0]

    def times(self, sentinel: object, step: int) -> list[float | None]:
        """Return when every `step`-th item in the queue was put, as far as that is known."""
        times: list[float | None] = []
        for (item, at, _), count in list(islice(self._by_id.values(), 0, None, step)):
            if item is sentinel:
                times += [None] * count
            elif at is not None:
                times.append(at)
        return times

    def _drop_one(self, key: int, stamp: Stamp, count: int) -> None:
        self._stamped -= 1
        if count == 1:
            del self._by_id[key]
        else:
            self._by_id[key] = stamp, count - 1

    def _look_at(self, taken: Any, content: Iterable[Any]) -> None:
        """Give every item of the queue a stamp; it has no time if that is unknown."""
        seen: dict[int, tuple[Stamp, int]] = {}
        for item in (taken, *content):
            _, count = seen.get(id(item), (None, 0))
            seen[id(item)] = (item, None, None), count + 1
        for key, (_, count) in seen.items():
            stamp, stamped = self._by_id.get(key, (None, 0))
            if stamp is not None and stamped == count:
                seen[key] = stamp, count
        self._by_id, self._stamped, self._unknown = seen, self._stamped + self._unknown, 0

    def _forget(self, size: int) -> None:
        _release_later(self._forgotten, self._by_id)
        self._by_id, self._stamped, self._unknown = {}, 0, max(0, size)


def _release_later(forgotten: list[Any], stamps: Any) -> None:
    """Keep stamps until the queue's lock is free, which destructors may need."""
    if stamps and len(forgotten) < FORGOTTEN_BOUND:
        forgotten.append(stamps)
