"""Bounds of sending and keeping: times, counts and statuses, the last one and one more."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export import environment_checks, exporters, flush
from otel_pipeline_metrics._export.background import BackgroundCall, wait_for
from otel_pipeline_metrics._export.delivery import counting_exporters, counting_processor, delivery
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
    """The monotonic clock of those who send: one number, which a test moves."""
    now = [500.0]
    for module in (delivery, flush):
        monkeypatch.setattr(module, "time", type("Time", (), {"monotonic": lambda: now[0]}))
    return now


def new_ledger(remote: bool = False) -> ExportLedger:
    return ExportLedger("traces", "otlp/grpc", "http://user@host:1/path", remote=remote)


class TestAccount:
    def test_where_items_are(self) -> None:
        counted = new_ledger()
        counted.begin(10)
        assert counted.snapshot() == LedgerSnapshot(10, 0, 0, 0, 0, 10)
        counted.note(10, ok=True, rejected=3)
        counted.begin(4)
        counted.note(4, ok=False)
        counted.begin(5)
        counted.note_spooled(5)
        assert counted.snapshot(2) == LedgerSnapshot(21, 7, 2, 7, 5, 0)
        assert (counted.batches_failed, counted.batches_spooled, counted.misses) == (1, 1, 5)
        assert counted.last_ok is False

    def test_what_leaves_the_disk(self) -> None:
        counted = new_ledger()
        counted.begin(5)
        counted.note_spooled(5)
        counted.note_unspooled(5, own=True, sent=3)
        assert counted.snapshot() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert counted.batches_spooled == 0
        counted.note_unspooled(7, own=False, sent=4)
        assert counted.snapshot() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert (counted.replayed, counted.replay_dropped) == (4, 3)

    def test_what_is_under_way_at_the_end_is_lost(self) -> None:
        counted = new_ledger()
        counted.begin(2)
        counted.note(2, ok=True)
        counted.close()
        assert (counted.failed, counted.batches_failed, counted.last_ok) == (0, 0, True)
        counted = new_ledger()
        counted.begin(6)
        counted.close()
        assert counted.snapshot() == LedgerSnapshot(6, 0, 0, 6, 0, 0)
        assert (counted.batches_failed, counted.misses, counted.last_ok) == (1, 6, False)
        counted.note(6, ok=True)
        assert counted.exported == 0
        counted.note_spooled(6)
        assert counted.snapshot() == LedgerSnapshot(6, 0, 0, 0, 6, 0)
        assert counted.batches_failed == 0

    def test_what_a_full_queue_drops(self) -> None:
        """Known while it runs only if the queue was ever nearly full."""
        counted, queue = new_ledger(), [3]
        counted.waiting = lambda: queue[0]
        for _ in range(10):
            counted.accept()
        counted.begin(2)
        counted.note(2, ok=True)
        assert counted.snapshot() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        counted.crowded = True
        assert counted.snapshot() == LedgerSnapshot(10, 2, 0, 5, 0, 3)
        queue[0] = 9
        assert counted.snapshot() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        assert counted.pending == 8
        counted.close()
        assert counted.snapshot() == LedgerSnapshot(10, 2, 0, 8, 0, 0)

    def test_its_host(self) -> None:
        assert new_ledger().host == "http://user@host:1"
        assert ExportLedger("traces", "console", "stderr").host == "stderr"


class TestPausing:
    def delivery(self, tmp_path: Path, answers: list[Answer]) -> tuple[Delivery, list[int]]:
        """A delivery that keeps, whose collector gives these answers; and the tries."""
        tries: list[int] = []
        made = Delivery(new_ledger(), Spool(tmp_path / "spool", 10_000, 3600.0))

        def answer(*_: Any) -> Answer:
            tries.append(1)
            return answers.pop(0) if answers else Answer(ok=False)

        made._try = answer  # type: ignore[method-assign]
        return made, tries

    def deliver(self, made: Delivery) -> bool:
        return made.deliver(1, lambda: True, lambda: b"x")

    def test_it_doubles_from_a_second_to_thirty(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, tries = self.delivery(tmp_path, [])
        pauses = []
        for _ in range(8):
            assert not self.deliver(made)
            pauses.append(made._paused_until - monotonic[0])
            monotonic[0] = made._paused_until - 0.001
            assert not self.deliver(made)
            monotonic[0] += 0.001
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
        assert len(tries) == 8
        assert made.ledger.spooled == 16

    def test_a_success_begins_anew(self, tmp_path: Path, monotonic: list[float]) -> None:
        failed = Answer(ok=False)
        made, _ = self.delivery(tmp_path, [failed, failed, Answer(ok=True), failed])
        for pause in (1, 2, 0, 1):
            self.deliver(made)
            assert max(0.0, made._paused_until - monotonic[0]) == pytest.approx(pause)
            monotonic[0] += pause

    def test_no_pause_at_the_end(self, tmp_path: Path, monotonic: list[float]) -> None:
        made, tries = self.delivery(tmp_path, [])
        self.deliver(made)
        made.begin_shutdown(monotonic[0] + 10)
        self.deliver(made)
        self.deliver(made)
        assert len(tries) == 3
        made.stop()
        self.deliver(made)
        assert len(tries) == 3
        assert made.ledger.spooled == 4

    def test_an_empty_batch_is_not_kept(self, tmp_path: Path) -> None:
        made, _ = self.delivery(tmp_path, [])
        assert not made.deliver(0, lambda: True, lambda: b"x")
        assert (made.ledger.spooled, made._spool and made._spool.batches()) == (0, [])

    def test_no_more_is_rejected_than_was_sent(self, tmp_path: Path) -> None:
        made, _ = self.delivery(tmp_path, [Answer(ok=True, rejected=7)])
        assert made.deliver(3, lambda: True, lambda: b"x")
        assert (made.ledger.exported, made.ledger.failed) == (0, 3)

    @pytest.mark.parametrize(("waiting", "busy"), [(5, False), (6, True), (None, False)])
    def test_a_queue_more_than_half_full_goes_first(
        self, waiting: int | None, busy: bool, tmp_path: Path
    ) -> None:
        made, _ = self.delivery(tmp_path, [])
        assert not made._is_busy()
        made.ledger.waiting, made.ledger.capacity = lambda: waiting, 11
        assert made._is_busy() is busy
        made.ledger.until = 1.0
        assert not made._is_busy()

    def test_what_is_on_disk_is_sent_for_half_a_second(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        """No batch is begun after that."""
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


class TestSpool:
    def test_it_may_be_filled_to_the_byte(self, tmp_path: Path) -> None:
        kept = Spool(tmp_path / "spool", 10, 3600.0)
        assert kept.put("traces", b"x" * 5, 1)
        assert kept.put("traces", b"x" * 5, 2)
        assert [batch.items for batch in kept.batches()] == [1, 2]
        assert kept.put("traces", b"x", 3)
        assert [batch.items for batch in kept.batches()] == [2, 3]
        assert kept.put("traces", b"x" * 10, 4)
        assert [batch.items for batch in kept.batches()] == [4]

    def test_a_batch_of_just_the_age_is_kept(self, tmp_path: Path, clock: Clock) -> None:
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

    def test_ten_minutes_are_a_crash(self, tmp_path: Path, clock: Clock) -> None:
        for age in (599, 601):
            path = tmp_path / f".opm-{age}.tmp"
            path.write_text("half")
            os.utime(path, (clock.unix() - age,) * 2)
        Spool(tmp_path, 100, 3600.0)
        assert [path.name for path in tmp_path.iterdir()] == [".opm-599.tmp"]

    @pytest.mark.parametrize(("text", "most"), [("0", None), ("-1", None), ("0.5", 0), ("7", 7)])
    def test_a_limit_is_above_zero(self, text: str, most: int | None, tmp_path: Path) -> None:
        from otel_pipeline_metrics._core.settings import Config  # the default is what is meant

        env = {
            "OTEL_PIPELINE_METRICS_SPOOL": str(tmp_path),
            "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES": text,
        }
        found = settings(Config(), env)
        assert found is not None
        assert found.max_bytes == (Config().spool_max_bytes if most is None else most)


class TestTheEnd:
    def telemetry(self, kept: int | None = None) -> ExportPipeline:
        """Telemetry without providers; its one exporter keeps what it cannot send."""
        counted = new_ledger()
        if kept is not None:
            counted.kept_in = "somewhere"
            counted.begin(kept)
        made = type("Counted", (), {"ledger": counted, "delivery": Delivery(counted)})()
        traces = SignalPipeline("traces", object(), False, (made,))
        return ExportPipeline(traces, SignalPipeline("metrics", object(), False))

    @pytest.mark.parametrize(
        ("timeout_s", "waiting", "reserved_s"),
        [(10.0, None, 0.0), (10.0, 0, 0.2), (10.0, 1000, 0.7), (10.0, 100_000, 5.0), (0.2, 0, 0.1)],
    )
    def test_how_much_time_the_disk_has(
        self, timeout_s: float, waiting: int | None, reserved_s: float, monotonic: list[float]
    ) -> None:
        """0.2 s and half a millisecond a span, and half of all at most."""
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
    def test_what_a_flush_that_hangs_leaves_for_the_end(
        self, flushed_s: float, done: bool, given_s: float, left_s: float
    ) -> None:
        made, given = self.telemetry(), []
        job = BackgroundCall(lambda: None)
        if done:
            job.run()
        made._late, made._late_s = [job], flushed_s

        def run(timeout_s: float, *, ending: bool) -> None:
            assert ending
            given.append(timeout_s)

        made._run = run  # type: ignore[method-assign,assign]
        made.shutdown(given_s)
        assert given == [pytest.approx(left_s)]

    @pytest.mark.parametrize(
        ("count", "noun", "said"),
        [
            (1, "span", "1 span"), (2, "span", "2 spans"), (0, "span", "0 spans"),
            (1000, "span", "1,000 spans"), (2, "metric batch", "2 metric batches"),
        ],
    )  # fmt: skip
    def test_plurals(self, count: int, noun: str, said: str) -> None:
        assert flush._plural(count, noun) == said

    def test_a_job_waits_until_its_deadline(self) -> None:
        job = BackgroundCall(lambda: False)
        assert not wait_for([job], time.monotonic() - 5)
        job.run()
        assert job.failed
        assert wait_for([job], time.monotonic() - 5)

    @pytest.mark.parametrize(
        ("tried", "waiting", "collector"),
        [
            (None, 0, "off"), (None, 1, "unreachable"), (True, 0, "ok"), (True, 1, "ok"),
            (False, 0, "unreachable"),
        ],
    )  # fmt: skip
    def test_what_is_said_of_the_collector(
        self, tried: bool | None, waiting: int, collector: str
    ) -> None:
        made = self.telemetry()
        (counted,) = made.ledgers
        counted.remote, counted.last_ok = True, tried
        counted.begin(waiting)
        assert made._collector() == collector


class TestQueue:
    @pytest.mark.parametrize(("text", "size"), [(None, 2048), ("10", 10), ("x", 2048)])
    def test_its_size(self, text: str | None, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        if text is not None:
            monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", text)
        assert environment_checks.batch_setting(os.environ, "OTEL_BSP_MAX_QUEUE_SIZE") == size

    @pytest.mark.parametrize(("size", "near"), [(2048, 1984), (65, 1), (64, 1), (10, 1)])
    def test_from_where_on_it_is_crowded(
        self, size: int, near: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(size))
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
        exporter = counting_exporters.CountingSpanExporter(
            type("Nowhere", (), {"shutdown": lambda self: None})(), new_ledger()
        )
        processor = counting_processor.CountingBatchProcessor(exporter)
        assert (processor._ledger.capacity, processor._near) == (size, near)
        processor.shutdown()

    def test_an_attempt_may_take_half_a_second_more_than_its_timeout(self) -> None:
        assert (exporters.SLACK_S, flush.GRACE_S, delivery.PATIENCE_S) == (0.5, 0.25, 10.0)
