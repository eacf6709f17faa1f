#!/usr/bin/env python3
"""Build the real servers that the tests and the demos talk to.

Usage: python .ci/backends/build.py [--dest DIR] [--where] [collector|jaeger|prometheus ...]

With no names, all three are built. Each lands in a directory named after its version, outside
the checkout, so switching branches never serves a binary of the wrong version and a second run
has nothing to do. Go's checksum verification is left as it is: on.

Only the standard library is used, so any Python from 3.10 runs this before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
DEST_VARIABLE = "OTEL_PIPELINE_METRICS_BACKENDS"
# Symbols and build paths are of no use in a test server; without them linking is quicker.
GO_BUILD_FLAGS = ("-trimpath", "-ldflags=-s -w")


class BuildError(Exception):
    """A backend could not be built; the message is meant for a person."""


@dataclass(frozen=True)
class Backend:
    """One server: what it is called, where it belongs, and how it is made."""

    name: str
    version: str
    binaries: tuple[str, ...]
    """The server itself comes first; the rest are tools out of the same source."""
    inputs: tuple[Path, ...]
    """Files of ours that decide what is built; their hash is part of the directory's name."""
    build: Callable[[Backend, Path], None]
    """Called with the backend and an empty directory; leaves the binaries in its `bin`."""

    def directory(self, dest: Path) -> Path:
        """Where this exact version is kept below `dest`."""
        parts = [self.name, self.version]
        if self.inputs:
            digest = hashlib.sha256()
            for path in self.inputs:
                digest.update(path.read_bytes())
            parts.append(digest.hexdigest()[:12])
        return dest / "-".join(parts)

    def paths(self, dest: Path) -> list[Path]:
        """Where each binary of this exact version belongs below `dest`."""
        return [self.directory(dest) / binary for binary in self.binaries]

    def is_built(self, dest: Path) -> bool:
        """Whether every binary of this version is there."""
        return all(path.is_file() for path in self.paths(dest))


def build_collector(backend: Backend, work: Path) -> None:
    """Build the OpenTelemetry Collector with its own builder, from our manifest."""
    builder = f"go.opentelemetry.io/collector/cmd/builder@v{backend.version}"
    go("install", *GO_BUILD_FLAGS, builder, work=work)
    # The manifest's output path is relative, so running in `work` keeps the sources out of here.
    run([str(work / "bin" / "builder"), f"--config={backend.inputs[0]}"], work=work)
    for binary in backend.binaries:
        shutil.move(work / "build" / binary, work / "bin" / binary)


def build_jaeger(backend: Backend, work: Path) -> None:
    """Build Jaeger from the module beside this file, whose go.sum pins every dependency."""
    source = work / "source"
    source.mkdir()
    for path in backend.inputs:
        shutil.copy(path, source)
    package = "github.com/jaegertracing/jaeger/cmd/jaeger"
    output = work / "bin" / backend.binaries[0]
    go("build", *GO_BUILD_FLAGS, "-o", str(output), package, work=work, cwd=source)


def build_prometheus(backend: Backend, work: Path) -> None:
    """Build Prometheus and promtool, which checks its configuration and rules."""
    module = "github.com/prometheus/prometheus/cmd"
    packages = [f"{module}/{binary}@v{backend.version}" for binary in backend.binaries]
    # No service discovery: its cloud clients are most of the build, and the tests need none.
    go("install", *GO_BUILD_FLAGS, "-tags=remove_all_sd", *packages, work=work)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            name="collector",
            version="0.165.0",
            binaries=("otelcol",),
            inputs=(HERE / "collector.yaml",),
            build=build_collector,
        ),
        Backend(
            name="jaeger",
            version="1.76.0",
            binaries=("jaeger",),
            inputs=(HERE / "jaeger" / "go.mod", HERE / "jaeger" / "go.sum"),
            build=build_jaeger,
        ),
        Backend(
            name="prometheus",
            version="0.316.0",
            binaries=("prometheus", "promtool"),
            inputs=(),
            build=build_prometheus,
        ),
    )
}


def go(*arguments: str, work: Path, cwd: Path | None = None) -> None:
    """Run the go command, with its results going to the `bin` of `work`."""
    program = shutil.which("go")
    if program is None:
        raise BuildError("the `go` command was not found: install Go 1.26 or newer, then try again")
    run([program, *arguments], work=work, cwd=cwd)


def run(command: list[str], *, work: Path, cwd: Path | None = None) -> None:
    """Run one build command quietly; its output is shown only when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd or work,
        env=build_environment(os.environ, work),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last_lines = "\n".join(done.stdout.splitlines()[-30:])
        raise BuildError(f"`{' '.join(command)}` exited with {done.returncode}:\n{last_lines}")


def build_environment(inherited: Mapping[str, str], work: Path) -> dict[str, str]:
    """The caller's environment, with the few settings that make builds alike everywhere."""
    return {
        **inherited,
        "CGO_ENABLED": "0",  # no C compiler needed
        "GOBIN": str(work / "bin"),
        "GOTOOLCHAIN": "local",  # never download another Go behind the caller's back
        "GOWORK": "off",  # a go.work file above the cache is not ours
        "TMPDIR": str(work),  # the Collector's builder leaves a directory behind
    }


def build(backend: Backend, dest: Path) -> None:
    """Build one backend and put it in its place, unless it is there already."""
    target = backend.directory(dest)
    title = f"{backend.name} {backend.version}"
    if backend.is_built(dest):
        say(f"{title}: already built in {target}")
        return
    say(f"{title}: building, which takes a few minutes the first time")
    started = time.monotonic()
    dest.mkdir(parents=True, exist_ok=True)
    # Beside the target, because replacing is atomic only within one file system.
    with tempfile.TemporaryDirectory(dir=dest, prefix=f".{backend.name}-") as temporary:
        work = Path(temporary)
        (work / "bin").mkdir()
        backend.build(backend, work)
        target.mkdir(exist_ok=True)
        for binary in backend.binaries:
            (work / "bin" / binary).replace(target / binary)
    say(f"{title}: built in {time.monotonic() - started:.0f} s: {target}")


def say(line: str) -> None:
    """Print one line at once, so a log shows which step is under way."""
    print(f"backends: {line}", flush=True)


def default_dest() -> Path:
    """Where binaries are kept: a variable of ours, else the user's cache directory."""
    if chosen := os.environ.get(DEST_VARIABLE):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "otel-pipeline-metrics" / "backends"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Build the Collector, Jaeger and Prometheus that the tests talk to."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BACKENDS)}")
    parser.add_argument(
        "--dest",
        type=Path,
        default=default_dest(),
        help=f"where to keep the binaries (default: ${DEST_VARIABLE}, else %(default)s)",
    )
    parser.add_argument(
        "--where", action="store_true", help="print where each binary belongs; build nothing"
    )
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(BACKENDS)):
        parser.error(f"unknown backend: {', '.join(unknown)} (known: {', '.join(BACKENDS)})")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Build what the command line asks for; 0 when all of it is there at the end."""
    options = parse_arguments(arguments)
    dest: Path = options.dest.expanduser().absolute()
    for name in options.names or BACKENDS:
        if options.where:
            for path in BACKENDS[name].paths(dest):
                print(path)
            continue
        try:
            build(BACKENDS[name], dest)
        except (BuildError, OSError) as error:
            print(f"backends: {name} failed: {error}", file=sys.stderr, flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
