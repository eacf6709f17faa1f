"""The directory that keeps what the collector does not accept."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

MAX_AGE_S = 3600.0


@pytest.fixture
def open_spool(tmp_path: Path) -> Callable[..., Spool]:
    def make(max_bytes: int = 10_000, max_age_s: float = MAX_AGE_S) -> Spool:
        return Spool(tmp_path / "spool", max_bytes, max_age_s)

    return make


def ledger_of(kept: Spool) -> ExportLedger:
    ledger = ExportLedger("traces", "otlp/grpc", "http://c")
    kept.ledgers["traces"] = ledger
    return ledger


def put(kept: Spool, ledger: ExportLedger, line: bytes, items: int = 1) -> bool:
    """Put a batch and count it if it is kept, like an exporter."""
    done = kept.put("traces", line, items)
    if done:
        ledger.note_spooled(items)
    return done


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class TestKeeping:
    def test_the_name_of_a_file_describes_its_batch(
        self, open_spool: Callable[..., Spool], clock: Clock
    ) -> None:
        kept = open_spool()

        assert kept.put("traces", b"line\n", 512)

        (batch,) = kept.batches()
        assert batch[:2] == ("traces", 1_700_001_000_000)
        assert (batch.owner, batch.items, batch.size) == (kept.owner, 512, 5)
        assert (kept.directory / batch.name).read_bytes() == b"line\n"

    def test_batches_are_listed_oldest_first_and_by_signal(
        self, open_spool: Callable[..., Spool], clock: Clock
    ) -> None:
        kept = open_spool()
        kept.put("metrics", b"m", 1)
        clock.advance(-1)
        kept.put("traces", b"a", 1)
        kept.put("traces", b"b", 2)

        assert [(p.signal, p.items) for p in kept.batches()] == [
            ("traces", 1),
            ("traces", 2),
            ("metrics", 1),
        ]
        assert [p.items for p in kept.batches("metrics")] == [1]

    def test_files_are_private(self, open_spool: Callable[..., Spool]) -> None:
        """Spans may hold data that only their owner should read."""
        kept = open_spool()
        kept.put("traces", b"x", 1)

        (file,) = kept.directory.iterdir()
        assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_other_files_are_left_alone(self, open_spool: Callable[..., Spool]) -> None:
        kept = open_spool(max_bytes=1)
        other = kept.directory / "notes.jsonl"
        other.write_text("mine")
        kept.put("traces", b"x", 1)

        assert [p.signal for p in kept.batches()] == ["traces"]
        assert other.read_text() == "mine"

    def test_old_temporary_files_are_removed(
        self, open_spool: Callable[..., Spool], clock: Clock
    ) -> None:
        directory = open_spool().directory
        old, new = directory / ".opm-old.tmp", directory / ".opm-new.tmp"
        for path, age in ((old, 700), (new, 10)):
            path.write_text("half")
            os.utime(path, (clock.unix() - age,) * 2)

        open_spool()

        assert [path.name for path in directory.iterdir()] == [".opm-new.tmp"]


class TestLimits:
    def test_the_oldest_batches_are_dropped_and_counted(
        self, open_spool: Callable[..., Spool], caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = open_spool(max_bytes=10)
        ledger = ledger_of(kept)
        for items in (1, 2, 4, 8):
            assert put(kept, ledger, b"xxxx", items)

        assert [p.items for p in kept.batches()] == [4, 8]
        assert (ledger.spooled, ledger.failed) == (12, 3)
        (message,) = messages(caplog)
        assert "holds 10 bytes, its limit; the oldest telemetry in it is dropped" in message

    def test_a_batch_larger_than_the_limit_is_not_kept(
        self, open_spool: Callable[..., Spool], caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = open_spool(max_bytes=10)
        ledger = ledger_of(kept)
        put(kept, ledger, b"xxxx")

        assert not put(kept, ledger, b"x" * 11)
        assert [p.size for p in kept.batches()] == [4]
        assert len(messages(caplog)) == 1

    def test_put_drops_batches_past_the_age_limit(
        self, open_spool: Callable[..., Spool], clock: Clock
    ) -> None:
        kept = open_spool()
        ledger = ledger_of(kept)
        put(kept, ledger, b"old", 5)
        clock.advance(MAX_AGE_S + 1)
        put(kept, ledger, b"new", 7)

        assert [p.items for p in kept.batches()] == [7]
        assert (ledger.spooled, ledger.failed) == (7, 5)

    def test_expire_drops_batches_past_the_age_limit(
        self, open_spool: Callable[..., Spool], clock: Clock
    ) -> None:
        kept = open_spool()
        ledger = ledger_of(kept)
        put(kept, ledger, b"old", 5)
        clock.advance(MAX_AGE_S)
        put(kept, ledger, b"new", 7)
        kept.expire()
        assert [p.items for p in kept.batches()] == [5, 7]  # at the limit, not past it
        clock.advance(1)
        kept.expire("metrics")
        assert [p.items for p in kept.batches()] == [5, 7]
        kept.expire("traces")

        assert [p.items for p in kept.batches()] == [7]
        assert (ledger.spooled, ledger.failed) == (7, 5)

    def test_dropped_batches_of_others_are_counted_separately(
        self, open_spool: Callable[..., Spool]
    ) -> None:
        earlier = open_spool(max_bytes=10)
        put(earlier, ledger_of(earlier), b"xxxxxx", 3)
        kept = open_spool(max_bytes=10)
        ledger = ledger_of(kept)
        put(kept, ledger, b"xxxxxx", 4)

        assert (ledger.spooled, ledger.failed, ledger.replay_dropped) == (4, 0, 3)

    def test_a_claimed_batch_is_not_dropped(self, open_spool: Callable[..., Spool]) -> None:
        kept = open_spool(max_bytes=10)
        ledger = ledger_of(kept)
        put(kept, ledger, b"xxxx")
        (first,) = kept.batches()
        with kept.claim(first) as claimed:
            assert claimed is not None
            put(kept, ledger, b"xxxx")
            put(kept, ledger, b"xx")
            put(kept, ledger, b"xxxx")

            assert (kept.directory / first.name).exists()
            assert sum(p.size for p in kept.batches()) <= 10


class TestErrors:
    def test_a_directory_that_cannot_be_made_gives_one_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        kept = Spool(tmp_path / "file" / "spool", 10, 10)

        assert not kept.put("traces", b"x", 1)
        assert not kept.put("traces", b"x", 1)
        (message,) = messages(caplog)
        assert message.endswith("(Not a directory); what is not exported is dropped and counted")

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
    def test_a_failing_disk_gives_one_warning(
        self,
        open_spool: Callable[..., Spool],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        kept = open_spool()

        def full(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(spool.os, "fsync", full)

        assert [kept.put("traces", b"x", 1) for _ in range(3)] == [False] * 3
        assert list(kept.directory.iterdir()) == []
        (message,) = messages(caplog)
        assert f"({os.strerror(code)})" in message

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
    def test_a_full_device_gives_a_warning(
        self,
        open_spool: Callable[..., Spool],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        kept = open_spool()
        really = os.open
        monkeypatch.setattr(
            spool.os,
            "open",
            lambda path, flags, mode=0: really(
                "/dev/full" if str(path).endswith(".tmp") else path, flags & ~os.O_EXCL, mode
            ),
        )

        assert not kept.put("traces", b"x", 1)
        assert "(No space left on device)" in messages(caplog)[0]

    def test_a_batch_that_cannot_be_deleted_is_not_sent_again(
        self, open_spool: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = open_spool()
        ledger = ledger_of(kept)
        put(kept, ledger, b"x", 3)
        (batch,) = kept.batches()

        def readonly(path: Path) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(spool.os, "unlink", readonly)
        kept.done(batch, sent=3)

        assert kept.batches() == []
        assert (ledger.exported, ledger.spooled) == (3, 0)


class TestClaims:
    def test_only_one_process_can_claim_a_batch(self, open_spool: Callable[..., Spool]) -> None:
        first, second = open_spool(), open_spool()
        first.put("traces", b"x", 1)
        (batch,) = first.batches()

        with first.claim(batch) as first_path, second.claim(batch) as second_path:
            assert (first_path is None, second_path) == (False, None)
        with second.claim(batch) as later:
            assert later is not None

    def test_a_batch_that_was_sent_cannot_be_claimed(
        self, open_spool: Callable[..., Spool]
    ) -> None:
        first, second = open_spool(), open_spool()
        first.put("traces", b"x", 1)
        (batch,) = second.batches()
        first.done(batch, sent=1)

        with second.claim(batch) as path:
            assert path is None

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests
    def test_a_crash_releases_its_claim(self, open_spool: Callable[..., Spool]) -> None:
        kept = open_spool()
        kept.put("traces", b"x", 1)
        (batch,) = kept.batches()
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        child = context.Process(target=_claim_and_die, args=(kept, batch, ready))
        child.start()
        assert ready.wait(10)
        child.join(10)

        assert child.exitcode == 9
        with kept.claim(batch) as path:
            assert path is not None

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests
    def test_a_forked_child_is_another_owner(self, open_spool: Callable[..., Spool]) -> None:
        kept = open_spool()
        kept.put("traces", b"x", 1)
        pid = os.fork()
        if pid == 0:
            kept.put("traces", b"y", 1)
            os._exit(0)
        os.waitpid(pid, 0)

        owners = {p.owner for p in kept.batches()}
        assert kept.owner in owners
        assert len(owners) == 2
        assert {owner.split("-")[0] for owner in owners} == {str(os.getpid()), str(pid)}


def _claim_and_die(kept: Spool, batch: Any, ready: Any) -> None:
    with kept.claim(batch):
        ready.set()
        os._exit(9)


class TestSettings:
    def test_without_a_directory_there_is_no_spool(self) -> None:
        assert spool.settings(Config(), {}) is None
        assert spool.settings(Config(), {"OTEL_PIPELINE_METRICS_SPOOL": " "}) is None

    def test_arguments_win_over_the_environment(self) -> None:
        env = {
            "OTEL_PIPELINE_METRICS_SPOOL": "/env",
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES": "5",
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE": "7.5",
        }

        assert spool.settings(Config(), env) == (Path("/env"), 5, 7.5)
        given = Config(spool=Path("/arg"), spool_max_bytes=1, spool_max_age_s=2)
        assert spool.settings(given, env) == (Path("/arg"), 1, 2)

    def test_a_relative_path_becomes_absolute(self) -> None:
        found = spool.settings(Config(spool=Path("spool")), {})
        assert found is not None
        assert found.directory == Path.cwd() / "spool"

    @pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
    def test_a_broken_limit_gives_a_warning_and_the_default(
        self, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        env = {
            "OTEL_PIPELINE_METRICS_SPOOL": "/env",
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES": text,
        }
        found = spool.settings(Config(), env)
        assert found is not None
        assert found.max_bytes == 100 * 1024 * 1024
        assert "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES must be a number above 0" in caplog.text
