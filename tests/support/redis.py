"""A real Redis on a port of the loopback, for one test module."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.process import free_ports, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server")


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Run a server that keeps nothing; yield its port."""
    assert SERVER is not None
    (port,) = free_ports(1)
    server = subprocess.Popen(
        [SERVER, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        poll(lambda: _answers(port), timeout=30, what="redis-server")
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
