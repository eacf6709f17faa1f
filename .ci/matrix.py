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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OLDEST = (
    "opentelemetry-api==1.30.0",
    "opentelemetry-sdk==1.30.0",
    "opentelemetry-exporter-otlp==1.30.0",
    "opentelemetry-instrumentation==0.51b0",
    "opentelemetry-instrumentation-system-metrics==0.51b0",
    "psutil==5.9.6",
    # OpenTelemetry 1.30 asks its instrumentation for pkg_resources' successor only
    "setuptools<81",
)
# The whole suite runs once more by itself in `make test`; slow parts need no repetition here.
LEFT_OUT = ("--ignore=tests/backends", "--ignore=tests/examples", "-m", "not backends and not slow")


def main() -> int:
    """Run every cell; return the number of those that failed."""
    cells = [(python, ()) for python in PYTHONS] + [(PYTHONS[0], OLDEST), (PYTHONS[2], OLDEST)]
    failed = []
    for python, pins in cells:
        label = f"Python {python}, {'oldest' if pins else 'newest'} OpenTelemetry"
        interpreter = find(python)
        if interpreter is None:
            print(f"matrix: {label}: no such interpreter here", flush=True)
            if os.environ.get("CI") == "true":
                failed.append(label)
            continue
        print(f"matrix: {label}", flush=True)
        if not run_cell(interpreter, pins):
            failed.append(label)
    for label in failed:
        print(f"matrix: FAILED {label}", flush=True)
    return len(failed)


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


def run_cell(interpreter: str, pins: tuple[str, ...]) -> bool:
    """Make an environment, install, test."""
    with tempfile.TemporaryDirectory(prefix="opm-matrix-") as folder:
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*install, "--group", "test", ".[all]", *pins], cwd=ROOT, check=True)
        tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *LEFT_OUT]
        return subprocess.run(tests, cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
