"""However a server answers, an export ends at its deadline and reads a bounded answer."""

from __future__ import annotations

import errno
import gc
import gzip
import itertools
import os
import socket
import ssl
import threading
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._export.delivery import delivery
from otel_pipeline_metrics._export.delivery.http_session import LIMIT, BoundedSession
from otel_pipeline_metrics._export.delivery.responses import why
from tests.export.conftest import make_spans, span_answer, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Script = Callable[[], Iterable[bytes]]
    Build = Callable[..., ExportPipeline]


OK = b"HTTP/1.1 200 OK\r\n"
REJECTED = span_answer(2).SerializeToString()


class Server:
    """Answers each request with the next script, the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self.requests = 0
        self.connections = 0
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while self._read_request(file):
                script = self._scripts[min(self.requests, len(self._scripts) - 1)]
                self.requests += 1
                try:
                    for part in script():
                        connection.sendall(part)
                except OSError:  # the client has closed the connection
                    return
                if b"Connection: close" in b"".join(itertools.islice(script(), 3)):
                    return

    @staticmethod
    def _read_request(file: Iterable[bytes]) -> bool:
        length = 0
        for line in file:
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
            if line == b"\r\n":
                file.read(length)  # type: ignore[attr-defined]
                return True
        return False

    def close(self) -> None:
        gc.collect()  # urllib3 closes the connections of a pool when that is freed
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection is still open"


@contextmanager
def serving(*scripts: Script) -> Iterator[Server]:
    server = Server(*scripts)
    try:
        yield server
    finally:
        server.close()


def whole(body: bytes, head: bytes = b"") -> Script:
    return lambda: [OK, head, b"Content-Length: %d\r\n\r\n" % len(body), body]


def endless(head: bytes = b"Transfer-Encoding: chunked\r\n") -> Script:
    chunk = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
    return lambda: itertools.chain([OK, head, b"\r\n"], itertools.repeat(chunk))


def trickling(*head: bytes) -> Script:
    return lambda: itertools.chain(head, itertools.repeat(b"1"))


def unsized_trickle() -> Iterable[bytes]:
    return itertools.chain([OK, b"\r\n"], itertools.repeat(b"1"))


ENDING = whole(REJECTED)
# a server that never stops, or sends no end: the status has arrived, the body never does
BODIES = {
    "endless chunks": endless(),
    "endless gzip": endless(b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n"),
    "unsized": unsized_trickle,
    "cut off": lambda: [OK, b"Content-Length: 1000\r\nConnection: close\r\n\r\n", b"abc"],
    "too long": whole(b"\0" * (LIMIT + 1)),
    "garbage": whole(os.urandom(300)),
    "not gzip": whole(b"plain", b"Content-Encoding: gzip\r\n"),
    "bomb": whole(gzip.compress(bytes(20_000_000)), b"Content-Encoding: gzip\r\n"),
}
HEADS = {
    "endless 100s": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless head": trickling(OK, b"X: "),
    "endless status": trickling(),
    "garbage": lambda: [os.urandom(300) + b"\r\n\r\n"],
}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass with each look at the clock: ten reads, and the deadline is over."""
    ticks = itertools.count(0.0)
    monkeypatch.setattr(_clock, "monotonic", lambda: next(ticks))


@pytest.fixture(params=[*BODIES])
def body(request: pytest.FixtureRequest) -> Script:
    return BODIES[request.param]


class TestSession:
    def post(self, server: Server) -> requests.Response:
        with BoundedSession() as session:
            return session.request("POST", server.endpoint, data=b"x", timeout=10)

    @pytest.mark.parametrize("compress", [bytes, gzip.compress, zlib.compress])
    def test_an_answer_is_read_and_decoded(self, compress: Callable[[bytes], bytes]) -> None:
        head = b"" if compress is bytes else b"Content-Encoding: gzip\r\n"
        text = b"x" * LIMIT
        with serving(whole(compress(text), head)) as server:
            answer = self.post(server)
        assert (answer.content, answer.text, answer.status_code) == (text, text.decode(), 200)

    def test_chunks_are_joined(self) -> None:
        chunks = [b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"]
        with serving(lambda: [OK, *chunks]) as server:
            assert self.post(server).content == b"abc"

    @pytest.mark.parametrize(("head", "connections"), [(b"", 1), (b"Connection: close\r\n", 3)])
    def test_a_connection_is_used_again_after_a_whole_answer(
        self, head: bytes, connections: int
    ) -> None:
        with serving(whole(b"abc", head)) as server, BoundedSession() as session:
            for _ in range(3):
                answer = session.request("POST", server.endpoint, timeout=10)
                assert answer.content == b"abc"
            assert server.connections == connections

    @pytest.mark.usefixtures("late")
    def test_a_body_that_does_not_end_is_none(self, body: Script) -> None:
        with serving(body) as server:
            answer = self.post(server)
        assert answer.status_code == 200
        assert len(answer.content) <= LIMIT

    @pytest.mark.usefixtures("late")
    @pytest.mark.parametrize("head", HEADS.values(), ids=[*HEADS])
    def test_a_head_that_does_not_end_is_an_error(self, head: Script) -> None:
        with serving(head) as server, pytest.raises(requests.RequestException):
            self.post(server)

    def test_a_redirect_is_not_followed(self) -> None:
        moved = b"HTTP/1.1 307 No\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        with serving(lambda: [moved]) as server:
            assert self.post(server).status_code == 307
            assert server.requests == 1

    def test_no_body_is_read_to_find_a_next_request(self) -> None:
        moved = b"HTTP/1.1 302 No\r\nLocation: /x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        sent = itertools.count()

        def body() -> Iterator[bytes]:
            yield moved
            while True:
                next(sent)
                yield chunk

        with serving(body) as server:
            answer = self.post(server)
        assert (answer.status_code, answer.content) == (302, b"")
        # what the buffers of the system take, and no more
        assert next(sent) * len(chunk) < 64 * 1024 * 1024

    def test_what_follows_an_interim_answer_is_not_that_to_the_next_request(self) -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        with serving(lambda: [hints], whole(b"abc")) as server, BoundedSession() as session:
            assert session.request("POST", server.endpoint, timeout=10).status_code == 103
            assert session.request("POST", server.endpoint, timeout=10).content == b"abc"
            assert server.connections == 2


@pytest.fixture(params=[True, False], ids=["spool", "no spool"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    return {"spool": tmp_path} if request.param else {}


class TestExports:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        # of an attempt; the trickling servers use it up
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        monkeypatch.setattr(delivery, "PAUSE_S", (0.0, 0.0))

    def test_a_batch_arrives_whatever_follows_the_status(
        self,
        build: Build,
        body: Script,
        arguments: dict[str, Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with serving(body, ENDING) as server:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.endpoint)
            telemetry = build(**arguments)
            make_spans(telemetry, 5)
            telemetry.flush(5)
            assert spans(telemetry).exported == 5
            # two of the next are rejected, which its body says
            make_spans(telemetry, 5)
            telemetry.shutdown(5)
            assert server.requests == 2
        found = spans(telemetry)
        assert (found.exported, found.dropped, found.spooled) == (8, 2, 0)

    @pytest.mark.parametrize("head", HEADS.values(), ids=[*HEADS])
    def test_a_head_that_does_not_end_stops_no_later_export(
        self,
        build: Build,
        head: Script,
        arguments: dict[str, Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with serving(head, head, head, head, whole(b"")) as server:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.endpoint)
            telemetry = build(**arguments)
            for _ in range(6):
                make_spans(telemetry, 5)
                telemetry.flush(20)
            telemetry.shutdown(5)
        found = spans(telemetry)
        assert found.created == 30
        assert found.exported >= 10
        assert found.exported == 30 or not arguments
        (warning,) = [r.message for r in caplog.records if "cannot be exported" in r.message]
        assert "http://127.0.0.1" in warning
        assert " (" in warning.partition(";")[0]


class TestReasons:
    def chained(self, inner: Exception) -> Exception:
        error = KeyError("s3cret")
        error.__cause__ = inner
        return requests.ConnectionError("s3cret", error)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (
                ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
                "Connection refused",
            ),
            (socket.gaierror(socket.EAI_NONAME, "Name not known"), "Name not known"),
            (TimeoutError("s3cret"), None),
            (ValueError("s3cret"), None),
            (OSError("s3cret", "x"), "x"),
        ],
    )
    def test_the_system_says_why(self, error: Exception, reason: str | None) -> None:
        expected = "ConnectionError" + (f": {reason}" if reason else "")
        assert why(self.chained(error)) == expected

    def test_a_refused_certificate_says_why(self) -> None:
        error = ssl.SSLCertVerificationError(1, "s3cret")
        error.verify_message = "certificate has expired"
        assert why(self.chained(error)) == "ConnectionError: certificate has expired"

    def test_causes_that_go_in_circles_end(self) -> None:
        one, other = ValueError("a"), ValueError("b")
        one.__cause__, other.__cause__ = other, one
        assert why(one) == "ValueError"

    def test_a_refused_connection_is_said(
        self, build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        telemetry = build()
        make_spans(telemetry, 2)
        telemetry.shutdown(5)
        first, last = [record.message for record in caplog.records]
        assert "(ConnectionError: Connection refused); the pipeline continues" in first
        assert last == (
            "2 spans could not be exported to http://127.0.0.1:1/v1/traces "
            "(ConnectionError: Connection refused)"
        )
