"""Add up the parts of a run that other processes measured, and fold them into its report.

A part that is final is added at once. Of one that is still being measured, the newest replaces the
one before, so a part that is late, lost or doubled does no harm.
"""

from __future__ import annotations

import functools
import json
import threading
import zlib
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core.lookup import number
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.process.signals import deferring
from otel_pipeline_metrics.report import merge
from otel_pipeline_metrics.report.merge_rules import derive
from otel_pipeline_metrics.report.part_schema import ENTRIES, MAX_STAGES, checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline_metrics.report.merge_rules import Data

_BATCH: Final = 100
# parts and processes that are told apart
_MAX_PARTS: Final = 1_000_000
_MAX_PROCESSES: Final = 10_000

# of a part that is added: no other with its id is taken
_FINAL: Final = float("inf")


class Sums:
    """The entries of several parts, added up as they come."""

    def __init__(self) -> None:
        # by kind, lists of entries; they are added up when there are many
        self._entries: dict[str, list[list[Data]]] = {name: [] for name in ENTRIES}
        # by name and kind of a stage: its workers, of all processes
        self.workers: dict[tuple[str, str | None], set[str]] = {}
        self.observed_s = 0.0

    def add(self, part: Data) -> None:
        """Add a part that was checked."""
        over = {"wall_s": part["wall_s"], "observed_s": part["wall_s"]}
        self.observed_s += part["wall_s"]
        process = part["process"].get("id") or part["id"]
        for name in ENTRIES:
            section = merge.SECTIONS[name]
            found = [merge.open_entry(entry, section, over) for entry in part[name]]
            for stage in found if name == "stages" else ():
                workers = self.workers.setdefault((stage["name"], stage.get("kind")), set())
                workers.update(f"{process} {one}" for one in stage.pop("worker_ids", ()))
                # they are counted above
                stage["workers"] = 0
            if found:
                self._add(name, found)

    def include(self, other: Sums) -> None:
        """Add what another one has; that is left as it is."""
        self.observed_s += other.observed_s
        for key, workers in other.workers.items():
            self.workers.setdefault(key, set()).update(workers)
        for name in ENTRIES:
            for found in other._entries[name]:
                self._add(name, found)

    def _add(self, name: str, found: list[Data]) -> None:
        lists = self._entries[name]
        lists.append(found)
        if len(lists) > _BATCH:
            section = merge.SECTIONS[name]
            lists[:] = [merge.merge_entries(lists, section.key, section.rules)]

    def of_stages(self) -> int:
        """Return the number of stages."""
        return len(self.workers)

    def fold(self, data: Data) -> None:
        """Add everything to the data of the run's report.

        Rates and shares are those of all processes together: of the driver, the time in which a
        stage was open counts, and of the others, the time that their parts cover.
        """
        run = data["run"]
        wall_s = number(run, "wall_s") or 0.0
        own_s = max(0.0, wall_s - (number(run, "outside_s") or 0.0))
        over = {"wall_s": wall_s, "observed_s": wall_s}
        closing = {"wall_s": wall_s, "observed_s": own_s + self.observed_s}
        for name in ENTRIES:
            section, lists = merge.SECTIONS[name], self._entries[name]
            key_of = functools.partial(merge.identity, key=section.key)
            keys = {key_of(entry) for found in lists for entry in found}
            own = [
                merge.open_entry(entry, section, over)
                for entry in data[name]
                if key_of(entry) in keys
            ]
            merged = merge.merge_entries([own, *lists], section.key, section.rules)
            folded = {key_of(entry): entry for entry in merged}
            for key, entry in folded.items():
                merge.close_entry(entry, section, closing)
                if name == "stages":
                    derive(entry, wall_s)
                    if entry["workers"] is not None:
                        entry["workers"] += len(self.workers[key])
            data[name] = [folded.pop(key_of(entry), entry) for entry in data[name]]
            data[name] += folded.values()
        # some of it may have been spent in the stages of other processes
        run["outside_s"] = None


class Parts:
    """The parts of one run, by their ids."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        # by id: the number of the newest
        self._seen: dict[str, float] = {}
        # by id: those that are still being measured, since there may be thousands
        self._open: dict[str, bytes] = {}
        # by id of those: the token
        self._tokens: dict[str, str] = {}
        self._final = Sums()
        self._folded: Sums | None = None
        # by id: the tasks of an engine that it covers; their earlier attempts, less its own that
        # another one follows
        self._tasks: dict[str, tuple[int, int]] = {}
        self._processes: dict[str, Data] = {}
        self._closed = False
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Renew the lock, which a thread that the child lacks may hold."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._seen)

    @deferring
    def unfinished(self, token: str) -> int:
        """How many parts of a token are not final."""
        with self._lock:
            return sum(one == token for one in self._tokens.values())

    @deferring
    def missing(self, tasks: int) -> int:
        """How many of so many tasks of engines, and of their attempts, no part covers."""
        with self._lock:
            covered, attempts = map(sum, zip((0, 0), *self._tasks.values(), strict=True))
        return max(0, tasks - covered) + max(0, attempts)

    def close(self) -> None:
        """Take no more parts."""
        self._closed = True

    @deferring
    def add(self, data: object) -> str:
        """Add a part; return the token of the context that it was measured for.

        One that was added before, or a newer one of it, changes nothing.

        Raises:
            ValueError: it is not a part of this run, too large, or too late.
        """
        if self._closed:
            raise ValueError("the run is over")
        part = checked(data)
        if part["run"] != self._run_id:
            raise ValueError("it is of another run")
        token: str = part["part"]
        with self._lock:
            before = self._seen.get(part["id"], -1)
            if part["number"] <= before and not (part["final"] and before != _FINAL):
                return token
            if len(self._seen) >= _MAX_PARTS and before < 0:
                raise ValueError(f"the run has {_MAX_PARTS:,} parts")
            if self._final.of_stages() + len(part["stages"]) > MAX_STAGES and self._has_new(part):
                raise ValueError(
                    f"the run would have over {MAX_STAGES:,} stages of other processes"
                )
            self._note_process(part)
            if part["covers"] or part["earlier"] or part["retried"]:
                self._tasks[part["id"]] = part["covers"], part["earlier"] - part["retried"]
            self._folded = None
            if part["final"]:
                self._seen[part["id"]] = _FINAL
                self._open.pop(part["id"], None)
                self._tokens.pop(part["id"], None)
                self._final.add(part)
            else:
                self._seen[part["id"]] = part["number"]
                self._tokens[part["id"]] = token
                self._open[part["id"]] = zlib.compress(json.dumps(part).encode(), 1)
        return token

    def _has_new(self, part: Data) -> bool:
        keys = {(stage["name"], stage.get("kind")) for stage in part["stages"]}
        return not keys <= self._final.workers.keys()

    def _note_process(self, part: Data) -> None:
        found = part["process"]
        key = found.get("id") or part["id"]
        before = self._processes.get(key)
        if before is None and len(self._processes) >= _MAX_PROCESSES:
            return
        if before is None or (found.get("wall_s") or 0) >= (before.get("wall_s") or 0):
            self._processes[key] = found

    @deferring
    def fold(self, data: Data) -> None:
        """Add all parts to the data of the run's report."""
        with self._lock:
            if self._folded is None:
                self._folded = Sums()
                self._folded.include(self._final)
                for part in self._decoded():
                    self._folded.add(part)
            self._folded.fold(data)
            data["processes"] = list(self._processes.values())

    def _decoded(self) -> Iterable[Data]:
        for packed in self._open.values():
            yield json.loads(zlib.decompress(packed))
