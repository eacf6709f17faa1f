"""Send what a spool keeps: `opm replay DIR`."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export import environment, exporters
from otel_pipeline_metrics._export.delivery.counting_exporters import COUNTING_EXPORTERS
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.log_filter import Filter
from otel_pipeline_metrics._export.delivery.spool import Spool, max_age_s
from otel_pipeline_metrics._export.environment_repairs import repaired_environment

if TYPE_CHECKING:
    from otel_pipeline_metrics._export.environment import ExportPlan, Protocol, Signal


class ReplayError(Exception):
    """A replay that cannot send anything."""


class Replayed(NamedTuple):
    """The result for one signal's batches."""

    signal: Signal
    # where they were sent to, without credentials
    target: str
    # spans or metric points that arrived
    sent: int
    # permanently refused by the collector, or too old; they are deleted
    refused: int
    # batches that are still on disk: the collector failed, or another process has them
    batches_left: int
    # why the last attempt failed, if it did
    reason: str | None


def replay(directory: str | os.PathLike[str]) -> list[Replayed]:
    """Send what `directory` keeps to where OTEL_EXPORTER_OTLP_* points.

    A batch is deleted only after the collector has accepted it: if this process dies between
    the two, another process sends it again. It is safe while pipelines are running.

    Args:
        directory: the value of `spool`.

    Raises:
        ReplayError: the directory does not exist, or no exporter can be built.
    """
    path = Path(directory)
    if not os.path.isdir(path):  # noqa: PTH112 - `Path.is_dir` raises for a long name
        raise ReplayError(f"{path} is not a directory")
    plan = _plan()
    # batches of any age are sent, unless the variable sets a limit
    spool = Spool(path, sys.maxsize, max_age_s(os.environ))
    try:
        signals = [s for s in environment.SIGNALS if spool.batches(s)]
    except OSError as error:
        raise ReplayError(f"{path} cannot be read ({error.strerror})") from None
    log_filter = Filter()
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
    # the same server accepts both, and only the answers of this one can be observed
    protocols: dict[Signal, Protocol] = {
        signal: "http/protobuf" if protocol == "http/json" else protocol
        for signal, protocol in plan.protocols.items()
    }
    return dataclasses.replace(plan, protocols=protocols)


def _replay(plan: ExportPlan, signal: Signal, spool: Spool, log_filter: Filter) -> Replayed:
    kind, target = exporters.describe(plan, signal, "otlp")
    with repaired_environment(dict(plan.repairs)):
        try:
            exporter, watched = exporters.load(plan, signal, "otlp")
        except Exception as error:  # its message may quote a key file
            raise ReplayError(
                f"the {kind} exporter for {signal} cannot be built ({type(error).__name__})"
            ) from None
    if not watched:
        raise ReplayError(
            f"the answers to the {kind} exporter for {signal} cannot be observed "
            "(a credential provider brings its own session), so no batch could be deleted safely"
        )
    log_filter.install()
    ledger = ExportLedger(signal, kind, target)
    counting = COUNTING_EXPORTERS[signal](exporter, ledger, spool, watched=True)
    counting.delivery.resend(math.inf)
    counting.delivery.close()
    counting.shutdown()
    return Replayed(
        signal,
        target,
        sent=ledger.replayed,
        refused=ledger.replay_dropped,
        batches_left=len(spool.batches(signal)),
        reason=counting.delivery.reason,
    )
