"""Run a server process on free loopback ports: start, watch, kill and restart it.

Start servers from the main thread: on Linux a server is told to end when the thread that started
it does, so an interrupted test run leaves none behind.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_ATTEMPTS = 3
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
POLL_INTERVAL = 0.05

T = TypeVar("T")


class BackendMissingError(Exception):
    """A server's program is not built on this machine."""


class StartError(Exception):
    """A server did not start; the message ends with the last lines of its log."""


@functools.cache
def _binary_paths() -> dict[str, Path]:
    build = ROOT / ".ci" / "backends" / "build.py"
    printed = subprocess.check_output([sys.executable, str(build), "--where"], text=True)
    return {path.name: path for path in map(Path, printed.splitlines())}


def binary(name: str) -> Path:
    """Return a program of `make backends`: otelcol, jaeger, prometheus, promtool."""
    path = _binary_paths()[name]
    if not path.is_file():
        raise BackendMissingError(f"{path} is not there: build it with `make backends`")
    return path


def missing_binaries() -> list[str]:
    """Return the names of the programs that are not built on this machine."""
    return [name for name, path in _binary_paths().items() if not path.is_file()]


def poll(
    look: Callable[[], T],
    *,
    accept: Callable[[T], object] = bool,
    timeout: float,
    what: str,
) -> T:
    """Call a function until its result is accepted (by default: is true); return it."""
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if accept(seen):
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s; last seen: {seen!r:.2000}")
        time.sleep(POLL_INTERVAL)


@contextmanager
def started(code: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program, from its line `ready` on; at the end it gets no more input, and has to end."""
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running
    finally:
        running.communicate(timeout=30)


def free_ports(count: int) -> list[int]:
    """Return ports that are free; all are held until the last is chosen, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def accepts_connections(port: int) -> bool:
    """Tell whether something listens on this loopback port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def get(url: str, **parameters: str) -> bytes:
    """Return the body of a successful answer; RuntimeError with the body of any other."""
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    # No proxy: a machine's proxy settings are not meant for its own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + query, timeout=10) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            answer = error.read().decode(errors="replace")
        raise RuntimeError(f"{url}{query} answered {error.code}: {answer}") from None


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers this with success."""
    try:
        get(url)
    except (OSError, RuntimeError):
        return False
    return True


# Run by a fresh interpreter that then becomes the server: asks Linux for a SIGTERM (15) when the
# parent ends (option 1), which a preexec_fn could ask too, but not safely with threads running.
_END_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
)


def _launcher() -> list[str]:
    return [sys.executable, "-S", "-c", _END_WITH_PARENT] if sys.platform == "linux" else []


class Server(ABC):
    """A server process, which keeps its addresses when it is killed and restarted."""

    # The file name of its binary.
    program: ClassVar[str]
    # The purposes of its ports, one free port each.
    port_names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self._log_start = 0

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Return the command line after the program's name."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Tell whether it works by now; called repeatedly while it starts."""

    def _binary(self) -> Path:
        """Return its file."""
        return binary(self.program)

    def _environment(self) -> dict[str, str]:
        """Return its whole environment: nothing is inherited, such as OTEL_*."""
        return {"HOME": str(self.directory)}

    def __enter__(self) -> Self:
        """Start on free ports; on others if one was taken before the server could bind it."""
        with ExitStack() as stack:
            prefix = f"{self.program}-"
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            self.directory = Path(directory)
            stack.callback(self.stop)
            self._start_on_free_ports()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and remove what it wrote."""
        self._stack.close()

    def _start_on_free_ports(self) -> None:
        for attempts_left in reversed(range(START_ATTEMPTS)):
            self.ports = dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
            try:
                self.start()
            except StartError:
                if not attempts_left:
                    raise
            else:
                return

    @property
    def log_path(self) -> Path:
        """The file of its output."""
        return self.directory / "log.txt"

    def log_text(self) -> str:
        """Return everything it has printed, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Start on its ports, and wait until it is ready."""
        self._log_start = len(self.log_text())
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C is for the pipeline, whose last data it must still take.
            self._process = subprocess.Popen(
                [*_launcher(), str(self._binary()), *self._arguments()],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            poll(self._has_settled, timeout=START_TIMEOUT, what=f"{self.program} to start")
        except TimeoutError as error:
            self.kill()
            raise StartError(self._complaint(str(error))) from None
        if not self.is_running():
            raise StartError(self._complaint(f"{self.program} ended while starting"))

    def _has_settled(self) -> bool:
        return not self.is_running() or self._is_ready()

    def _complaint(self, what: str) -> str:
        last_lines = "\n".join(self._log_since_start().splitlines()[-20:])
        return f"{what}; its log ends with:\n{last_lines}"

    def _log_since_start(self) -> str:
        return self.log_text()[self._log_start :]

    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it so that it may flush; by force if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same ports."""
        self.stop()
        self.start()
