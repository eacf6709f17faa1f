"""What the collector does not accept is kept, sent later and counted (gRPC and HTTP)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._export import environment
from otel_pipeline_metrics._export.delivery import delivery
from otel_pipeline_metrics._export.delivery.ledger import LedgerSnapshot
from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._export.replay import ReplayError, replay

from .conftest import Received, make_spans, points, spans, use

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]


@pytest.fixture(params=["grpc", "http/protobuf"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Received:
    fixture = "grpc_collector" if request.param == "grpc" else "http_collector"
    received: Received = request.getfixturevalue(fixture)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return received


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a failed collector be tried again at once."""
    monkeypatch.setattr(delivery, "PAUSE_S", (0.0, 0.0))


def test_a_batch_is_kept_and_sent_when_the_collector_is_back(
    build: Build, collector: Received, tmp_path: Path
) -> None:
    telemetry = build(spool=tmp_path)
    collector.later = True
    use(telemetry, spans=3)
    report = telemetry.flush(5)

    assert (report.ok, report.spans_exported, report.spans_failed) == (False, 0, 0)
    assert (report.spans_spooled, report.metric_points_spooled) == (3, 1)
    assert spans(telemetry) == LedgerSnapshot(3, 0, 0, 0, 3, 0)
    assert points(telemetry) == LedgerSnapshot(1, 0, 0, 0, 1, 0)
    assert len(list(tmp_path.iterdir())) == 2

    collector.later = False
    use(telemetry, spans=2)
    assert telemetry.flush(5).ok
    assert spans(telemetry) == LedgerSnapshot(5, 5, 0, 0, 0, 0)
    assert points(telemetry) == LedgerSnapshot(2, 2, 0, 0, 0, 0)
    assert collector.spans == {"work": 5}
    assert collector.points == {"done": 2}
    assert list(tmp_path.iterdir()) == []


def test_the_next_process_sends_what_an_earlier_one_kept(
    build: Build, collector: Received, tmp_path: Path
) -> None:
    collector.later = True
    first = build(spool=tmp_path)
    use(first, spans=3)
    first.shutdown(5)
    collector.later = False
    second = build(spool=tmp_path)
    use(second, spans=2)

    assert second.shutdown(5).ok
    assert collector.spans == {"work": 5}
    assert spans(second) == LedgerSnapshot(2, 2, 0, 0, 0, 0)
    assert second.stats()["replayed"] == {"spans": 3, "metric_points": 1}
    assert spans(first).spooled == 3


def age(directory: Path, seconds: float) -> None:
    """Make the batches older: the time is in the name of each file."""
    for path in directory.glob("*.jsonl"):
        signal, created, rest = path.name.split("-", 2)
        path.rename(directory / f"{signal}-{int(created) - round(seconds * 1000):013d}-{rest}")


def test_a_batch_past_its_age_limit_is_dropped(
    build: Build, collector: Received, tmp_path: Path
) -> None:
    """Even if no later batch was kept, which drops old ones too."""
    collector.later = True
    telemetry = build(spool=tmp_path, spool_max_age_s=60)
    use(telemetry, spans=3)
    telemetry.flush(5)
    assert (spans(telemetry).spooled, points(telemetry).spooled) == (3, 1)
    age(tmp_path, 61)
    collector.later = False
    use(telemetry, spans=2)

    telemetry.shutdown(5)
    assert collector.spans == {"work": 2}
    assert spans(telemetry) == LedgerSnapshot(5, 2, 0, 3, 0, 0)
    assert points(telemetry).dropped == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "sent", "refused"), [(None, 3, 0), ("60", 0, 3), ("3600", 3, 0)])
def test_replay_has_the_age_limit_of_the_environment(
    build: Build,
    collector: Received,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    limit: str | None,
    sent: int,
    refused: int,
) -> None:
    collector.later = True
    telemetry = build(spool=tmp_path)
    use(telemetry, spans=3)
    telemetry.shutdown(5)
    age(tmp_path, 61)
    collector.later = False
    if limit is not None:
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE", limit)
    traces, _ = replay(tmp_path)

    assert (traces.sent, traces.refused, traces.batches_left) == (sent, refused, 0)
    assert collector.spans.total() == sent
    assert list(tmp_path.iterdir()) == []


def test_replay_sends_what_is_kept(build: Build, collector: Received, tmp_path: Path) -> None:
    collector.later = True
    telemetry = build(spool=tmp_path)
    use(telemetry, spans=600)
    telemetry.shutdown(5)

    waiting = replay(tmp_path)
    assert [(r.signal, r.sent, r.batches_left) for r in waiting] == [
        ("traces", 0, 2),
        ("metrics", 0, 1),
    ]
    assert waiting[0].reason in ("HTTP 500", "INTERNAL", "no answer in time")
    collector.later = False
    done = replay(tmp_path)

    assert [(r.signal, r.sent, r.refused, r.batches_left, r.reason) for r in done] == [
        ("traces", 600, 0, 0, None),
        ("metrics", 1, 0, 0, None),
    ]
    assert collector.spans == {"work": 600}
    assert replay(tmp_path) == []


def test_replay_sends_protobuf_where_exporters_send_json(
    build: Build, http_collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    http_collector.later = True
    telemetry = build(spool=tmp_path)
    use(telemetry, spans=3)
    telemetry.shutdown(5)
    monkeypatch.setattr(environment, "entry_points", lambda **_: ["the JSON exporter"])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    http_collector.later = False

    assert [(r.signal, r.sent, r.batches_left) for r in replay(tmp_path)] == [
        ("traces", 3, 0),
        ("metrics", 1, 0),
    ]


def test_a_permanent_refusal_is_not_kept(build: Build, collector: Received, tmp_path: Path) -> None:
    collector.refuse = True
    telemetry = build(spool=tmp_path)
    use(telemetry, spans=3)
    telemetry.flush(5)

    assert spans(telemetry) == LedgerSnapshot(3, 0, 0, 3, 0, 0)
    assert points(telemetry).dropped == 1
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_permanently_refused_later_is_dropped(
    build: Build, collector: Received, tmp_path: Path
) -> None:
    collector.later = True
    telemetry = build(spool=tmp_path)
    make_spans(telemetry, 3)
    telemetry.flush(5)
    collector.later = False
    collector.refuse = True

    (done,) = replay(tmp_path)

    assert (done.sent, done.refused, done.batches_left) == (0, 3, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_partial_success_is_counted_and_reported_once(
    build: Build, collector: Received, caplog: pytest.LogCaptureFixture
) -> None:
    collector.rejects = 2
    telemetry = build()
    use(telemetry, spans=10)
    telemetry.flush(5)
    use(telemetry, spans=10)
    report = telemetry.shutdown(5)

    assert (report.spans_exported, report.spans_failed) == (16, 4)
    assert spans(telemetry) == LedgerSnapshot(20, 16, 0, 4, 0, 0)
    assert points(telemetry) == LedgerSnapshot(2, 0, 0, 2, 0, 0)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("partial success" in message for message in messages) == 2  # spans, and points


def test_a_partial_success_of_a_kept_batch_is_counted(
    build: Build, collector: Received, tmp_path: Path
) -> None:
    collector.later = True
    telemetry = build(spool=tmp_path)
    make_spans(telemetry, 10)
    telemetry.flush(5)
    collector.later, collector.rejects = False, 2
    make_spans(telemetry, 1)
    telemetry.flush(5)

    assert spans(telemetry) == LedgerSnapshot(11, 8, 0, 3, 0, 0)


def test_kept_batches_are_sent_with_headers_and_compression(
    build: Build, collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    collector.later = True
    telemetry = build(spool=tmp_path)
    make_spans(telemetry, 3)
    telemetry.flush(5)
    collector.later = False
    collector.headers.clear()

    replay(tmp_path)

    assert collector.spans == {"work": 3}
    assert [headers.get("x-token") for headers in collector.headers] == ["s3cret"]
    assert not any("s3cret" in path.read_text() for path in tmp_path.iterdir())


def test_a_redirect_is_a_failure(
    build: Build, http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporters treat it as success, though nothing arrives."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{http_collector.endpoint}/moved")
    telemetry = build()
    make_spans(telemetry, 3)

    assert telemetry.flush(5).spans_exported == 0


def test_spans_that_are_not_sampled_are_counted(
    build: Build, collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    telemetry = build()
    make_spans(telemetry, 400)
    telemetry.shutdown(5)

    found = spans(telemetry)
    assert found.created == 400
    assert 100 < found.sampled_out < 300
    assert found.exported == collector.spans["work"]


def test_during_a_pause_the_collector_gets_no_request(
    build: Build, collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PAUSE_S", (60.0, 60.0))
    collector.later = True
    telemetry = build(spool=tmp_path)
    make_spans(telemetry, 1)
    telemetry.flush(5)
    tried = collector.requests
    make_spans(telemetry, 2)
    telemetry.flush(5)
    assert collector.requests == tried
    assert spans(telemetry).spooled == 3

    collector.later = False
    make_spans(telemetry, 4)
    report = telemetry.shutdown(5)  # at shutdown the collector is tried again

    assert report.spans_exported == 7
    assert collector.spans == {"work": 7}


class TestReplayErrors:
    def test_a_missing_directory_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ReplayError, match="is not a directory"):
            replay(tmp_path / "missing")

    def test_a_disabled_sdk_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        with pytest.raises(ReplayError, match="OTEL_SDK_DISABLED"):
            replay(tmp_path)

    def test_an_invalid_line_is_dropped_and_counted(
        self, tmp_path: Path, http_collector: Received, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        Spool(tmp_path, 1_000, 1_000).put("traces", b"nonsense\n", 7)

        (done,) = replay(tmp_path)

        assert (done.sent, done.refused, done.batches_left) == (0, 7, 0)
