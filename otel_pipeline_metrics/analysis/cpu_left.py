"""Tell how much CPU time is left for more throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.facts import Facts


CPU_FULL: Final = 0.9
# From so many busy CPUs on, a gain is limited to the CPU time that is left.
CPU_COUNTS: Final = 0.3


def is_cpu_bound(facts: Facts) -> bool:
    """Tell whether this process keeps about one CPU busy."""
    return facts.cores is not None and facts.cores >= CPU_FULL


def cap_by_cpu(facts: Facts, gain: float) -> float:
    """Return the gain, limited to what the remaining CPU time allows.

    More threads or tasks of this process share its GIL, so one CPU; all processes share the
    machine's CPUs.
    """
    busiest = max(facts.cores or 0.0, facts.utilization or 0.0)
    return gain if busiest <= CPU_COUNTS else min(gain, max(0.0, 1 / busiest - 1))


def cap_by_machine(facts: Facts, gain: float) -> float:
    """Return the gain, limited to what the CPUs of the machine have left."""
    used = facts.utilization or 0.0
    return gain if used <= CPU_COUNTS else min(gain, max(0.0, 1 / used - 1))
