"""The spool after a power failure: whole or not at all, nothing twice, and open for more.

The scenario stops after every change of the file system in turn. What was not synced is then
lost, in each of the ways in which file systems lose it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._export.delivery.delivery import Delivery
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.responses import Answer
from otel_pipeline_metrics._export.delivery.spool import Spool
from tests.export.disk import LOSSES, Disk, Loss, PowerFailure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def line(name: str) -> bytes:
    span = {"name": name, "traceId": "1" * 32, "spanId": "2" * 16, "attributes": []}
    data = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    return json.dumps(data).encode() + b"\n"


class World:
    """What an observer outside the computer knows."""

    def __init__(self) -> None:
        self.asked: list[str] = []  # batches that were to be kept
        self.kept: list[str] = []  # of which `put` has said that they are
        self.arrived: Counter[str] = Counter()
        self.gone: list[str] = []  # of which the spool has said that they left it
        self.leaving: list[str] = []  # that may be there or not

    def keep(self, store: Spool, name: str) -> None:
        self.asked.append(name)
        if store.put("traces", line(name), 1):
            self.kept.append(name)

    def send_all(self, store: Spool) -> ExportLedger:
        """Send what is on disk, as an exporter does after a success; return its ledger."""
        ledger = ExportLedger("traces", "otlp/http", "http://c", remote=False)
        delivery = Delivery(ledger, store, lambda: True)

        def answer(_: Any, request: Any) -> Answer:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.arrived.update(span.name for span in scope.spans)
            return Answer(ok=True)

        delivery._try = answer  # type: ignore[method-assign,assignment]
        before = {batch.name: store_line(store, batch.name) for batch in store.batches()}
        delivery.resend(float("inf"))
        left = {batch.name for batch in store.batches()}
        self.gone += [name for file, name in before.items() if file not in left]
        return ledger


def store_line(store: Spool, file: str) -> str:
    text = (store.directory / file).read_text()
    name: str = json.loads(text)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"]
    return name


def keeping(world: World, directory: Path) -> None:
    """Make the directory and keep three batches."""
    store = Spool(directory, 10_000, 3600.0)
    for name in ("a", "b", "c"):
        world.keep(store, name)


def sending(world: World, directory: Path) -> None:
    """Send what is kept, then keep more."""
    keeping(world, directory)
    store = Spool(directory, 10_000, 3600.0)
    world.send_all(store)
    world.keep(store, "d")
    world.send_all(store)


def overflowing(world: World, directory: Path) -> None:
    """Keep more than there is room for: the oldest are dropped."""
    store = Spool(directory, 2 * len(line("a")), 3600.0)
    for name in ("a", "b", "c", "d"):
        if len(world.kept) >= 2:
            world.leaving = world.kept[-2:-1]
        world.keep(store, name)
        world.gone += world.leaving
        world.leaving = []


def cleaned(world: World, directory: Path) -> None:
    """Keep a batch after a cleaner has removed the directory."""
    store = Spool(directory, 10_000, 3600.0)
    world.keep(store, "a")
    for path in [*directory.iterdir(), directory]:
        path.rmdir() if path.is_dir() else path.unlink()
    world.leaving = ["a"]  # the cleaner syncs nothing
    world.keep(store, "b")


SCENARIOS = (keeping, sending, overflowing, cleaned)


def crash(
    scenario: Callable[[World, Path], None],
    after: float,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[World, Disk]:
    """Run a scenario until its disk fails."""
    root.mkdir()
    world, disk = World(), Disk(root, after)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "os", disk)
        try:
            scenario(world, root / "deep" / "spool")
        except PowerFailure:
            pass
        else:
            assert disk.changes < after
    return world, disk


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_every_change(
    scenario: Callable[[World, Path], None],
    loss: Loss,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for after in itertools.count(1):
        world, disk = crash(scenario, after, tmp_path / f"{after}", monkeypatch)
        left = disk.survivors(loss, tmp_path / f"{after}-left")
        disk.close_all()
        check(world, left / "deep" / "spool")
        if disk.changes < after:
            assert after > 15  # every change of the scenario was one to fail after
            return


def check(world: World, directory: Path) -> None:
    sent_before = Counter(world.arrived)
    store = Spool(directory, 10_000, 3600.0)
    on_disk = [store_line(store, batch.name) for batch in store.batches()]  # each is whole
    # nothing is there twice, and nothing that nobody wrote
    assert len(on_disk) == len(set(on_disk))
    assert set(on_disk) <= set(world.asked)
    # what was said to be kept is, and what was said to have left the spool does not come back
    surely = set(world.kept) - set(world.gone) - set(world.leaving)
    assert set(on_disk) >= surely - set(sent_before)
    assert not set(on_disk) & set(world.gone)
    # the spool takes writes again
    world.keep(store, "new")
    world.send_all(store)
    assert store.batches() == []
    assert set(world.arrived) >= surely | {"new"}
    # at most the batch that was being sent arrived twice
    twice = {name for name, count in world.arrived.items() if count > 1}
    assert len(twice) <= 1
    assert twice <= set(sent_before)
    assert max(world.arrived.values()) <= 2


def test_the_model_notices_what_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the syncs of the spool, the same checks fail."""
    real = Disk.__getattr__
    monkeypatch.setattr(
        Disk,
        "__getattr__",
        lambda disk, name: (lambda _: None) if name == "fsync" else real(disk, name),
    )
    world, disk = crash(keeping, 1000, tmp_path / "disk", monkeypatch)
    disk.close_all()
    for number, loss in enumerate(LOSSES):
        left = disk.survivors(loss, tmp_path / f"left-{number}")
        if loss == (False, False):
            check(world, left / "deep" / "spool")
            continue
        with pytest.raises((AssertionError, ValueError)):
            check(world, left / "deep" / "spool")


def test_a_batch_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write less than it is given."""
    world, disk = crash(keeping, 1000, tmp_path / "disk", monkeypatch)
    disk.close_all()
    assert disk.changes > 3 * len(line("a")).bit_length()
    assert world.kept == ["a", "b", "c"]
    assert os.listdir(tmp_path / "disk") == ["deep"]  # noqa: PTH208
