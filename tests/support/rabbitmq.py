"""A real RabbitMQ on the loopback, for one test module."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.process import free_ports, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

# not Debian's wrapper, which changes to the user of the service
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD = shutil.which("epmd")
needs_rabbitmq = pytest.mark.skipif(
    EPMD is None or not SERVER.exists(), reason="there is no rabbitmq-server"
)


@contextlib.contextmanager
def rabbitmq_server(folder: Path) -> Iterator[int]:
    """Run a server that keeps its files in a folder; yield its port.

    It and Erlang's port mapper, which tells nodes of each other, listen on the loopback alone.
    """
    assert EPMD is not None
    port, between_nodes, mapper_port = free_ports(3)
    config = folder / "rabbitmq.conf"
    config.write_text(f"listeners.tcp.default = 127.0.0.1:{port}\nlog.console = true\n")
    (folder / "plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": "opm@localhost",
        "RABBITMQ_DIST_PORT": str(between_nodes),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_LOGS": "-",
    }
    said = folder / "said"
    with said.open("w") as out:
        mapper = subprocess.Popen([EPMD], env=environment, stdout=out, stderr=out)
        server = subprocess.Popen(
            [SERVER], env=environment, stdout=out, stderr=out, cwd=folder, start_new_session=True
        )
        try:
            poll(
                lambda: _answers(port) or server.poll() is not None,
                timeout=120,
                what="rabbitmq-server",
            )
            assert server.poll() is None, said.read_text()
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)
            mapper.kill()
            mapper.wait(20)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            # the frame of `connection.start`
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
