"""Change the code a little, at random places, and see whether a test fails.

A mutant is one change of one operator, number, keyword or decorator, made by cosmic-ray. Places
are drawn at random, from a seed; then the change there is drawn. Each mutant meets the tests
that execute its line (coverage says which, in the processes that tests start as well), the
quickest first, until one fails. A line that runs at import, such as a constant's, meets the
tests that execute anything in its file.

Prints a line a mutant, the survivors with their changes, and the score with its interval.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = "otel_pipeline_metrics"
ROOMS = ("_core", "_stages", "_telemetry", "_export")
# Servers that are not built, documents and examples say little about a single line. A child that
# is forked while another thread is inside coverage hangs.
LEFT_OUT = (
    "tests/system/backends",
    "tests/system/examples",
    "tests/system/processes/test_processes.py",
    "tests/docs",
)
# these need arguments, or change nothing
NOT_USED = ("core/NoOp", "core/VariableReplacer", "core/VariableInserter")
# For a mutant that no quick test kills: tests beyond these seconds are left out. It then counts
# as a survivor though a slower test might have killed it.
SECONDS_OF_TESTS = 60.0
STARTING_S = 15.0


@dataclass(frozen=True)
class Place:
    """Where something can be changed: a file, a position, and the changes possible there."""

    path: str
    line: int
    column: int
    changes: tuple[tuple[str, int], ...]
    """cosmic-ray's operators, each with the number of its occurrence in the file."""


@dataclass
class Outcome:
    """What became of a mutant."""

    path: str
    line: int
    operator: str
    before: str
    after: str
    result: str
    tests: int
    seconds: float


def main() -> int:
    """Draw, run, report. Return 0; the score is for people to judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop starting mutants then")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", nargs="*", default=["tests"], help="files or folders of tests")
    parser.add_argument("--out", type=Path, help="write the outcomes as JSON")
    parser.add_argument("--coverage", type=Path, help="a combined coverage file of before")
    arguments = parser.parse_args()
    began = time.monotonic()
    places = [place for path in sources() for place in places_of(path)]
    draw = random.Random(arguments.seed)  # noqa: S311 - no secret
    chosen = draw.sample(places, min(arguments.sample, len(places)))
    mutants = [(place, *draw.choice(place.changes)) for place in chosen]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        covered = arguments.coverage or measure(folder, arguments.workers, arguments.tests)
        tests = Tests(covered)
        print(f"{len(places)} places, {len(tests.seconds)} tests", flush=True)
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.workers):
            copies.put(copied(folder / f"copy-{number}"))
        until = began + 60 * arguments.minutes

        def run(mutant: tuple[Place, str, int]) -> Outcome | None:
            if time.monotonic() > until:
                return None
            copy = copies.get()
            try:
                outcome = run_mutant(copy, tests, *mutant)
            finally:
                copies.put(copy)
            print(
                f"{outcome.result:9} {outcome.path}:{outcome.line} {outcome.operator}", flush=True
            )
            return outcome

        with ThreadPoolExecutor(arguments.workers) as pool:
            outcomes = [one for one in pool.map(run, mutants) if one is not None]
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    report(outcomes, len(mutants), time.monotonic() - began)
    return 0


def sources() -> list[str]:
    """Return the files of the rooms that are changed."""
    listed = subprocess.run(
        ["git", "ls-files", *(f"{PACKAGE}/{room}/*.py" for room in ROOMS)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listed.stdout.split()


def places_of(path: str) -> list[Place]:
    """Return where a file can be changed so that a test might see it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    silent = lines_without_effect(text)
    tree = get_ast(text)
    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(operator_names()):
        if name in NOT_USED:
            continue
        operator = get_operator(name)()
        occurrence = 0
        for node in ast_nodes(tree):
            for start, _ in operator.mutation_positions(node):
                if not any(low <= start <= high for low, high in silent):
                    found[start].append((name, occurrence))
                occurrence += 1
    return [Place(path, *where, tuple(changes)) for where, changes in sorted(found.items())]


Span = tuple[tuple[int, int], tuple[int, int]]


def lines_without_effect(text: str) -> list[Span]:
    """Return the spans of annotations, and of what only type checkers read."""
    spans: list[Span] = []

    def add(node: ast.AST | None) -> None:
        if node is not None:
            spans.append(((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)))

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.AnnAssign, ast.arg)):
            add(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            add(node.returns)
            if any("overload" in ast.dump(one) for one in node.decorator_list):
                add(node)
                spans.extend(decorators(node))
        elif is_for_types(node):
            add(node)
    return spans


def is_for_types(node: ast.AST) -> bool:
    """Tell whether a statement is there for type checkers alone."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.ClassDef) and any("Protocol" in ast.dump(b) for b in node.bases)


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[Span]:
    """Return the spans of a function's decorators, their @ included."""
    return [((d.lineno, 0), (d.end_lineno or d.lineno, 1000)) for d in node.decorator_list]


class Tests:
    """Which tests execute which line, and how long each takes."""

    def __init__(self, covered: Path) -> None:
        self._data = CoverageData(str(covered))
        self._data.read()
        self.seconds: dict[str, float] = json.loads((covered.parent / "seconds.json").read_text())
        by_name = {Path(name).as_posix(): name for name in self._data.measured_files()}
        self._files = {
            f"{PACKAGE}/{name.rpartition(f'/{PACKAGE}/')[2]}": full
            for name, full in by_name.items()
        }

    def of(self, path: str, line: int) -> list[str]:
        """Return the tests for a line, the quickest first."""
        full = self._files.get(path)
        lines = {} if full is None else self._data.contexts_by_lineno(full)
        found = self._tests(lines.get(line, ()))
        if not found:
            found = self._tests(context for contexts in lines.values() for context in contexts)
        ordered = sorted(found, key=lambda test: self.seconds[test])
        chosen, total = [], 0.0
        for test in ordered:
            total += self.seconds[test]
            if chosen and total > SECONDS_OF_TESTS:
                break
            chosen.append(test)
        return chosen

    def _tests(self, contexts: Any) -> set[str]:
        names = {part for context in contexts for part in context.split("|")}
        return {name for name in names if name in self.seconds}


def measure(folder: Path, workers: int, tests: list[str]) -> Path:
    """Run every test once under coverage; return the file that tells who executes what."""
    copy = copied(folder / "measured")
    # an empty file of settings in the copy would be found first
    environment = environment_of(copy) | {"COVERAGE_FILE": str(folder / "coverage")}
    reported = folder / "seconds.jsonl"
    subprocess.run(
        [
            sys.executable, "-m", "coverage", "run", f"--rcfile={HERE / 'coverage.ini'}",
            "-m", "pytest", "-q", "-o", "addopts=", "-n", str(workers + 1), "-p", "contexts",
            "-p", "no:cacheprovider", f"--report-log={reported}",
            *(f"--ignore={path}" for path in LEFT_OUT), *tests,
        ],
        cwd=copy, env=environment, check=False,
    )  # fmt: skip
    seconds: dict[str, float] = defaultdict(float)
    failed = set()
    for line in reported.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("$report_type") == "TestReport":
            seconds[entry["nodeid"]] += entry["duration"]
            if entry["outcome"] != "passed":
                failed.add(entry["nodeid"])
    # what fails or is skipped without a change tells nothing
    kept = {test: took for test, took in seconds.items() if test not in failed}
    (folder / "seconds.json").write_text(json.dumps(kept))
    subprocess.run(
        [sys.executable, "-m", "coverage", "combine", "-q", f"--rcfile={HERE / 'coverage.ini'}"],
        cwd=copy, env=environment, check=True,
    )  # fmt: skip
    return folder / "coverage"


def copied(to: Path) -> Path:
    """Copy what git tracks, as it lies here, to a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def environment_of(copy: Path) -> dict[str, str]:
    """Return the environment in which a copy's package is the one that is imported."""
    path = os.pathsep.join([str(copy), str(HERE)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def run_mutant(copy: Path, tests: Tests, place: Place, operator: str, occurrence: int) -> Outcome:
    """Change the copy, run the tests for it, and change it back."""
    target = copy / place.path
    text = target.read_text(encoding="utf-8")
    mutated = mutate_code(text, get_operator(operator)(), occurrence)
    chosen = tests.of(place.path, place.line)
    began = time.monotonic()
    if mutated is None or not chosen:
        result = "untested"
    else:
        target.write_text(mutated, encoding="utf-8")
        try:
            result = "survived" if passes(copy, chosen, tests) else "killed"
        finally:
            target.write_text(text, encoding="utf-8")
    before, after = changed_lines(text, mutated or text)
    took = time.monotonic() - began
    return Outcome(place.path, place.line, operator, before, after, result, len(chosen), took)


def passes(copy: Path, chosen: list[str], tests: Tests) -> bool:
    """Tell whether all tests pass in time; one that hangs has noticed the change."""
    limit = STARTING_S + 4 * sum(tests.seconds[test] for test in chosen)
    # a file of names: there may be more than a command line holds
    names = copy / "tests.txt"
    names.write_text("\n".join(chosen), encoding="utf-8")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider",
            f"@{names}",
        ],
        cwd=copy, env=environment_of(copy), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # with all that its tests have started
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """Return the first line that differs, as it was and as it is."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return old.strip(), new.strip()


def report(outcomes: list[Outcome], drawn: int, seconds: float) -> None:
    """Print the survivors and the score."""
    survivors = [one for one in outcomes if one.result != "killed"]
    print("\nSurvivors:")
    for one in sorted(survivors, key=lambda one: (one.path, one.line)):
        print(f"{one.path}:{one.line} {one.operator} ({one.result}, {one.tests} tests)")
        print(f"  - {one.before}\n  + {one.after}")
    killed = len(outcomes) - len(survivors)
    low, high = interval(killed, len(outcomes))
    print(
        f"\n{killed} of {len(outcomes)} mutants killed ({drawn} drawn): "
        f"{killed / max(1, len(outcomes)):.1%}, 95 % interval {low:.1%} to {high:.1%}, "
        f"in {seconds / 60:.0f} minutes"
    )


def interval(killed: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, killed / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


if __name__ == "__main__":
    sys.exit(main())
