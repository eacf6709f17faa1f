"""Stand in for anyio's memory object streams, the two ends of one buffer.

anyio is not imported: any pair of objects with the methods of such streams is taken, and so are
trio's memory channels.
"""

from __future__ import annotations

import functools
import math
import types
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._probes.queues.around import AroundProbe
from otel_pipeline_metrics._probes.queues.instrumented import Instrumented, coroutine_function
from otel_pipeline_metrics._probes.queues.probe import QueueWait
from otel_pipeline_metrics._stages.workers.finding import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otel_pipeline_metrics._stages.workers.worker import Worker


_SENDING: Final = ("send", "send_nowait", "clone", "statistics")
_RECEIVING: Final = ("receive", "receive_nowait", "clone", "statistics")


def missing(pair: tuple[Any, ...]) -> list[str]:
    """Return what a pair lacks to be a pair of memory object streams."""
    return [
        f"{position}.{name}"
        for position, end, names in (
            ("the first", pair[0], _SENDING),
            ("the second", pair[1], _RECEIVING),
        )
        for name in names
        if not callable(getattr(end, name, None))
    ]


def stream_probe(pair: tuple[Any, Any], name: str, sentinel: object) -> AroundProbe:
    """Return the one probe of a pair of streams and all of their clones."""
    # The state that both ends share, if there is one: a reference to an end would keep that end
    # for as long as clones of the other exist.
    statistics = getattr(pair[1], "_state", pair[1]).statistics
    return AroundProbe(
        name,
        sentinel,
        functools.partial(_depth, statistics),
        functools.partial(_capacity, statistics),
    )


class _Stream(Instrumented):
    """One end of the buffer, or a clone of one."""

    __slots__ = ()

    def clone(self) -> _Stream:
        """Clone the wrapped stream; the clone is instrumented too."""
        return type(self)(self._opm_queue.clone(), self._opm_probe)

    def __enter__(self) -> _Stream:
        self._opm_queue.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self._opm_queue.__exit__(*details)

    async def __aenter__(self) -> _Stream:
        await self._opm_queue.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> Any:
        return await self._opm_queue.__aexit__(*details)


class InstrumentedSendStream(_Stream):
    """The sending end."""

    __slots__ = ()

    @coroutine_function
    def send(self, item: Any) -> Coroutine[Any, Any, None]:
        """Send an item as the wrapped stream does."""
        return self._opm_send(item, requesting_worker())

    async def _opm_send(self, item: Any, worker: Worker | None) -> None:
        probe = self._opm_probe
        with probe.put_around(item, worker):
            sending = self._opm_queue.send(item)
            await _noticing_wait(sending, QueueWait(probe, "blocked", worker))

    def send_nowait(self, item: Any) -> None:
        """Send an item as the wrapped stream does."""
        with self._opm_probe.put_around(item):
            self._opm_queue.send_nowait(item)


class InstrumentedReceiveStream(_Stream):
    """The receiving end."""

    __slots__ = ()

    @coroutine_function
    def receive(self) -> Coroutine[Any, Any, Any]:
        """Receive an item as the wrapped stream does."""
        return self._opm_receive(requesting_worker())

    async def _opm_receive(self, worker: Worker | None) -> Any:
        probe = self._opm_probe
        with probe.get_around(worker) as get:
            receiving = self._opm_queue.receive()
            item = await _noticing_wait(receiving, QueueWait(probe, "idle", worker))
            return get.got(item)

    def receive_nowait(self) -> Any:
        """Receive an item as the wrapped stream does."""
        with self._opm_probe.get_around() as get:
            return get.got(self._opm_queue.receive_nowait())

    def __aiter__(self) -> InstrumentedReceiveStream:
        return self

    @coroutine_function
    def __anext__(self) -> Coroutine[Any, Any, Any]:
        # the class's function on this object: it calls `receive` here and knows its last error
        following: Coroutine[Any, Any, Any] = type(self._opm_queue).__anext__(self)
        return following


@types.coroutine
def _noticing_wait(running: Coroutine[Any, Any, Any], wait: QueueWait) -> Generator[Any, Any, Any]:
    """Run a send or receive as `await` does, and measure how long it waits.

    A send or receive begins with a checkpoint, at which other tasks run. Only after that does it
    look at the buffer. So it waits from its second suspension on.
    """
    suspensions = 0
    resume, argument = running.send, None
    try:
        while True:
            try:
                wanted = resume(argument)
            except StopIteration as stop:
                return stop.value
            suspensions += 1
            if suspensions == 2:
                wait.__enter__()
            try:
                argument = yield wanted
                resume = running.send
            except GeneratorExit:
                running.close()
                raise
            except BaseException as error:
                resume, argument = running.throw, error
    finally:
        if suspensions > 1:
            wait.__exit__(None, None, None)


def _depth(statistics: Callable[[], Any]) -> int:
    """Return the number of items in the buffer, without those of senders that wait."""
    return int(statistics().current_buffer_used)


def _capacity(statistics: Callable[[], Any]) -> int | None:
    bound = statistics().max_buffer_size
    return None if bound == math.inf else int(bound)
