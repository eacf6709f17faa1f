"""Run the tests on every supported Python, with the oldest and the newest OpenTelemetry.

Standard library only. Interpreters are looked for on PATH and under pyenv; one that is not
there is a failure in CI (CI=true) and is named and left out elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TRACED = "3.12"
"""Whose tests with the newest OpenTelemetry open spans for all calls."""
OLDEST = (
    "opentelemetry-api==1.30.0",
    "opentelemetry-sdk==1.30.0",
    "opentelemetry-exporter-otlp==1.30.0",
    "opentelemetry-instrumentation==0.51b0",
    "opentelemetry-instrumentation-system-metrics==0.51b0",
    "opentelemetry-exporter-prometheus==0.51b0",
    "opentelemetry-instrumentation-logging==0.51b0",
    "psutil==5.9.6",
    # OpenTelemetry 1.30 asks its instrumentation for pkg_resources' successor only
    "setuptools<81",
)
# The whole suite runs by itself in `make test`; slow parts need no repetition here.
LEFT_OUT = (
    "--ignore=tests/system/backends",
    "--ignore=tests/docs",
    "--ignore=tests/system/examples",
    "-m",
    "not backends and not slow",
)
# Two cells share two cores: while one installs, the tests of the other, which wait a lot, run.
WORKERS = ("-n", "2", "--dist", "loadgroup")

# A test that hangs fails. One that fails is tried once more, which the last line counts.
MORE = ("--reruns", "1", "--timeout", "420")


def main() -> int:
    """Run every cell, two at a time; return the number of those that failed."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # what takes longest comes first
    cells: list[tuple[str, tuple[str, ...]]] = [(PYTHONS[0], OLDEST)]
    # `make test` runs this interpreter with the newest OpenTelemetry
    cells += [(python, ()) for python in PYTHONS if python != here]
    cells += [(TRACED, OLDEST)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(run_cell, *zip(*cells, strict=True)))
    for outcome in outcomes:
        print(f"matrix: {outcome}", flush=True)
    return sum(outcome.startswith("FAILED") for outcome in outcomes)


def find(version: str) -> str | None:
    """Return an interpreter of this version that really runs."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [p for p in pyenv.glob(f"{version}.*") if re.fullmatch(rf"{version}\.\d+", p.name)]
    candidates += [str(path / "bin" / "python") for path in sorted(found)]
    for candidate in candidates:
        if candidate and says_version(candidate, version):
            return candidate
    return None


def says_version(candidate: str, version: str) -> bool:
    """Tell whether it starts and is of this version; a pyenv shim may do neither."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def run_cell(python: str, pins: tuple[str, ...]) -> str:
    """Make an environment, install, test; return how it went, in one line."""
    # spans take calls another way through our code
    options = ("--traced",) if python == TRACED and not pins else ()
    label = " ".join([f"Python {python}, {'oldest' if pins else 'newest'} OpenTelemetry", *options])
    interpreter = find(python)
    if interpreter is None:
        return f"{'FAILED' if os.environ.get('CI') == 'true' else 'left out'} {label}: not here"
    with tempfile.TemporaryDirectory(prefix="opm-matrix-") as folder:
        try:
            bin_python = install(interpreter, folder, pins)
            command = [bin_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WORKERS]
            tests = run_twice([*command, *MORE, *LEFT_OUT, *options], label)
        except subprocess.TimeoutExpired:
            return f"FAILED {label}: no end"
        except subprocess.CalledProcessError as error:
            print(error.stdout, flush=True)
            return f"FAILED {label}: exit {error.returncode}"
    return f"ok {label}: {tests.strip().splitlines()[-1]}"


def run_twice(command: list[str], label: str) -> str:
    """Run a command, and again if it does not end: one of Python 3.10 once hung."""
    try:
        return run(command)
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        print(said.decode(errors="replace") if isinstance(said, bytes) else said)
        print(f"matrix: {label}: no end within {error.timeout:g} s; tried again", flush=True)
        return run(command)


def install(interpreter: str, folder: str, pins: tuple[str, ...]) -> str:
    """Make an environment with the package, its test group and `pins`; return its Python."""
    run([interpreter, "-m", "venv", folder])
    python = str(Path(folder) / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--upgrade", "pip>=25.1"])
    run([*pip, "--group", "test", f".[all,logs{'' if pins else ',file-config'}]", *pins])
    return python


def run(command: list[str]) -> str:
    """Run a command in the project's folder; return what it printed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1500,
        # `make test` repeats everything as often as it should be
        env={**os.environ, "OPM_BRIEF": "1"},
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
