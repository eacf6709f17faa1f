"""A spool and delta temporality: a batch that arrives twice would count twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.metrics import NoOpMeterProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from tests.lifecycle.configure.support import clean_slate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with clean_slate():
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
        errors.reset()
        yield


def kept() -> bool:
    """Configure nothing more; tell whether what is lost now goes to the disk."""
    with opm.stage("s"):
        pass
    opm.shutdown()
    state = opm.stats()
    assert state["spans"]["created"] == 1
    return bool(state["spans"]["spooled"] and state["metric_points"]["spooled"])


@pytest.mark.parametrize("preference", ["delta", "Delta", "lowmemory"])
def test_an_argument_for_both_is_refused(
    preference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    opm.configure(flush_timeout=10)
    before = opm.stats()["process"]
    with pytest.raises(ValueError, match=r"spool: with .* spool_delta=True accepts"):
        opm.configure(spool=tmp_path)
    # the earlier configuration stays in force
    assert opm.stats()["process"] == before


def test_a_variable_for_both_gives_no_spool_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL", str(tmp_path / "spool"))
    for _ in range(2):
        opm.configure(flush_timeout=10)
    assert not kept()
    assert not (tmp_path / "spool").exists()
    said = [r.message for r in caplog.records if "spool" in r.message]
    assert len(said) == 1
    assert "there is no spool" in said[0]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_it_can_be_allowed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "variable":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL", str(tmp_path))
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL_DELTA", "true")
        opm.configure(flush_timeout=10)
    else:
        opm.configure(flush_timeout=10, spool=tmp_path, spool_delta=True)
    assert kept()


def test_cumulative_metrics_need_no_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")
    opm.configure(flush_timeout=10, spool=tmp_path)
    assert kept()


def test_spans_alone_need_no_permission(tmp_path: Path) -> None:
    opm.configure(flush_timeout=10, spool=tmp_path, meter_provider=NoOpMeterProvider())
    with opm.stage("s"):
        pass
    opm.shutdown()
    assert opm.stats()["spans"]["spooled"] == 1


def test_the_permission_is_a_flag() -> None:
    with pytest.raises(TypeError, match="spool_delta must be True or False"):
        opm.configure(spool_delta=1)  # type: ignore[arg-type]
