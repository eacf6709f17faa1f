"""Whatever somebody puts into the directory of the spool, only batches are read from it."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._export.replay import replay
from tests.export.test_spool_crashes import World, line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.export.conftest import Received

NAME = "traces-1700000000000-1-00000000-{:06d}-1.jsonl"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    target = path.parent.parent / "secret"
    target.write_bytes(line("secret"))
    path.symlink_to(target)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(spool.MAX_FILE_BYTES + 1)  # sparse


def loop(path: Path) -> None:
    path.symlink_to(path)


STRANGERS = (fifo, link, endless_device, directory, listening_socket, huge, loop)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.chdir(tmp_path)  # the path of a socket has 107 characters at most
    return Spool(tmp_path / "spool", 10**12, 10**10)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_it_is_skipped_and_left_alone(store: Spool, stranger: Callable[[Path], None]) -> None:
    path = store.directory / NAME.format(0)
    stranger(path)
    before = path.lstat()
    world = World()
    world.keep(store, "good")
    world.send_all(Only(store))  # type: ignore[arg-type]
    assert world.arrived == {"good": 1}
    assert path.lstat().st_ino == before.st_ino
    assert [each.name for each in store.directory.iterdir()] == [path.name]


class Only:
    """A spool whose observer does not read the strangers."""

    def __init__(self, store: Spool) -> None:
        self._store = store
        self.ledgers = store.ledgers
        self._looked = False

    def batches(self, signal: Any = None) -> Any:
        return self._store.batches(signal) if signal else []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_replay_skips_it_too(
    stranger: Callable[[Path], None],
    store: Spool,
    http_collector: Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    stranger(store.directory / NAME.format(0))
    store.put("traces", line("good"), 1)
    (done,) = replay(store.directory)
    assert (done.sent, http_collector.spans) == (1, {"good": 1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff",
        b"[" * 100_000,
        b'{"resourceSpans": 5}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":7}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1e999}]}]}]}',
        b'{"a":' + b"1" * 5000 + b"}",
    ],
    ids=["empty", "binary", "deep", "wrong kind", "wrong id", "infinite", "5000 digits"],
)
def test_content_that_is_no_batch_is_dropped(store: Spool, content: bytes) -> None:
    store.put("traces", content, 1)
    world = World()
    world.keep(store, "good")
    sent = world.send_all(Only(store))  # type: ignore[arg-type]
    assert (sent.exported, sent.failed) == (1, 1)
    assert world.arrived["good"] == 1
    assert store.batches() == []


def test_a_batch_that_cannot_be_read_is_skipped(
    store: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of another user, or on a broken disk."""
    store.put("traces", line("bad"), 1)
    (bad,) = store.batches()
    world = World()
    world.keep(store, "good")
    real = os.read

    def broken(descriptor: int, count: int) -> bytes:
        if os.fstat(descriptor).st_ino == (store.directory / bad.name).stat().st_ino:
            raise OSError(5, "Input/output error")
        return real(descriptor, count)

    monkeypatch.setattr(spool.os, "read", broken)
    world.send_all(Only(store))  # type: ignore[arg-type]
    assert world.arrived == {"good": 1}
    assert store.batches() == [bad]


@pytest.mark.parametrize("replacement", [None, "file", "dangling link"])
def test_a_directory_that_was_removed_is_made_again(
    store: Spool, replacement: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.keep(store, "a")
    shutil.rmtree(store.directory)
    if replacement == "file":
        store.directory.write_text("not ours")
    elif replacement is not None:
        store.directory.symlink_to("nowhere")
    world.keep(store, "b")
    if replacement is None:
        assert world.kept == ["a", "b"]
        assert store.directory.stat().st_mode & 0o777 == 0o700
        world.send_all(store)
        assert world.arrived == {"b": 1}
    else:
        assert world.kept == ["a"]
        (said,) = [record.getMessage() for record in caplog.records]
        assert "telemetry cannot be kept in" in said


def test_a_name_that_is_too_long_for_a_count_is_not_a_batch(store: Spool) -> None:
    name = f"traces-1700000000000-1-00000000-000001-{'9' * 100}.jsonl"
    (store.directory / name).write_bytes(line("x"))
    assert store.batches() == []
