"""What became of this process's telemetry so far: `opm.stats()`, and a part of each report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, privacy

if TYPE_CHECKING:
    from collections.abc import Callable


_COUNTS: Final = ("created", "exported", "sampled_out", "dropped", "spooled", "pending")

exported: Callable[[], dict[str, Any]] | None = None
"""Tells what became of spans and metric points; set by `configure()`, and left by `shutdown()`."""


def telemetry_stats() -> dict[str, Any]:
    """Return everything that is counted, as plain data; unknown is None."""
    found: dict[str, Any] = {
        "spans": dict.fromkeys(_COUNTS),
        "metric_points": dict.fromkeys(_COUNTS),
        "replayed": {"spans": None, "metric_points": None},
        "process": None,
        "flush_s": None,
        "collector": None,
    }
    if exported is not None:
        found |= exported()
    found["guards"] = {
        "forbidden_keys": privacy.forbidden_keys.value(),
        "other_values": cardinality.others.value(),
        "cut_messages": privacy.cut_messages.value(),
    }
    return found


def snapshot_for_report() -> dict[str, Any]:
    """Return `stats()`, without judging a collector that nothing was sent to yet."""
    found = telemetry_stats()
    spans = found["spans"]
    tried = any(spans[key] for key in ("exported", "dropped", "spooled"))
    if spans["created"] is None or (found["collector"] == "unreachable" and not tried):
        found["collector"] = None
    # the ledger's `dropped`, by the name that reports have had for it from the first
    found["spans"] = {**spans, "lost": spans["dropped"]}
    return found
