"""Compare two runs: what has changed, and whether that is more than noise.

    from otel_pipeline_metrics import RunReport
    from otel_pipeline_metrics.report.compare import compare

    comparison = compare(RunReport.load("old.json"), RunReport.load("new.json"), fail_on=0.1)
    print(comparison.render())
    sys.exit(comparison.exit_code)

`stage_changes` judges the durations of the stages, `figures` the run as a whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics.report.comparison import Comparison, Figure
from otel_pipeline_metrics.report.figures import compare_figures, find_error_regressions
from otel_pipeline_metrics.report.stage_changes import StageChange, judge_stages, pair_stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


__all__ = ["Comparison", "Figure", "StageChange", "compare"]

FAIL_ON: Final = 0.10


def compare(
    old: RunReport,
    new: RunReport,
    *,
    fail_on: float = FAIL_ON,
    fail_on_throughput: float = FAIL_ON,
    allow_missing: bool = False,
) -> Comparison:
    """Compare two runs of a pipeline, stage by stage and as a whole.

    Args:
        old: the run to measure against.
        new: the run in question.
        fail_on: by how much a stage may get slower; 0.1 is ten per cent. Reports cannot show
            changes below two per cent.
        fail_on_throughput: by how much items a second, or calls where items are not counted, may
            fall; 1 or more never fails.
        allow_missing: let a stage of `old` be missing in `new`. A renamed stage is missing, and
            new.

    Returns:
        The changes, the regressions among them, and the exit code of the command. Peak memory
        and caches are judged too, but are no reason to fail.

    Raises:
        ValueError: the reports are of different pipelines, or a ratio is not positive.
    """
    for name, given in (("fail_on", fail_on), ("fail_on_throughput", fail_on_throughput)):
        if not 0 < given < math.inf:
            raise ValueError(f"{name} must be a positive ratio such as 0.1, not {given!r}")
    pipelines = [report.run.get("pipeline") for report in (old, new)]
    if pipelines[0] != pipelines[1]:
        raise ValueError(
            f"the reports are of different pipelines: {pipelines[0]!r} and {pipelines[1]!r}"
        )
    pairs = pair_stages(old, new)
    stages = judge_stages(pairs, fail_on)
    errors = find_error_regressions(old, new, fail_on)
    figures = compare_figures(
        old, new, pairs, errors, fail_on=fail_on, fail_on_throughput=fail_on_throughput
    )
    bad = {"slower", "slower tail"} if allow_missing else {"slower", "slower tail", "gone"}
    regressions = [f"{s.name} {s.why}" for s in stages if s.judgement in bad]
    regressions += [
        f"{one.name} {one.why}"
        for one in figures
        if one.judgement == "worse" and one.unit in {"items/s", "calls/s"}
    ]
    regressions += errors
    results = [str(report.run.get("result") or "in progress") for report in (old, new)]
    if results[0] == "success" != results[1]:
        regressions.append(f"the run ended in {results[1]}, not in success")
    return Comparison(
        pipeline=str(pipelines[0]),
        fail_on=fail_on,
        fail_on_throughput=fail_on_throughput,
        stages=tuple(stages),
        figures=tuple(figures),
        regressions=tuple(regressions),
        notes=tuple(_notes(old, new, stages, figures, allow_missing=allow_missing)),
    )


def _notes(
    old: RunReport,
    new: RunReport,
    stages: Sequence[StageChange],
    figures: Sequence[Figure],
    *,
    allow_missing: bool,
) -> list[str]:
    """Return a sentence for each change that is worth a look but not a reason to fail."""
    told = {"new", "gone", "noise"} if allow_missing else {"new", "noise"}
    notes = [f"{s.name} {s.why}" for s in stages if s.judgement in told]
    notes += [
        f"{one.name} {one.why}"
        for one in figures
        if one.judgement in {"noise", "drift"}
        or (one.judgement == "worse" and one.unit in {"By", "1"} and one.why)
    ]
    if not any(stage.old_s is not None for stage in stages):
        notes.append("the runs have no stage in common that could be compared")
    if any(stage.judgement == "drift" for stage in stages):
        notes.append(
            "several stages slowed down alike: so did the machine, or something they all use"
        )
    if any(report.run.get("partial") for report in (old, new)):
        notes.append("a partial report is compared")
    return notes
