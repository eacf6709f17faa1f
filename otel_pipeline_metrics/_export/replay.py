"""`opm replay DIR`: send what a spool keeps, now."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export import environment, exporters
from otel_pipeline_metrics._export.delivery import log_filter as _log_filter
from otel_pipeline_metrics._export.delivery.counting_exporters import (
    CountingMetricExporter,
    CountingSpanExporter,
)
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.spool import Spool, max_age_s

if TYPE_CHECKING:
    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


class ReplayError(Exception):
    """Nothing can be sent at all."""


class Replayed(NamedTuple):
    """What became of one signal's batches."""

    signal: Signal
    target: str
    """Where they were sent to, without credentials."""
    sent: int
    """Spans or metric points that arrived."""
    refused: int
    """Those that the collector refused for good, or that were too old; they are deleted."""
    batches_left: int
    """Batches that are still on disk, because the collector failed or a process has them."""
    reason: str | None
    """Why the last attempt failed, if it did."""


def replay(directory: str | os.PathLike[str]) -> list[Replayed]:
    """Send what is in `directory` to where the OTEL_EXPORTER_OTLP_* variables point.

    A batch is deleted once the collector has taken it, and not before: if this process dies
    between the two, another sends it again. It is safe beside running pipelines.

    Args:
        directory: what was given as `spool`.

    Raises:
        ReplayError: the directory is not there, or no exporter can be built.
    """
    path = Path(directory)
    if not path.is_dir():
        raise ReplayError(f"{path} is no directory")
    plan = _plan()
    # asked for by name, it is sent however old it is, unless the variable says otherwise
    spool = Spool(path, sys.maxsize, max_age_s(os.environ))
    try:
        signals = [s for s in environment.SIGNALS if spool.parcels(s)]
    except OSError as error:
        raise ReplayError(f"{path} cannot be read ({error.strerror})") from None
    log_filter = _log_filter.Filter()
    try:
        return [_replay(plan, signal, spool, log_filter) for signal in signals]
    finally:
        log_filter.remove()


def _plan() -> ExportPlan:
    plan = environment.plan(os.environ, ("otlp",))
    if plan.disabled:
        raise ReplayError("OTEL_SDK_DISABLED is true")
    for problem in plan.problems:
        errors.warn_once(f"environment: {problem}", "%s", problem)
    protobuf: dict[str, Any] = {
        # the same server takes both, and the answers of this one can be watched
        f"{signal}_protocol": "http/protobuf"
        for signal in environment.SIGNALS
        if plan.protocol(signal) == "http/json"
    }
    return dataclasses.replace(plan, **protobuf)


def _replay(
    plan: ExportPlan, signal: Signal, spool: Spool, log_filter: _log_filter.Filter
) -> Replayed:
    kind, target = exporters.describe(plan, signal, "otlp")
    with exporters.repaired_environment(dict(plan.repairs)):
        try:
            exporter, watched = exporters.load(plan, signal, "otlp")
        except Exception as error:  # its message may quote a key file
            raise ReplayError(
                f"the {kind} exporter for {signal} cannot be built ({type(error).__name__})"
            ) from None
    if not watched:
        raise ReplayError(
            f"the answers to the {kind} exporter for {signal} cannot be seen here "
            "(a credential provider brings its own session), so nothing would be safe to delete"
        )
    log_filter.install()
    account = ExportLedger(signal, kind, target)
    counting_type = CountingSpanExporter if signal == "traces" else CountingMetricExporter
    counting = counting_type(exporter, account, spool, watched=True)
    counting.carrier.resend(math.inf)
    counting.carrier.close()
    counting.shutdown()
    return Replayed(
        signal,
        target,
        sent=account.replayed,
        refused=account.replay_dropped,
        batches_left=len(spool.parcels(signal)),
        reason=counting.carrier.reason,
    )
