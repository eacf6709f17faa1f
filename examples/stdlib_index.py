"""Index every module of the running Python's own standard library into SQLite.

Three stages, three decorators, one run:

    python -m examples.stdlib_index --out demo-out

fetch reads the source files, process parses them with `ast`, write stores rows in batches.
The console shows the summary; `export_metrics.json` and `index.db` are in the folder. Set
OTEL_EXPORTER_OTLP_ENDPOINT, and the same program exports to a Collector instead. `--root` takes
another folder of modules or one package, `--limit` the first files only.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import functools
import sqlite3
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STDLIB = Path(sysconfig.get_path("stdlib"))
INSTALLED = {"site-packages", "dist-packages"}
BATCH = 50


@dataclass(frozen=True)
class Module:
    name: str
    lines: int
    definitions: list[tuple[str, str, int]]
    imports: list[tuple[str, bool]]


@opm.fetch(items=len)
async def read_sources(root: Path, limit: int | None) -> AsyncIterator[list[tuple[str, bytes]]]:
    """Read the source files in batches, in a thread that leaves the loop free."""
    paths = await asyncio.to_thread(source_files, root, limit)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        texts = await asyncio.to_thread(read_files, batch)
        opm.current_stage().add_bytes(sum(map(len, texts)), "in")
        yield [(module_name(p, root), t) for p, t in zip(batch, texts, strict=True)]


def source_files(root: Path, limit: int | None) -> list[Path]:
    return sorted(p for p in root.rglob("*.py") if INSTALLED.isdisjoint(p.parts))[:limit]


def read_files(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


@opm.process(items=len)
def parse(sources: list[tuple[str, bytes]]) -> list[Module]:
    """Parse a batch, without files that are not Python: the library's tests have some."""
    modules = []
    for name, text in sources:
        with contextlib.suppress(SyntaxError, ValueError):
            modules.append(parse_module(name, text))
    return modules


@opm.process
def parse_module(name: str, text: bytes) -> Module:
    tree = ast.parse(text)
    definitions, imports = [], []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            definitions.append((type(node).__name__, node.name, node.lineno))
        elif isinstance(node, ast.Import):
            imports += [(alias.name, resolves(alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.append((node.module, resolves(node.module)))
    return Module(name, text.count(b"\n"), definitions, imports)


@functools.lru_cache(maxsize=512)
def resolves(name: str) -> bool:
    """Tell whether a module is in the standard library: a few look-ups on disk."""
    if name.partition(".")[0] in sys.builtin_module_names:
        return True
    path = STDLIB.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@opm.write
async def store(database: sqlite3.Connection, modules: list[Module]) -> None:
    rows = 0
    with database:
        for module in modules:
            database.execute("INSERT INTO module VALUES (?, ?)", (module.name, module.lines))
            database.executemany(
                "INSERT INTO definition VALUES (?, ?, ?, ?)",
                [(module.name, *definition) for definition in module.definitions],
            )
            database.executemany(
                "INSERT INTO import VALUES (?, ?, ?)",
                [(module.name, *imported) for imported in module.imports],
            )
            rows += 1 + len(module.definitions) + len(module.imports)
    stage = opm.current_stage()
    stage.add_items(len(modules), "in")
    stage.add_items(rows, "out")


def module_name(path: Path, root: Path) -> str:
    above = root.parent if (root / "__init__.py").is_file() else root
    parts = path.relative_to(above).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def open_database(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE module (name TEXT, lines INTEGER);
        CREATE TABLE definition (module TEXT, kind TEXT, name TEXT, line INTEGER);
        CREATE TABLE import (module TEXT, imported TEXT, in_stdlib INTEGER);
        """
    )
    return database


async def index(out: Path, root: Path = STDLIB, limit: int | None = None) -> opm.RunReport:
    """Run the pipeline; return the report that is also written to `out`."""
    resolves.cache_clear()
    opm.register_cache("resolved modules", resolves)
    database = open_database(out / "index.db")
    try:
        async with opm.run("stdlib-index", report=out / "export_metrics.json") as run:
            async for sources in read_sources(root, limit):
                await store(database, parse(sources))
    finally:
        database.close()
    return run.report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument("--root", type=Path, default=STDLIB)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    # Parsing the library's tests, with their deliberate mistakes, causes warnings.
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    # Summaries go to stderr even if that is a file; OTEL_* variables decide the rest.
    opm.configure(service_name="stdlib-index", console="summary")
    asyncio.run(index(arguments.out, arguments.root, arguments.limit))
    opm.shutdown()


if __name__ == "__main__":
    main()
