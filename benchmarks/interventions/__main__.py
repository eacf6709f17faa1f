"""Check the verdict on pipelines of any shape: the truth is what a change to them does.

    python -m benchmarks.interventions                       # the project's own shapes, seed 1
    python -m benchmarks.interventions FILE.py --seed 7      # those of a file
    python -m benchmarks.interventions FILE.py --only NAME   # one of them, in full
    python -m benchmarks.interventions --seed 1 --seed fresh --write docs/verdict.md
    python -m benchmarks.interventions --data docs/data/intervention-failures.json

A file has `SHAPES = {name: (family, main, {intervention: kwargs})}`; see `running.py`. Each shape
is run as it is and with each intervention: in virtual time where it can be, else in real time.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks._document import put
from benchmarks.interventions.figures import Bench, failures, figures, holds, line
from benchmarks.interventions.judging import judge
from benchmarks.interventions.running import Shapes, load, trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.interventions.judging import Judgement
    from benchmarks.interventions.running import Clock

OWN: Final = Path(__file__).parent / "shapes"


def own_files() -> list[Path]:
    """Return the files of the project's own shapes."""
    return sorted(path for path in OWN.glob("*.py") if path.name != "lab.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where it falls short of what is promised."""
    asked = _parser().parse_args(arguments)
    files = {path: load(path) for path in asked.files or own_files()}
    benches = []
    for was in asked.seed or ["1"]:
        seed = secrets.token_hex(4) if was == "fresh" else was
        title = f"seed `{seed}`{' (fresh)' if was == 'fresh' else ''}"
        benches.append(_bench(files, title, seed, asked.only, asked.clock))
    if asked.only is not None:
        for bench in benches:
            for found in bench.judged:
                print(json.dumps(found.verdict, indent=2, ensure_ascii=False))
        return 0
    text = figures(benches)
    print("\n" + text)
    if asked.write is not None:
        put(Path(asked.write), "interventions/__main__", text)
    if asked.data is not None:
        data = json.dumps(failures(benches), indent=1, ensure_ascii=False) + "\n"
        Path(asked.data).write_text(data, encoding="utf-8")
    return 0 if all(map(holds, benches)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interventions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.py", help="files with SHAPES")
    parser.add_argument("--seed", action="append", help="any text, or `fresh`; may be repeated")
    parser.add_argument("--only", help="one shape, with its verdict in full")
    parser.add_argument(
        "--clock",
        choices=("auto", "virtual", "real"),
        default="auto",
        help="`virtual` leaves out what computes: for a busy machine",
    )
    parser.add_argument("--write", help="the document whose figures to replace")
    parser.add_argument("--data", help="the file to write each failure to, as JSON")
    return parser


def _bench(
    files: dict[Path, Shapes], title: str, seed: str, only: str | None, clock: Clock
) -> Bench:
    found = Bench(title)
    for path, shapes in files.items():
        for name in shapes.real:
            if clock == "virtual" and shapes.real[name].real_time:
                continue
            if only in {None, name}:
                try:
                    judged = judge(trial(shapes, name, seed, clock))
                except Exception as error:
                    print(f"{path}: {name} failed: {error!r}", file=sys.stderr)
                    found.failed.append(name)
                else:
                    found.judged.append(judged)
                    _tell(judged)
    return found


def _tell(judged: Judgement) -> None:
    print(line(judged), flush=True)
    if judged.trial.why_real is not None:
        print(f"  in real time: {judged.trial.why_real}")


if __name__ == "__main__":
    raise SystemExit(main())
