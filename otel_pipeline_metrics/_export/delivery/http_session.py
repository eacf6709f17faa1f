"""A `requests` session whose answers end at the request's deadline, and are read to a limit.

The timeout of `requests` is for each piece that arrives, so a server that sends a byte from time
to time, or never ends, would hold the exporting thread, or fill the memory. Here the timeout is
the deadline for the whole answer, its head included.
"""

from __future__ import annotations

import http.client
import io
import queue
import threading
import zlib
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from otel_pipeline_metrics._core import clock

# of an answer's body; one that says how many items were rejected has a few bytes
LIMIT: Final = 64 * 1024
# the first status of an answer that no other one follows
_FINAL: Final = 200
# if the exporter gives no timeout
_DEFAULT_S: Final = 10.0
# zlib, or gzip by its head
_EITHER: Final = 47


class _Here(threading.local):
    # the monotonic time at which this thread's answer must have arrived
    until = 0.0


_here = _Here()


class _Bounded(io.RawIOBase):
    """What a socket's file reads until a deadline."""

    def __init__(self, file: Any, sock: Any, until: float) -> None:
        self._file = file
        self._sock = sock
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until - clock.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer has not ended in time")
        self._sock.settimeout(left_s)
        read: int | None = self._file.readinto(buffer)
        return read

    def close(self) -> None:
        # the file, not the socket, keeps a connection open that ends with this answer
        self._file.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        file: Any = self.fp
        self.fp = io.BufferedReader(_Bounded(file.detach(), sock, _here.until))


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Idle:
    """The idle connections of a pool, which never waits for one.

    urllib3 empties it in a finalizer. A queue of `queue` is gevent's in a program that gevent has
    patched, and raises "greenlet is being finalized" there at the interpreter's end.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._kept: list[Any] = []

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if 0 < self._maxsize <= len(self._kept):
            raise queue.Full
        self._kept.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._kept.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._kept)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection
    QueueCls: Any = _Idle


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
    QueueCls: Any = _Idle


_POOLS: Final[dict[str, Any]] = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class BoundedSession(requests.Session):
    """A session that reads at most `LIMIT` bytes of an answer, and not beyond the timeout.

    An answer whose body is cut off has the status that it began with, and no body. Redirects are
    not followed: OTLP knows none, and their bodies would be read whole.
    """

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return no address: `requests` reads a whole body to find the next request."""
        return None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and return the bounded answer."""
        kwargs |= {"stream": True, "allow_redirects": False}
        _here.until = clock.monotonic() + _seconds(kwargs.get("timeout"))
        response = super().request(*args, **kwargs)
        raw: Any = response.raw
        if response.status_code < _FINAL:
            # what follows would be taken for the answer to the next request
            raw.close()
            body: Any = io.BytesIO()
        else:
            body = io.BytesIO(_read(raw, response.headers.get("Content-Encoding")))
        response.raw = body
        return response


def _seconds(timeout: Any) -> float:
    """Return the time that a request has, from `requests`' number or pair of numbers."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return max((part for part in parts if part), default=_DEFAULT_S)


def _read(raw: Any, encoding: str | None) -> bytes:
    """Return the decoded body; an empty one if it is too long, cut off or late."""
    found = bytearray()
    try:
        while len(found) <= LIMIT:
            part = raw.read(LIMIT + 1 - len(found), decode_content=False)
            if not part:
                raw.release_conn()
                return _decoded(bytes(found), encoding)
            found += part
    except (HTTPError, OSError, http.client.HTTPException):
        pass
    raw.close()
    raw.release_conn()
    return b""


def _decoded(body: bytes, encoding: str | None) -> bytes:
    if not encoding or encoding == "identity":
        return body
    try:
        # a small body may become a large one
        return zlib.decompressobj(_EITHER).decompress(body, LIMIT)
    except zlib.error:
        return b""
