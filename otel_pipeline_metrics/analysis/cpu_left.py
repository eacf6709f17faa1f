"""Read the CPU time that a run took, and tell how much is left for more throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import entries, get_path, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.analysis.facts import Facts


# From this utilization on, the CPUs are used up: the rest is lost between samples.
CPU_FULL: Final = 0.9
# From so many busy CPUs on, a gain is limited to the CPU time that is left.
CPU_COUNTS: Final = 0.3
# From so many moments without a CPU on, their share counts.
TWICE: Final = 2


def is_cpu_bound(facts: Facts) -> bool:
    """Tell whether this process keeps about one CPU busy."""
    return facts.cores is not None and facts.cores >= CPU_FULL


def cap_by_cpu(facts: Facts, gain: float) -> float:
    """Return the gain, limited to what the remaining CPU time allows.

    More threads or tasks of this process share its GIL, so one CPU; all processes share the
    machine's CPUs.
    """
    return _cap(gain, max(facts.cores or 0.0, facts.utilization or 0.0))


def cap_by_machine(facts: Facts, gain: float) -> float:
    """Return the gain, limited to what the CPUs of the machine have left."""
    return _cap(gain, facts.utilization or 0.0)


def _cap(gain: float, used: float) -> float:
    return gain if used <= CPU_COUNTS else min(gain, max(0.0, 1 / used - 1))


def starved(data: Mapping[str, Any]) -> float | None:
    """Return the share of moments without a CPU, of any number: enough to doubt a verdict."""
    waited = number(data, "resources", "run_delay_waited")
    samples = number(data, "resources", "run_delay_samples")
    if waited is None or not samples:
        return number(data, "resources", "run_delay")
    # a single one may be chance
    return waited / samples if waited >= TWICE else 0.0


def read_cpu(facts: Facts, data: Mapping[str, Any]) -> None:
    """Set the facts on the CPU time of a run, of its child and its worker processes."""
    facts.machine = number(data, "resources", "system_cpu_utilization")
    average = number(data, "resources", "cpu_utilization", "avg")
    cpus = number(data, "resources", "limits", "cpus")
    if average is None or not cpus:
        return
    facts.cpus = cpus
    facts.cores = average * cpus
    facts.quota = str(get_path(data, "resources", "limits", "source")).startswith("cgroup")
    # overlapping merged runs used the CPUs at the same time
    whole = number(data, "run", "wall_s")
    overlap = facts.runs * facts.wall_s / whole if whole else 1.0
    processes = max(1.0, overlap)
    children_s = number(data, "resources", "children_cpu_s")
    if whole and children_s is not None:
        facts.children = children_s / whole
    # worker processes may be children too
    others = max(facts.children or 0.0, _cpu_of_workers(data, cpus) / whole if whole else 0.0)
    facts.utilization = min(1.0, average * processes + others / cpus)


def _cpu_of_workers(data: Mapping[str, Any], cpus: float) -> float:
    """Return the CPU seconds of the worker processes on this machine, as far as that is certain.

    A report does not name its own host. Processes of a single one with as many CPUs are there.
    """
    workers = entries(data, "processes")
    same = {each.get("host") for each in workers}
    if len(same) != 1 or any(number(each, "cpus") != cpus for each in workers):
        return 0.0
    return sum(number(each, "cpu_s") or 0.0 for each in workers)
