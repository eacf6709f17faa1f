"""Bounds of sending and keeping: times, counts and states at each limit and past it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._export.background import BackgroundCall, wait_for
from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._export.delivery.batch import Batch
from otel_pipeline_metrics._export.delivery.delivery import Delivery
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger, LedgerSnapshot
from otel_pipeline_metrics._export.delivery.responses import Answer
from otel_pipeline_metrics._export.delivery.spool import Spool, settings
from otel_pipeline_metrics._export.flush import ExportPipeline, SignalPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the monotonic clock of delivery and flush by a number that a test moves."""
    now = [500.0]
    monkeypatch.setattr(_clock, "monotonic", lambda: now[0])
    return now


def new_ledger(remote: bool = False) -> ExportLedger:
    return ExportLedger("traces", "otlp/grpc", "http://user@host:1/path", remote=remote)


class TestLedger:
    def test_every_item_is_in_one_column(self) -> None:
        ledger = new_ledger()
        ledger.begin(10)
        assert ledger.snapshot() == LedgerSnapshot(10, 0, 0, 0, 0, 10)
        ledger.note(10, ok=True, rejected=3)
        ledger.begin(4)
        ledger.note(4, ok=False)
        ledger.begin(5)
        ledger.note_spooled(5)
        assert ledger.snapshot(2) == LedgerSnapshot(21, 7, 2, 7, 5, 0)
        assert (ledger.batches_failed, ledger.batches_spooled, ledger.misses) == (1, 1, 5)
        assert ledger.last_ok is False

    def test_a_batch_that_leaves_the_disk_is_sent_or_dropped(self) -> None:
        ledger = new_ledger()
        ledger.begin(5)
        ledger.note_spooled(5)
        ledger.note_unspooled(5, own=True, sent=3)
        assert ledger.snapshot() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert ledger.batches_spooled == 0
        ledger.note_unspooled(7, own=False, sent=4)
        assert ledger.snapshot() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert (ledger.replayed, ledger.replay_dropped) == (4, 3)

    def test_a_batch_in_progress_at_the_end_is_lost(self) -> None:
        ledger = new_ledger()
        ledger.begin(2)
        ledger.note(2, ok=True)
        ledger.close()
        assert (ledger.failed, ledger.batches_failed, ledger.last_ok) == (0, 0, True)
        ledger = new_ledger()
        ledger.begin(6)
        ledger.close()
        assert ledger.snapshot() == LedgerSnapshot(6, 0, 0, 6, 0, 0)
        assert (ledger.batches_failed, ledger.misses, ledger.last_ok) == (1, 6, False)
        ledger.note(6, ok=True)
        assert ledger.exported == 0
        ledger.note_spooled(6)
        assert ledger.snapshot() == LedgerSnapshot(6, 0, 0, 0, 6, 0)
        assert ledger.batches_failed == 0

    def test_the_drops_of_a_full_queue_are_counted(self) -> None:
        """Before the end they are known only if the queue has been nearly full."""
        ledger, queue = new_ledger(), [3]
        ledger.waiting = lambda: queue[0]
        for _ in range(10):
            ledger.accept()
        ledger.begin(2)
        ledger.note(2, ok=True)
        assert ledger.snapshot() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        ledger.crowded = True
        assert ledger.snapshot() == LedgerSnapshot(10, 2, 0, 5, 0, 3)
        queue[0] = 9
        assert ledger.snapshot() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        assert ledger.pending == 8
        ledger.close()
        assert ledger.snapshot() == LedgerSnapshot(10, 2, 0, 8, 0, 0)

    def test_a_failure_is_reported_once_for_each_host_and_not_after_the_deadline(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        already_warned: set[str] = set()
        for signal in ("traces", "metrics"):
            ExportLedger(signal, "otlp/grpc", "http://h:1/x", already_warned=already_warned).warn(
                "why"
            )  # type: ignore[arg-type]
        late = ExportLedger("traces", "otlp/grpc", "http://late")
        late.stopped = True
        late.warn("why")
        assert [record.getMessage()[:52] for record in caplog.records] == [
            "telemetry cannot be exported to http://h:1 (why); th"
        ]

    def test_the_host_is_the_target_without_its_path(self) -> None:
        assert new_ledger().host == "http://user@host:1"
        assert ExportLedger("traces", "console", "stderr").host == "stderr"


class Items(Batch):
    """A batch of so many items, all of which can be encoded."""

    def __init__(self, items: int) -> None:
        super().__init__("traces", (None,) * items)

    def line(self) -> bytes:
        return b"x"


class TestPauses:
    def delivery(self, tmp_path: Path, answers: list[Answer]) -> tuple[Delivery, list[int]]:
        """Return a delivery with a spool and these answers, and the list of its attempts."""
        attempts: list[int] = []
        made = Delivery(new_ledger(), Spool(tmp_path / "spool", 10_000, 3600.0))

        def answer(*_: Any) -> Answer:
            attempts.append(1)
            return answers.pop(0) if answers else Answer(ok=False)

        made._try = answer  # type: ignore[method-assign]
        return made, attempts

    def deliver(self, made: Delivery) -> bool:
        return made.deliver(Items(1), lambda: True)

    def test_pauses_double_from_one_to_thirty_seconds(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, attempts = self.delivery(tmp_path, [])
        pauses = []
        for _ in range(8):
            assert not self.deliver(made)
            pauses.append(made._paused_until - monotonic[0])
            monotonic[0] = made._paused_until - 0.001
            assert not self.deliver(made)
            monotonic[0] += 0.001
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
        assert len(attempts) == 8
        assert made.ledger.spooled == 16

    def test_a_success_resets_the_pause(self, tmp_path: Path, monotonic: list[float]) -> None:
        failed = Answer(ok=False)
        made, _ = self.delivery(tmp_path, [failed, failed, Answer(ok=True), failed])
        for pause in (1, 2, 0, 1):
            self.deliver(made)
            assert max(0.0, made._paused_until - monotonic[0]) == pytest.approx(pause)
            monotonic[0] += pause

    def test_while_an_abandoned_attempt_hangs_no_other_begins(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, attempts = self.delivery(tmp_path, [Answer(ok=True)])
        made._call = BackgroundCall(lambda: None)
        self.deliver(made)
        assert (len(attempts), made.ledger.spooled) == (0, 1)
        made._call.run()
        monotonic[0] += 1
        self.deliver(made)
        assert (len(attempts), made.ledger.exported) == (1, 1)

    def test_there_is_no_pause_at_shutdown(self, tmp_path: Path, monotonic: list[float]) -> None:
        made, attempts = self.delivery(tmp_path, [])
        self.deliver(made)
        made.begin_shutdown(monotonic[0] + 10)
        self.deliver(made)
        self.deliver(made)
        assert len(attempts) == 3
        made.stop()
        self.deliver(made)
        assert len(attempts) == 3
        assert made.ledger.spooled == 4

    def test_an_empty_batch_is_not_kept(self, tmp_path: Path) -> None:
        made, _ = self.delivery(tmp_path, [])
        assert not made.deliver(Items(0), lambda: True)
        assert (made.ledger.spooled, made._spool and made._spool.batches()) == (0, [])

    def test_at_most_as_many_are_rejected_as_were_sent(self, tmp_path: Path) -> None:
        made, _ = self.delivery(tmp_path, [Answer(ok=True, rejected=7)])
        assert made.deliver(Items(3), lambda: True)
        assert (made.ledger.exported, made.ledger.failed) == (0, 3)

    @pytest.mark.parametrize(("waiting", "busy"), [(5, False), (6, True), (None, False)])
    def test_a_queue_more_than_half_full_has_priority_over_the_disk(
        self, waiting: int | None, busy: bool, tmp_path: Path
    ) -> None:
        made, _ = self.delivery(tmp_path, [])
        assert not made._is_busy()
        made.ledger.waiting, made.ledger.capacity = lambda: waiting, 11
        assert made._is_busy() is busy
        made.ledger.until = 1.0
        assert not made._is_busy()

    def test_resending_begins_no_batch_after_half_a_second(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, _ = self.delivery(tmp_path, [Answer(ok=True)])
        made._send_empty = lambda: True
        for _ in range(4):
            assert made._spool is not None
            made._spool.put("traces", b"x", 1)
        sent: list[str] = []

        def resend(batch: Any, lines: bytes) -> bool:
            sent.append(batch.name)
            monotonic[0] += 0.25
            return True

        made._resend = resend  # type: ignore[method-assign]
        assert self.deliver(made)
        assert len(sent) == 2
        made.stop()
        made.resend(monotonic[0] + 100)
        assert len(sent) == 2


class TestSpool:
    def test_the_spool_can_be_filled_to_the_byte(self, tmp_path: Path) -> None:
        kept = Spool(tmp_path / "spool", 10, 3600.0)
        assert kept.put("traces", b"x" * 5, 1)
        assert kept.put("traces", b"x" * 5, 2)
        assert [batch.items for batch in kept.batches()] == [1, 2]
        assert kept.put("traces", b"x", 3)
        assert [batch.items for batch in kept.batches()] == [2, 3]
        assert kept.put("traces", b"x" * 10, 4)
        assert [batch.items for batch in kept.batches()] == [4]

    def test_batches_of_the_same_moment_have_different_names(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        kept = Spool(tmp_path / "spool", 100, 3600.0)
        assert kept.put("traces", b"a", 1)
        assert kept.put("traces", b"b", 1)
        assert [batch.number for batch in kept.batches()] == [0, 1]

    def test_a_deleted_file_cannot_be_locked(self, tmp_path: Path) -> None:
        path = tmp_path / "sent"
        path.write_bytes(b"x")
        with path.open("rb") as file:
            assert spool._locked(file.fileno())
            path.unlink()
            assert not spool._locked(file.fileno())

    def test_a_batch_at_the_age_limit_is_kept(self, tmp_path: Path, clock: Clock) -> None:
        kept = Spool(tmp_path / "spool", 100, 3600.0)
        kept.put("traces", b"x", 1)
        clock.advance(3600.0)
        kept.expire()
        assert len(kept.batches()) == 1
        clock.advance(0.002)
        kept.expire("metrics")
        assert len(kept.batches()) == 1
        kept.expire("traces")
        assert kept.batches() == []

    def test_a_temporary_file_older_than_ten_minutes_is_removed(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        for age in (599, 601):
            path = tmp_path / f".opm-{age}.tmp"
            path.write_text("half")
            os.utime(path, (clock.unix() - age,) * 2)
        Spool(tmp_path, 100, 3600.0)
        assert [path.name for path in tmp_path.iterdir()] == [".opm-599.tmp"]

    @pytest.mark.parametrize(("text", "most"), [("0", None), ("-1", None), ("0.5", 0), ("7", 7)])
    def test_a_limit_must_be_above_zero(self, text: str, most: int | None, tmp_path: Path) -> None:
        from otel_pipeline_metrics._core.settings import (
            Config,
        )  # its class attributes are the defaults

        env = {
            "OTEL_PIPELINE_METRICS_SPOOL": str(tmp_path),
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES": text,
        }
        found = settings(Config(), env)
        assert found is not None
        assert found.max_bytes == (Config().spool_max_bytes if most is None else most)


class TestShutdown:
    def telemetry(self, kept: int | None = None) -> ExportPipeline:
        """Return a pipeline without providers; with `kept`, its exporter has a spool."""
        ledger = new_ledger()
        if kept is not None:
            ledger.kept_in = "somewhere"
            ledger.begin(kept)
        made = type("Counted", (), {"ledger": ledger, "delivery": Delivery(ledger)})()
        traces = SignalPipeline("traces", object(), False, (made,))
        return ExportPipeline(traces, SignalPipeline("metrics", object(), False))

    @pytest.mark.parametrize(
        ("timeout_s", "waiting", "reserved_s"),
        [(10.0, None, 0.0), (10.0, 0, 0.2), (10.0, 1000, 0.7), (10.0, 100_000, 5.0), (0.2, 0, 0.1)],
    )
    def test_time_is_reserved_for_the_disk(
        self, timeout_s: float, waiting: int | None, reserved_s: float, monotonic: list[float]
    ) -> None:
        """0.2 s and half a millisecond for each span, but at most half of the timeout."""
        made = self.telemetry(waiting)
        until = made._begin_shutdown(timeout_s)
        assert until == pytest.approx(500.0 + timeout_s - reserved_s)
        assert [one.ledger.until for one in made._keeping] == ([] if waiting is None else [until])

    @pytest.mark.parametrize(
        ("flushed_s", "done", "given_s", "left_s"),
        [
            (4.0, True, 5.0, 5.0), (4.0, False, 5.0, 1.0), (4.9, False, 5.0, 0.25),
            (9.0, False, 5.0, 0.25), (9.0, False, 0.1, 0.1),
        ],
    )  # fmt: skip
    def test_a_hanging_flush_shortens_the_shutdown(
        self, flushed_s: float, done: bool, given_s: float, left_s: float
    ) -> None:
        made, given = self.telemetry(), []
        call = BackgroundCall(lambda: None)
        if done:
            call.run()
        over = BackgroundCall(lambda: None)
        over.run()
        made._late, made._late_s = [over, call], flushed_s

        def run(timeout_s: float, *, ending: bool) -> None:
            assert ending
            given.append(timeout_s)

        made._run = run  # type: ignore[method-assign,assign]
        made.shutdown(given_s)
        assert given == [pytest.approx(left_s)]

    def test_waiting_for_a_call_ends_at_the_deadline(self) -> None:
        call = BackgroundCall(lambda: False)
        assert not wait_for([call], time.monotonic() - 5)
        call.run()
        assert call.failed
        done = BackgroundCall(lambda: None)
        done.run()
        assert not done.failed
        assert wait_for([call], time.monotonic() - 5)

    @pytest.mark.parametrize(
        ("tried", "waiting", "collector"),
        [
            (None, 0, "off"), (None, 1, "unreachable"), (True, 0, "ok"), (True, 1, "ok"),
            (False, 0, "unreachable"),
        ],
    )  # fmt: skip
    def test_the_state_of_the_collector(
        self, tried: bool | None, waiting: int, collector: str
    ) -> None:
        made = self.telemetry()
        (ledger,) = made.ledgers
        ledger.remote, ledger.last_ok = True, tried
        ledger.begin(waiting)
        assert made._collector() == collector
