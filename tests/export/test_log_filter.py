"""The filter drops only the log lines of our own exporters."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._export.delivery import log_filter as _log_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

sdk_logger = logging.getLogger("opentelemetry.sdk.test")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def installed() -> Iterator[_log_filter.Filter]:
    log_filter = _log_filter.Filter()
    log_filter.install()
    yield log_filter
    log_filter.remove()


def test_only_log_lines_of_our_exporters_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    sdk_logger.error("before")
    with _log_filter.exporting():
        sdk_logger.error("inside")
        sdk_logger.critical("critical")
        logging.getLogger("somebody.else").error("other")
    sdk_logger.error("after")

    assert messages(caplog) == ["before", "critical", "other", "after"]


def test_the_filter_stays_until_the_last_visit_is_over(
    installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
) -> None:
    """An export that was given up at the deadline fails later."""
    inside, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        with _log_filter.exporting():
            inside.set()
            go_on.wait(10)
            sdk_logger.error("cannot send to user:s3cret@host")

    thread = threading.Thread(target=hang)
    thread.start()
    inside.wait(10)
    installed.remove()
    assert installed in sdk_logger.filters
    with _log_filter.exporting():
        sdk_logger.error("of the next one")
    go_on.set()
    thread.join()

    assert messages(caplog) == ["of the next one"]
    assert installed not in sdk_logger.filters


def test_secrets_are_removed_from_lines_that_are_kept(
    installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
) -> None:
    installed.remove()
    log_filter = _log_filter.Filter(("user:s3cret", "s3cret"))
    log_filter.install()
    with _log_filter.exporting():
        error = ConnectionError("to user:s3cret@host?s3cret")
        sdk_logger.error("failed: %s", "s3cret", exc_info=error)
    sdk_logger.error("not ours: s3cret")
    log_filter.remove()

    first, second = messages(caplog)
    assert first == "failed: ***\nConnectionError: to ***@host?***"
    assert second == "not ours: s3cret"
    assert "s3cret" not in caplog.text.replace(second, "")


def test_lines_of_other_threads_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with _log_filter.exporting():
        thread = threading.Thread(target=sdk_logger.error, args=("their own exporter",))
        thread.start()
        thread.join()

    assert messages(caplog) == ["their own exporter"]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("traces", ConnectionError("s3cret")), "ConnectionError"),
        (("spans", 401, "s3cret"), "HTTP 401"),
        (("spans", "s3cret", 2), None),
    ],
)
def test_the_reason_is_a_class_or_a_status(args: Any, reason: str | None) -> None:
    with _log_filter.exporting() as logs:
        sdk_logger.error(" ".join(["%s"] * len(args)), *args)

    assert logs.reason == reason


def test_a_removed_filter_drops_nothing(
    installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
) -> None:
    installed.remove()
    with _log_filter.exporting():
        sdk_logger.error("inside")

    assert messages(caplog) == ["inside"]
