"""Observe what the collector really answered, which the exporters do not report.

Their result is SUCCESS or FAILURE. It does not distinguish a permanent refusal from one that a
later attempt may overcome, nor a partial success from a whole one. So an observer sits where
the exporter sends: for HTTP a `requests.Session`, which its constructor takes; for gRPC around
the stub, through the one private name that is used here (`_client`). The observer can also
replace the exporter's request, so that what was kept on disk is sent with the exporter's own
address, headers, certificates, compression and retries. A replacement counts as sent only if
its answer was seen, so a future exporter that works differently loses nothing.
"""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.environment_checks import get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from otel_pipeline_metrics._export.environment import Signal


# refusals of the 4xx kind that another attempt may overcome
TRY_LATER: Final = frozenset({408, 429})

# gRPC statuses that no further attempt overcomes
PERMANENT: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
        "UNAUTHENTICATED",
    }
)
# longer than a request may take by default
_REQUEST_S: Final = 3.0

_MAX_CAUSES: Final = 10

_OK: Final = range(200, 300)
_MULTIPLE_CHOICES: Final = 300
_SERVER_ERROR: Final = 500
_CREDENTIALS: Final = "_CREDENTIAL_PROVIDER"


class Answer(NamedTuple):
    """The result of one request."""

    ok: bool
    # a status or an exception's class; no text, which may quote a credential
    reason: str | None = None
    # items that the collector rejected although it answered with success
    rejected: int = 0
    # no request was seen to leave: perhaps it could not be encoded
    unsent: bool = False

    @property
    def permanent(self) -> bool:
        """Whether the same request would be refused again."""
        return not self.ok and is_permanent(self.reason)


def why(error: BaseException) -> str:
    """Return the class of an exception, and what the system said if it caused the exception.

    No other text: it may quote a credential.
    """
    name, inner = type(error).__name__, [error]
    for each in inner:  # grows meanwhile
        said = getattr(each, "verify_message", None) or getattr(each, "strerror", None)
        if isinstance(each, OSError) and each.errno and isinstance(said, str):
            return f"{name}: {said}"
        causes = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        new = [e for e in causes if isinstance(e, BaseException) and e not in inner]
        inner += new[: _MAX_CAUSES - len(inner)]
    return name


def is_permanent(reason: str | None) -> bool:
    """Tell whether a failure for this reason would repeat; unknown reasons might not."""
    if reason is None:
        return False
    if reason.startswith("HTTP "):
        status = int(reason[5:])
        return _MULTIPLE_CHOICES <= status < _SERVER_ERROR and status not in TRY_LATER
    return reason in PERMANENT


class Exchange:
    """The request and the answer of one export; with retries, the last answer."""

    def __init__(self, replacement: Any = None, attempts: int | None = None) -> None:
        # a request to send in place of the exporter's own
        self.replacement = replacement
        # None: no request was sent, or none was observed
        self.answer: Answer | None = None
        self._attempts_left = attempts

    def failed(self, reason: str) -> None:
        """Note a failed attempt.

        Raises:
            GivenUpError: it was the last one allowed.
        """
        self.answer = Answer(ok=False, reason=reason)
        if self._attempts_left is not None:
            self._attempts_left -= 1
            if self._attempts_left <= 0:
                raise GivenUpError(reason)


class GivenUpError(Exception):
    """End of an exporter's own retries, which take a minute in SDK 1.30."""


class _Here(threading.local):
    exchange: Exchange | None = None


_here = _Here()


@contextmanager
def exchange(replacement: Any = None, attempts: int | None = None) -> Iterator[Exchange]:
    """Observe this thread's export, and end it after so many failed attempts."""
    before, _here.exchange = _here.exchange, Exchange(replacement, attempts)
    try:
        yield _here.exchange
    finally:
        _here.exchange = before


def build_http(exporter: Callable[..., Any], signal: str, **arguments: Any) -> tuple[Any, bool]:
    """Build an HTTP exporter; return it and whether its answers can be observed.

    They cannot be if a credential provider brings its own session.
    """
    if any(value and name.endswith(_CREDENTIALS) for name, value in os.environ.items()):
        return exporter(**arguments), False
    return exporter(session=_session(signal), **arguments), True


def build_grpc(exporter: Any, signal: Signal, **arguments: Any) -> tuple[Any, bool]:
    """Build a gRPC exporter; return it and whether its answers can be observed."""
    if not isinstance(exporter, type):
        return exporter(**arguments), False

    class Watched(exporter):  # type: ignore[misc]
        # a property, as the exporter replaces its stub when it reconnects
        @property
        def _client(self) -> Any:
            return self.__dict__.get("_watched")

        @_client.setter
        def _client(self, stub: Any) -> None:
            self.__dict__["_watched"] = None if stub is None else _Stub(stub, signal)

    Watched.__name__ = exporter.__name__
    built = Watched(**arguments)
    return built, "_watched" in built.__dict__


def _fork_support() -> bool | None:
    """Return the value of GRPC_ENABLE_FORK_SUPPORT; None if it is unset."""
    text = get(os.environ, "GRPC_ENABLE_FORK_SUPPORT").lower()
    return text in ("1", "true", "t", "yes", "y") if text else None


def grpc_breaks_after_fork() -> bool:
    """Tell whether gRPC's fork support is off: a child that uses gRPC then crashes."""
    return _fork_support() is False


def _session(signal: str) -> Any:
    from otel_pipeline_metrics._export.delivery.http_session import BoundedSession

    # The first request imports modules, and an import in progress at a fork never ends in the
    # child.
    gates = [forking.Gate()]

    class Session(BoundedSession):
        def request(self, *args: Any, **kwargs: Any) -> requests.Response:
            """Send a request, or its replacement, and note the answer."""
            with gates[0] if gates else nullcontext():
                response = self._exchange(*args, **kwargs)
            gates.clear()
            return response

        def _exchange(self, *args: Any, **kwargs: Any) -> requests.Response:
            seen = _here.exchange
            if seen is None:
                return super().request(*args, **kwargs)
            if seen.replacement is not None:
                headers = {**self.headers, **(kwargs.get("headers") or {})}
                kwargs["data"] = _compressed(seen.replacement, headers)
            try:
                response = super().request(*args, **kwargs)
            except Exception as error:
                seen.failed(why(error))
                raise
            if response.status_code not in _OK:
                # Today's exporters treat a redirect as success, though nothing arrived.
                seen.failed(f"HTTP {response.status_code}")
            else:
                content = response.content
                seen.answer = Answer(ok=True, rejected=_rejected(signal, content) if content else 0)
            return response

    return Session()


def _compressed(request: Any, headers: dict[str, Any]) -> bytes:
    data: bytes = request.SerializeToString()
    encoding = next((v for k, v in headers.items() if k.lower() == "content-encoding"), "")
    if encoding in ("gzip", b"gzip"):
        return gzip.compress(data)
    return zlib.compress(data) if encoding in ("deflate", b"deflate") else data


class _Stub:
    """The exporter's gRPC stub with an observer."""

    def __init__(self, stub: Any, signal: Signal) -> None:
        self._stub = stub
        self._signal = signal
        # with its own fork handlers gRPC hangs in a child that was forked during a call
        self._gate = forking.Gate(_REQUEST_S) if _fork_support() else forking.Gate()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    def Export(self, request: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - gRPC's
        """Send a request and note the answer."""
        seen = _here.exchange
        if seen is not None and seen.replacement is not None:
            request = seen.replacement
        try:
            with self._gate:
                response = self._stub.Export(request, *args, **kwargs)
        except Exception as error:
            code = error.code() if hasattr(error, "code") else None
            if seen is not None:
                seen.failed(getattr(code, "name", None) or why(error))
            raise
        if seen is not None:
            seen.answer = Answer(ok=True, rejected=_rejected_of(self._signal, response))
        return response


def _rejected(signal: str, body: bytes) -> int:
    """Return how many items an HTTP answer says were rejected."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    kind = (
        trace_service_pb2.ExportTraceServiceResponse
        if signal == "traces"
        else metrics_service_pb2.ExportMetricsServiceResponse
    )
    try:
        return _rejected_of(signal, kind.FromString(body))
    except DecodeError:  # a proxy's page, or JSON
        return 0


def _rejected_of(signal: str, response: Any) -> int:
    partial = getattr(response, "partial_success", None)
    field = "rejected_spans" if signal == "traces" else "rejected_data_points"
    return max(0, int(getattr(partial, field, 0)))
