"""End 1,000 programs in a row on the newest Python; each must end like the bare program."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import matrix

COUNT = "1000"


def main() -> int:
    """Make an environment with the newest Python of the matrix, and run the programs in it."""
    newest = matrix.PYTHONS[-1]
    interpreter = matrix.find(newest)
    if interpreter is None:
        print(f"Python {newest} is not here")
        return 1
    with tempfile.TemporaryDirectory(prefix="opm-exits-") as folder:
        python = matrix.install(interpreter, folder, ())
        command = [python, "-m", "tests.system.faults.exits.running", COUNT]
        return subprocess.run(command, cwd=matrix.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
