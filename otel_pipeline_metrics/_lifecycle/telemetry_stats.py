"""Return where spans and metric points went, for `opm.stats()` and each report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, privacy

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.prometheus import Page


_COUNTS: Final = ("created", "exported", "sampled_out", "dropped", "spooled", "pending")

# Returns the counts of spans and metric points; set by `configure()`, and kept by `shutdown()`.
exported: Callable[[], dict[str, Any]] | None = None

# The ledger of each exporter that `configure()` built.
ledgers: tuple[ExportLedger, ...] = ()

# What Prometheus scrapes, where `configure()` was asked for that.
pages: tuple[Page, ...] = ()


def telemetry_stats() -> dict[str, Any]:
    """Return all counts as plain data; unknown is None."""
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
    """Return the counts, with `collector` None until something was sent to it."""
    found = telemetry_stats()
    spans = found["spans"]
    tried = any(spans[key] for key in ("exported", "dropped", "spooled"))
    if spans["created"] is None or (found["collector"] == "unreachable" and not tried):
        found["collector"] = None
    # reports have always called the ledger's `dropped` so
    found["spans"] = {**spans, "lost": spans["dropped"]}
    return found
