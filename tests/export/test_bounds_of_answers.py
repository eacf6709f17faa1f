"""Bounds of answers: statuses, attempts, log lines; and the target of a trial."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export import trial
from otel_pipeline_metrics._export.delivery import delivery, log_filter, responses
from otel_pipeline_metrics._export.delivery.responses import Answer

if TYPE_CHECKING:
    from tests.conftest import Clock


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "permanent"),
        [
            (299, False), (300, True), (407, True), (408, False), (409, True), (428, True),
            (429, False), (430, True), (499, True), (500, False), (503, False),
        ],
    )  # fmt: skip
    def test_3xx_and_4xx_are_permanent_but_for_408_and_429(
        self, status: int, permanent: bool
    ) -> None:
        assert responses.is_permanent(f"HTTP {status}") is permanent
        assert responses.Answer(ok=False, reason=f"HTTP {status}").permanent is permanent
        assert not responses.Answer(ok=True, reason=f"HTTP {status}").permanent

    def test_2xx_is_a_success(self) -> None:
        assert [status for status in range(600) if status in responses._OK] == [*range(200, 300)]

    def test_the_second_failure_ends_the_attempts_unless_they_are_unlimited(self) -> None:
        with responses.exchange(attempts=delivery.ATTEMPTS) as seen:
            seen.failed("HTTP 503")
            with pytest.raises(responses.GivenUpError):
                seen.failed("HTTP 500")
        assert seen.answer == responses.Answer(ok=False, reason="HTTP 500")
        with responses.exchange() as seen:
            for _ in range(10):
                seen.failed("HTTP 503")

    def test_an_inner_exchange_restores_the_outer_one(self) -> None:
        with responses.exchange() as outer:
            with responses.exchange() as inner:
                assert responses._here.exchange is inner
            assert responses._here.exchange is outer
        assert responses._here.exchange is None

    @pytest.mark.parametrize(("answered", "counted"), [(-1, 0), (0, 0), (2, 2)])
    def test_a_partial_success_tells_how_many_were_rejected(
        self, answered: int, counted: int
    ) -> None:
        partial = type("Partial", (), {"rejected_spans": answered, "rejected_data_points": 9})
        answer = type("Answer", (), {"partial_success": partial})
        assert responses._rejected_of("traces", answer) == counted
        assert responses._rejected_of("metrics", answer) == 9
        assert responses._rejected_of("traces", object()) == 0

    @pytest.mark.parametrize(
        ("argument", "reason"),
        [
            (299, None),
            (300, "HTTP 300"),
            (599, "HTTP 599"),
            (600, None),
            (KeyError("k"), "KeyError"),
        ],
    )  # fmt: skip
    def test_the_reason_in_a_log_line_is_a_status_or_an_exception(
        self, argument: object, reason: str | None
    ) -> None:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "%s %s", ("a", argument), None)
        assert log_filter._reason(record) == reason

    @pytest.mark.parametrize(
        ("took_s", "reason"),
        [(0.5, None), (0.75, "no success in 0.8 s"), (2.0, "no success in 2.0 s")],
    )
    def test_a_slow_failure_without_a_reason_is_reported_with_its_time(
        self, took_s: float, reason: str | None, clock: Clock
    ) -> None:
        def export() -> bool:
            clock.advance(took_s)
            return False

        assert delivery._attempt(export) == Answer(ok=False, reason=reason, unsent=True)


class TestLogFilter:
    def test_a_visit_in_a_visit_is_one_visit(self) -> None:
        """It ends with the outer one, and a line without a reason keeps the reason before."""
        made = log_filter.Filter()
        made.install()
        with_reason = logging.LogRecord("grpc", logging.ERROR, "f", 1, "%s", (KeyError("k"),), None)
        without_reason = logging.LogRecord("grpc", logging.ERROR, "f", 1, "m", (), None)
        with log_filter.exporting() as logs:
            with log_filter.exporting():
                pass
            assert not made.filter(with_reason)
            assert not made.filter(without_reason)
        assert made.filter(with_reason)
        assert logs.reason == "KeyError"
        made.remove()

    def test_a_filter_covers_visits_that_begin_between_install_and_remove(self) -> None:
        record = logging.LogRecord("grpc", logging.ERROR, "f", 1, "m", (), None)
        made = log_filter.Filter()
        with log_filter.exporting():
            made.install()
            assert made.filter(record)
            assert not made.busy
        with log_filter.exporting():
            assert not made.filter(record)
            assert made.busy
            record.levelno = logging.CRITICAL
            assert made.filter(record)
            record.levelno = logging.ERROR
            made.remove()
            assert not made.filter(record)
        with log_filter.exporting():
            assert made.filter(record)
        assert not made.busy


@pytest.mark.parametrize(
    ("target", "port"),
    [("http://h/path", 80), ("https://h", 443), ("h:4317", 4317), ("grpc://h", None), ("h", None)],
)
def test_a_trial_connects_to_the_host_and_port_of_its_target(
    target: str, port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, float]] = []

    class Connection:
        def close(self) -> None:
            """Do nothing."""

    def connect(address: Any, timeout: float) -> Connection:
        asked.append((address, timeout))
        return Connection()

    monkeypatch.setattr(trial.socket, "create_connection", connect)
    outcome = trial.reach(target)
    assert asked == ([] if port is None else [(("h", port), 2.0)])
    assert (outcome is None) is (port is None)
