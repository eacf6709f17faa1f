"""Run a program many times and compare each end with the bare program's.

`python -m tests.system.faults.exits.running 1000` runs that many, of each kind in turn.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.support.process import ROOT
from tests.system.faults.exits.programs import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT_S = 60
PROTOCOLS = ("http/protobuf", "grpc")


class End(NamedTuple):
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


@contextmanager
def silent_collector() -> Iterator[str]:
    """Accept connections and never answer; yield the endpoint."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        open_ones: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    open_ones.append(server.accept()[0])
                except OSError:  # closed
                    return
                # those of processes that have ended
                for old in open_ones[:-50]:
                    old.close()
                del open_ones[:-50]

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in open_ones:
                one.close()


def run(name: str, **env: str) -> End:
    """Run one program with these variables."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[name]],
        cwd=ROOT,
        env={**clean, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return End(done.returncode, done.stdout, done.stderr)


def differences(names: Sequence[str], endpoint: str, *, at_once: int) -> Iterator[str | None]:
    """Run the programs; yield for each what differs from the end of the bare one, or None.

    One protocol after the other is used.
    """
    expected = {name: run(name, OPM_BARE="1") for name in sorted(set(names))}

    def instrumented(name: str, protocol: str) -> str | None:
        found = run(
            name, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol
        )
        return None if found == expected[name] else f"{name}, {protocol}: {found}"

    rounds = itertools.cycle(PROTOCOLS)
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(instrumented, names, [next(rounds) for _ in names])


def main(count: int) -> int:
    """Run `count` programs; print what differs, and return how many did."""
    # an odd number of kinds, so each kind meets both protocols
    names = list(itertools.islice(itertools.cycle(PROGRAMS), count))
    failed = 0
    with silent_collector() as endpoint:
        found = differences(names, endpoint, at_once=os.cpu_count() or 1)
        for number, difference in enumerate(found, 1):
            if difference is not None:
                failed += 1
                print(difference, flush=True)
            if number % 100 == 0 or number == count:
                print(f"{number - failed:,} of {number:,} ended like the bare program", flush=True)
    print(f"Python {sys.version}")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]))))
