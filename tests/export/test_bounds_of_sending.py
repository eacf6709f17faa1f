"""Bounds of sending and keeping: times, counts and statuses, the last one and one more."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export import flush
from otel_pipeline_metrics._export.background import BackgroundCall, wait_for
from otel_pipeline_metrics._export.delivery import delivery, spool
from otel_pipeline_metrics._export.delivery.delivery import Carrier, Delivery
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger, LedgerSnapshot
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


def account(remote: bool = False) -> ExportLedger:
    return ExportLedger("traces", "otlp/grpc", "http://user@host:1/path", remote=remote)


class TestAccount:
    def test_where_items_are(self) -> None:
        counted = account()
        counted.begin(10)
        assert counted.ledger() == LedgerSnapshot(10, 0, 0, 0, 0, 10)
        counted.note(10, ok=True, rejected=3)
        counted.begin(4)
        counted.note(4, ok=False)
        counted.begin(5)
        counted.note_spooled(5)
        assert counted.ledger(2) == LedgerSnapshot(21, 7, 2, 7, 5, 0)
        assert (counted.batches_failed, counted.batches_spooled, counted.misses) == (1, 1, 5)
        assert counted.last_ok is False

    def test_what_leaves_the_disk(self) -> None:
        counted = account()
        counted.begin(5)
        counted.note_spooled(5)
        counted.note_unspooled(5, own=True, sent=3)
        assert counted.ledger() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert counted.batches_spooled == 0
        counted.note_unspooled(7, own=False, sent=4)
        assert counted.ledger() == LedgerSnapshot(5, 3, 0, 2, 0, 0)
        assert (counted.replayed, counted.replay_dropped) == (4, 3)

    def test_what_is_under_way_at_the_end_is_lost(self) -> None:
        counted = account()
        counted.begin(2)
        counted.note(2, ok=True)
        counted.close()
        assert (counted.failed, counted.batches_failed, counted.last_ok) == (0, 0, True)
        counted = account()
        counted.begin(6)
        counted.close()
        assert counted.ledger() == LedgerSnapshot(6, 0, 0, 6, 0, 0)
        assert (counted.batches_failed, counted.misses, counted.last_ok) == (1, 6, False)
        counted.note(6, ok=True)
        assert counted.exported == 0
        counted.note_spooled(6)
        assert counted.ledger() == LedgerSnapshot(6, 0, 0, 0, 6, 0)
        assert counted.batches_failed == 0

    def test_what_a_full_queue_drops(self) -> None:
        """Known while it runs only if the queue was ever nearly full."""
        counted, queue = account(), [3]
        counted.waiting = lambda: queue[0]
        for _ in range(10):
            counted.accept()
        counted.begin(2)
        counted.note(2, ok=True)
        assert counted.ledger() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        counted.crowded = True
        assert counted.ledger() == LedgerSnapshot(10, 2, 0, 5, 0, 3)
        queue[0] = 9
        assert counted.ledger() == LedgerSnapshot(10, 2, 0, 0, 0, 8)
        assert counted.pending == 8
        counted.close()
        assert counted.ledger() == LedgerSnapshot(10, 2, 0, 8, 0, 0)

    def test_a_failure_is_said_once_for_each_host_and_not_after_the_deadline(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        said: set[str] = set()
        for signal in ("traces", "metrics"):
            ExportLedger(signal, "otlp/grpc", "http://h:1/x", said=said).warn("why")  # type: ignore[arg-type]
        late = ExportLedger("traces", "otlp/grpc", "http://late")
        late.stopped = True
        late.warn("why")
        assert [record.getMessage()[:52] for record in caplog.records] == [
            "telemetry cannot be exported to http://h:1 (why); th"
        ]

    def test_its_host(self) -> None:
        assert account().host == "http://user@host:1"
        assert ExportLedger("traces", "console", "stderr").host == "stderr"


class TestPausing:
    def carrier(self, tmp_path: Path, answers: list[Delivery]) -> tuple[Carrier, list[int]]:
        """A carrier that keeps, whose collector gives these answers; and the tries."""
        tries: list[int] = []
        made = Carrier(account(), Spool(tmp_path / "spool", 10_000, 3600.0))

        def deliver(*_: Any) -> Delivery:
            tries.append(1)
            return answers.pop(0) if answers else Delivery(ok=False)

        made._deliver = deliver  # type: ignore[method-assign]
        return made, tries

    def carry(self, made: Carrier) -> bool:
        return made.carry(1, lambda: True, lambda: b"x")

    def test_it_doubles_from_a_second_to_thirty(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, tries = self.carrier(tmp_path, [])
        pauses = []
        for _ in range(8):
            assert not self.carry(made)
            pauses.append(made._paused_until - monotonic[0])
            monotonic[0] = made._paused_until - 0.001
            assert not self.carry(made)
            monotonic[0] += 0.001
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
        assert len(tries) == 8
        assert made.account.spooled == 16

    def test_a_success_begins_anew(self, tmp_path: Path, monotonic: list[float]) -> None:
        failed = Delivery(ok=False)
        made, _ = self.carrier(tmp_path, [failed, failed, Delivery(ok=True), failed])
        for pause in (1, 2, 0, 1):
            self.carry(made)
            assert max(0.0, made._paused_until - monotonic[0]) == pytest.approx(pause)
            monotonic[0] += pause

    def test_while_one_that_was_given_up_still_hangs_none_is_tried(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        made, tries = self.carrier(tmp_path, [Delivery(ok=True)])
        made._job = BackgroundCall(lambda: None)
        self.carry(made)
        assert (len(tries), made.account.spooled) == (0, 1)
        made._job.run()
        monotonic[0] += 1
        self.carry(made)
        assert (len(tries), made.account.exported) == (1, 1)

    def test_no_pause_at_the_end(self, tmp_path: Path, monotonic: list[float]) -> None:
        made, tries = self.carrier(tmp_path, [])
        self.carry(made)
        made.begin_shutdown(monotonic[0] + 10)
        self.carry(made)
        self.carry(made)
        assert len(tries) == 3
        made.stop()
        self.carry(made)
        assert len(tries) == 3
        assert made.account.spooled == 4

    def test_an_empty_batch_is_not_kept(self, tmp_path: Path) -> None:
        made, _ = self.carrier(tmp_path, [])
        assert not made.carry(0, lambda: True, lambda: b"x")
        assert (made.account.spooled, made._spool and made._spool.parcels()) == (0, [])

    def test_no_more_is_rejected_than_was_sent(self, tmp_path: Path) -> None:
        made, _ = self.carrier(tmp_path, [Delivery(ok=True, rejected=7)])
        assert made.carry(3, lambda: True, lambda: b"x")
        assert (made.account.exported, made.account.failed) == (0, 3)

    @pytest.mark.parametrize(("waiting", "busy"), [(5, False), (6, True), (None, False)])
    def test_a_queue_more_than_half_full_goes_first(
        self, waiting: int | None, busy: bool, tmp_path: Path
    ) -> None:
        made, _ = self.carrier(tmp_path, [])
        assert not made._busy()
        made.account.waiting, made.account.capacity = lambda: waiting, 11
        assert made._busy() is busy
        made.account.until = 1.0
        assert not made._busy()

    def test_what_is_on_disk_is_sent_for_half_a_second(
        self, tmp_path: Path, monotonic: list[float]
    ) -> None:
        """No batch is begun after that."""
        made, _ = self.carrier(tmp_path, [Delivery(ok=True)])
        made._send_nothing = lambda: True
        for _ in range(4):
            assert made._spool is not None
            made._spool.put("traces", b"x", 1)
        sent: list[str] = []

        def resend(parcel: Any, lines: bytes) -> bool:
            sent.append(parcel.name)
            monotonic[0] += 0.25
            return True

        made._resend = resend  # type: ignore[method-assign]
        assert self.carry(made)
        assert len(sent) == 2
        made.stop()
        made.resend(monotonic[0] + 100)
        assert len(sent) == 2


class TestSpool:
    def test_it_may_be_filled_to_the_byte(self, tmp_path: Path) -> None:
        kept = Spool(tmp_path / "spool", 10, 3600.0)
        assert kept.put("traces", b"x" * 5, 1)
        assert kept.put("traces", b"x" * 5, 2)
        assert [parcel.items for parcel in kept.parcels()] == [1, 2]
        assert kept.put("traces", b"x", 3)
        assert [parcel.items for parcel in kept.parcels()] == [2, 3]
        assert kept.put("traces", b"x" * 10, 4)
        assert [parcel.items for parcel in kept.parcels()] == [4]

    def test_equal_batches_of_one_moment_are_two(self, tmp_path: Path, clock: Clock) -> None:
        kept = Spool(tmp_path / "spool", 100, 3600.0)
        assert kept.put("traces", b"a", 1)
        assert kept.put("traces", b"b", 1)
        assert [parcel.number for parcel in kept.parcels()] == [0, 1]

    def test_what_was_deleted_while_it_was_opened_is_not_held(self, tmp_path: Path) -> None:
        path = tmp_path / "sent"
        path.write_bytes(b"x")
        with path.open("rb") as file:
            assert spool._locked(file.fileno())
            path.unlink()
            assert not spool._locked(file.fileno())

    def test_a_batch_of_just_the_age_is_kept(self, tmp_path: Path, clock: Clock) -> None:
        kept = Spool(tmp_path / "spool", 100, 3600.0)
        kept.put("traces", b"x", 1)
        clock.advance(3600.0)
        kept.expire()
        assert len(kept.parcels()) == 1
        clock.advance(0.002)
        kept.expire("metrics")
        assert len(kept.parcels()) == 1
        kept.expire("traces")
        assert kept.parcels() == []

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
        counted = account()
        if kept is not None:
            counted.kept_in = "somewhere"
            counted.begin(kept)
        made = type("Counted", (), {"account": counted, "carrier": Carrier(counted)})()
        made.stoppable = None
        traces = SignalPipeline("traces", object(), False, (made,))
        return ExportPipeline(traces, SignalPipeline("metrics", object(), False), ())

    @pytest.mark.parametrize(
        ("timeout_s", "waiting", "reserved_s"),
        [(10.0, None, 0.0), (10.0, 0, 0.2), (10.0, 1000, 0.7), (10.0, 100_000, 5.0), (0.2, 0, 0.1)],
    )
    def test_how_much_time_the_disk_has(
        self, timeout_s: float, waiting: int | None, reserved_s: float, monotonic: list[float]
    ) -> None:
        """0.2 s and half a millisecond a span, and half of all at most."""
        made = self.telemetry(waiting)
        until = made._hurry(timeout_s)
        assert until == pytest.approx(500.0 + timeout_s - reserved_s)
        assert [one.account.until for one in made._keeping] == ([] if waiting is None else [until])

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
        over = BackgroundCall(lambda: None)
        over.run()
        made._late, made._late_s = [over, job], flushed_s

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
        done = BackgroundCall(lambda: None)
        done.run()
        assert not done.failed
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
        (counted,) = made.accounts
        counted.remote, counted.last_ok = True, tried
        counted.begin(waiting)
        assert made._collector() == collector
