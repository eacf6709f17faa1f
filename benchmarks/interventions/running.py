"""Load a file of shapes, and run one of them: as it is, or with an intervention.

A file has `SHAPES = {name: (family, main, {intervention: kwargs})}`. `main(**kwargs)` is a
coroutine function or a plain one; it returns how many items were done. It may import what lies
beside it. An intervention is "faster:STAGE", "workers:STAGE", "limit:NAME", or a kind of verdict,
alone or with a name: "KIND" or "KIND:NAME". `REAL_TIME`, the names of shapes that compute, is
optional.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import otel_pipeline_metrics as opm
from benchmarks import _virtual_scheduler, _virtual_time
from otel_pipeline_metrics._core import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Clock = Literal["auto", "virtual", "real"]

# CPU seconds of a run in virtual time, of those it took there, from which on it computes.
_COMPUTES: Final = 0.05

# In real time, of so many runs the fastest counts: others disturb a run, and none speeds it up.
REPEATS: Final = 3


class NotVirtualError(Exception):
    """The shape does something that takes no virtual time, or that waits for the real one."""


@dataclass(frozen=True)
class Shape:
    """A pipeline, and what can be changed about it."""

    name: str
    family: str
    main: Callable[..., Any]
    interventions: Mapping[str, Mapping[str, Any]]
    real_time: bool


@dataclass
class Trial:
    """What was found out about one shape."""

    shape: Shape
    seed: str
    real_time: bool
    report: dict[str, Any]
    throughput: float
    gains: dict[str, float] = field(default_factory=dict)
    """By intervention: the fraction of throughput gained."""
    why_real: str | None = None
    took_s: float = 0.0


@dataclass(frozen=True)
class Shapes:
    """The shapes of a file, for virtual time and for the real one."""

    virtual: Mapping[str, Shape]
    real: Mapping[str, Shape]


def load(path: Path) -> Shapes:
    """Load a file twice: what it imports by name differs between the two clocks.

    Raises:
        ValueError: it has no `SHAPES`, or one of them is not as it should be.
    """
    with _importable(path.resolve().parent), quiet():
        real = _load(path, "real")
        with _virtual_time.virtual_time():
            virtual = _load(path, "virtual")
    return Shapes(virtual, real)


def _load(path: Path, clock: str) -> dict[str, Shape]:
    loaded = set(sys.modules)
    here = path.resolve().parent
    spec = importlib.util.spec_from_file_location(f"shapes_{path.stem}_{clock}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    # what lies beside it is loaded for each clock too
    for name in set(sys.modules) - loaded - {spec.name}:
        source = getattr(sys.modules[name], "__file__", None)
        if source is not None and here in Path(source).resolve().parents:
            del sys.modules[name]
    found = getattr(module, "SHAPES", None)
    if not isinstance(found, dict):
        raise ValueError(f"{path} has no SHAPES, a dict")
    real = frozenset(getattr(module, "REAL_TIME", ()))
    return {name: _shape(name, entry, name in real) for name, entry in found.items()}


def _shape(name: str, entry: Any, real_time: bool) -> Shape:
    try:
        family, main, interventions = entry
    except (TypeError, ValueError):
        raise ValueError(f"shape {name!r} must be (family, main, interventions)") from None
    if not callable(main) or not all(isinstance(k, dict) for k in interventions.values()):
        raise ValueError(f"shape {name!r}: main must be a function, interventions dicts of dicts")
    return Shape(name, family, main, interventions, real_time)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Export nothing and print nothing, whatever a shape configures."""
    before = settings.settings()
    settings.replace(settings.Config(console=False))
    try:
        yield
    finally:
        settings.replace(before)


def trial(shapes: Shapes, name: str, seed: str, clock: Clock = "auto") -> Trial:
    """Run a shape as it is, and with each of its interventions."""
    began = time.perf_counter()
    with quiet():
        found = _trial(shapes, name, seed, clock)
    found.took_s = time.perf_counter() - began
    return found


def _trial(shapes: Shapes, name: str, seed: str, clock: Clock) -> Trial:
    real, why = shapes.real[name], None
    if clock == "virtual" or (clock == "auto" and not real.real_time):
        try:
            return _tried(shapes.virtual[name], seed, real_time=False)
        except Exception as error:
            if clock == "virtual":
                raise
            why = f"{type(error).__name__}: {error}"
    found = _tried(real, seed, real_time=True)
    found.why_real = why
    return found


def _tried(shape: Shape, seed: str, *, real_time: bool) -> Trial:
    changes = {key: kwargs for key, kwargs in shape.interventions.items() if kwargs}
    variants: dict[str | None, Mapping[str, Any]] = {None: {}, **changes}
    best: dict[str | None, _Run] = {}
    # in turns, so that a busy minute of the machine strikes all of them
    for _ in range(REPEATS if real_time else 1):
        for key, kwargs in variants.items():
            run = _once(shape, seed, kwargs) if real_time else _virtually(shape, seed, kwargs)
            best[key] = max(best.get(key, run), run, key=lambda found: found.throughput)
    plain = best[None]
    gains = {
        key: best.get(key, plain).throughput / plain.throughput - 1 for key in shape.interventions
    }
    return Trial(shape, seed, real_time, plain.report, plain.throughput, gains)


@dataclass(frozen=True)
class _Run:
    items: float
    report: dict[str, Any]
    took_s: float
    computed_s: float

    @property
    def throughput(self) -> float:
        return self.items / self.took_s


def _virtually(shape: Shape, seed: str, kwargs: Mapping[str, Any]) -> _Run:
    # a first run may compute because it imports modules and compiles functions
    for _ in range(2):
        with _virtual_time.virtual_time() as scheduler:
            found = _once(shape, seed, kwargs)
        if scheduler.spinning:
            raise NotVirtualError(f"{shape.name} waits by looking at the clock again and again")
        if found.took_s > 0 and found.computed_s <= _COMPUTES * found.took_s:
            return found
    raise NotVirtualError(
        f"{shape.name} computes for {found.computed_s:.3f} s in {found.took_s:.3f} s"
    )


def _once(shape: Shape, seed: str, kwargs: Mapping[str, Any]) -> _Run:
    random.seed(f"{seed}/{shape.name}")
    virtual = _virtual_scheduler.current
    interval = 0.05 if virtual is None else False
    main: Any = shape.main
    watch = _Watch()

    async def coroutine() -> Any:
        async with opm.run("shape", resources=interval, report=None) as run:
            with watch:
                watch.items = await main(**kwargs)
        return run

    if inspect.iscoroutinefunction(main):
        run = asyncio.run(coroutine())
    else:
        with opm.run("shape", resources=interval, report=None) as run, watch:
            items = main(**kwargs)
            if inspect.iscoroutine(items):  # of a partial or a lambda
                items = asyncio.run(items)
            watch.items = items
    data: dict[str, Any] = run.report.to_dict()
    return _Run(watch.items, data, watch.took_s, watch.computed_s)


class _Watch:
    """Measure how long something takes, and what it computes meanwhile in virtual time."""

    items: float
    took_s = computed_s = 0.0

    def __enter__(self) -> None:
        self._computed = _computed()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.took_s = time.perf_counter() - self._began
        self.computed_s = _computed() - self._computed


def _computed() -> float:
    virtual = _virtual_scheduler.current
    return 0.0 if virtual is None else virtual.computed()
