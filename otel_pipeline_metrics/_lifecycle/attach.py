"""Let `opm top` look at this process: a socket that sends what there is to see, and reads nothing.

Only with `configure(attach=True)` does anything listen. One daemon thread does everything. A write
never blocks: who does not take a picture before the next one is due is dropped.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import attaching, forking, signals
from otel_pipeline_metrics._core.text import printable
from otel_pipeline_metrics._lifecycle.collector import get_metrics_collector
from otel_pipeline_metrics._lifecycle.run import Run
from otel_pipeline_metrics.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Sequence


# seconds between two pictures, while somebody looks
INTERVAL_S: Final = 1.0
MOST_CLIENTS: Final = 4
# entries of each part of a report, and runs in progress: the first ones
_MOST_ENTRIES: Final = 200
_MOST_RUNS: Final = 4
_JOIN_S: Final = 1.0
# what no picture shows
_LEFT_OUT: Final = {"sketch", "slowest", "callers", "service_by_in_flight", "series"}

_server: Server | None = None
_at_end_registered = False


def update(*, wanted: bool) -> None:
    """Begin or end to listen. What stands in the way is logged once, and changes nothing else."""
    global _server, _at_end_registered
    server = _server
    if server is not None and wanted:
        return
    if server is not None:
        _server = None
        server.stop()
    if not wanted:
        return
    try:
        attaching.check_system()
        _server = Server()
    except (OSError, RuntimeError) as error:
        errors.warn_once("attach", "attach: `opm top` cannot look at this process: %s", error)
        return
    if not _at_end_registered:
        _at_end_registered = True
        atexit.register(_at_end)
        signals.at_end.append(_at_end)
    forking.at_end_of_child(_at_end)


def listens() -> bool:
    """Tell whether there is a socket, which SIGTERM must not leave behind."""
    return _server is not None


def _at_end() -> None:
    update(wanted=False)


class Server:
    """The socket of this process, and the thread that serves it.

    Raises:
        NotTrustedError: the folder is not, or not only, ours, or another process has the name.
        OSError: the socket cannot be made.
        RuntimeError: the system refuses a thread.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._listener, self.path = _listen(self._pid)
        self._inode = os.lstat(self.path).st_ino
        self._awake, self._waker = socket.socketpair()
        self._clients: list[_Client] = []
        self._thread = threading.Thread(target=self._run, name="opm-attach", daemon=True)
        forking.watch(self)
        try:
            self._thread.start()
        except BaseException:
            self._unlink()
            self._close()
            raise

    def after_fork(self) -> None:
        """Close the parent's sockets in a forked child; the file stays the parent's."""
        global _server
        if _server is self:
            _server = None
        self._close()

    def stop(self) -> None:
        """End to listen, and remove the socket; a forked child removes nothing."""
        if os.getpid() != self._pid:
            return
        self._unlink()
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        # SIGTERM may have interrupted this very thread
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            # another process of the same number, in another container, may have the name by now
            if os.lstat(self.path).st_ino == self._inode:
                self.path.unlink()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _close(self) -> None:
        for client in self._clients:
            client.connection.close()
        for each in (self._listener, self._awake, self._waker):
            each.close()

    def _run(self) -> None:
        with errors.suppress_errors("serving `opm top`"):
            self._serve()
        self._clients, clients = [], self._clients
        for client in clients:
            client.connection.close()
        self._unlink()
        self._close()

    def _serve(self) -> None:
        due = 0.0
        # it has no file descriptor that a forked child would share
        with selectors.PollSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._awake, selectors.EVENT_READ)
            while True:
                left = max(0.0, due - clock.monotonic()) if self._clients else None
                for key, _ in selector.select(left):
                    if key.fileobj is self._awake:
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data is not None and not key.data.write():
                        self._drop(selector, key.data)
                if self._clients and clock.monotonic() >= due:
                    due = clock.monotonic() + INTERVAL_S
                    self._send(self._clients)
                self._watch(selector)

    def _accept(self) -> None:
        """Take a client, if it is ours or root's and there is room, and send it a picture."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it is gone already
            return
        try:
            attaching.check_peer(connection)
            connection.setblocking(False)
            if len(self._clients) < MOST_CLIENTS:
                self._clients.append(_Client(connection))
                self._send(self._clients[-1:])
                return
            connection.send(_encoded({"refused": f"{MOST_CLIENTS} others look at it already"}))
        except OSError:
            errors.logger.debug("a client of attach was refused", exc_info=True)
        connection.close()

    def _send(self, clients: Sequence[_Client]) -> None:
        with errors.suppress_errors("a picture for `opm top`"):
            content = picture()
            for client in clients:
                client.give(content)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for room only where a client has not taken all, and drop those that are gone."""
        for client in list(self._clients):
            waits = client.connection in selector.get_map()
            if client.gone:
                self._drop(selector, client)
            elif client.pending and not waits:
                selector.register(client.connection, selectors.EVENT_WRITE, client)
            elif waits and not client.pending:
                selector.unregister(client.connection)

    def _drop(self, selector: selectors.BaseSelector, client: _Client) -> None:
        if client.connection in selector.get_map():
            selector.unregister(client.connection)
        if client in self._clients:
            self._clients.remove(client)
        client.connection.close()


class _Client:
    """Somebody who looks; nothing is ever read from them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pending = b""
        self.gone = False

    def give(self, content: bytes) -> None:
        """Send a picture; who has not taken the last one by now is too slow."""
        if self.pending:
            self.gone = True
            return
        self.pending = content
        self.write()

    def write(self) -> bool:
        """Send what the system takes now; tell whether the client is still there."""
        try:
            self.pending = self.pending[self.connection.send(self.pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
        return not self.gone


def _listen(pid: int) -> tuple[socket.socket, Path]:
    """Make the socket of a process, in the first folder."""
    folder = attaching.folders()[0]
    # another process may remove the empty folder between these steps
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            return _listen_in(folder, pid)
    return _listen_in(folder, pid)


def _listen_in(folder: Path, pid: int) -> tuple[socket.socket, Path]:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    attaching.check_folder(folder)
    attaching.remove_stale(folder)
    path = folder / str(pid)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(MOST_CLIENTS)
        # the folder may have been replaced since it was looked at
        attaching.check_folder(folder)
        attaching.check_socket(path)
    except BaseException:
        listener.close()
        raise
    return listener, path


# --- what there is to see -------------------------------------------------------------------


def picture() -> bytes:
    """Return the reports of the runs in progress, or else of the process, as a line of JSON."""
    program = printable(Path(sys.argv[0] if sys.argv else "").name) or "python"
    runs = [run.report.to_dict() for run in signals.in_progress() if isinstance(run, Run)]
    if not runs:
        runs = [RunReport(get_metrics_collector().export_json()).to_dict()]
        runs[0]["run"]["pipeline"] = program
    reports = [_trimmed(report) for report in runs[:_MOST_RUNS]]
    return _encoded({"pid": os.getpid(), "program": program, "reports": reports})


def _encoded(data: dict[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"


def _trimmed(part: Any) -> Any:
    if isinstance(part, dict):
        return {
            key: [] if key == "windows" else _trimmed(value)
            for key, value in part.items()
            if key not in _LEFT_OUT
        }
    if isinstance(part, list):
        return [_trimmed(value) for value in part[:_MOST_ENTRIES]]
    return part
