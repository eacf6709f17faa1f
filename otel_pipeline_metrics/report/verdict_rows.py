"""Describe what a report says of the verdict, and of what changes would gain."""

from typing import Annotated, Any, TypedDict

from otel_pipeline_metrics.report.typed_rows import Count, Number, Text

BottleneckEvidenceRow = TypedDict(
    "BottleneckEvidenceRow",
    {
        "name": Annotated[Text, "what it is, with its unit"],
        "value": Annotated[Number, "null is unknown"],
        "line": Annotated[Number, "where the line is drawn"],
        "for": Annotated[bool | None, "whether it speaks for the verdict; null is unknown"],
    },
)


class BottleneckWhatIfRow(TypedDict):
    """One change."""

    change: Annotated[Text, "faster, workers, limit or errors"]
    name: Annotated[Text, "the stage, limit or queue that is changed"]
    stage: Annotated[Text, "the stage concerned"]
    by: Annotated[
        Count,
        "2 is half the service time or twice the permits, 1 one more worker, null no failures",
    ]
    gain: Annotated[list[float], "the least and the most throughput gained, 0.25 is a quarter more"]
    next: Annotated[Text, "what limits the run then"]


class BottleneckExperimentsRow(TypedDict):
    """One stage."""

    change: Annotated[Text, "faster"]
    name: Annotated[Text, "the stage"]
    stage: Annotated[Text, "the same"]
    by: Annotated[Count, "2: half the service time"]
    predicted: Annotated[Number, "throughput gained, 0.25 is a quarter more; null if unknown"]
    interval: Annotated[list[float] | None, "the least and the most that chance leaves possible"]
    invocations: Annotated[Count, "calls that were virtually faster, or slower"]
    confirmed: Annotated[bool | None, "whether this bears out the gain in what_if; null is unknown"]
    why: Annotated[Text, "why nothing is predicted, or little is certain"]


class BottleneckRow(TypedDict):
    """The verdict: what limits the run."""

    kind: Annotated[
        Text,
        "stage, source, limit, undecorated, serial, cpu, gil, machine, event loop, errors, "
        "workers, skew, tie or unknown",
    ]
    name: Annotated[Text, "the stage, limit or queue; null if it has no name, or the limit is none"]
    stage: Annotated[Text, "the stage concerned; null if the limit is none of them"]
    ties: Annotated[list[str], "all stages that limit the run equally"]
    busy: Annotated[Number, "that stage's busy share"]
    confidence: Annotated[Text, "high, medium or low"]
    why: Annotated[Text, "the reason, with numbers"]
    evidence: Annotated[list[BottleneckEvidenceRow], "numbers for or against the verdict"]
    when: Annotated[Text, "what limited the run when, if that changed"]
    advice: Annotated[list[str], "what to do, a sentence each"]
    # of schema 1, an object
    what_if: Annotated[
        list[BottleneckWhatIfRow] | dict[str, Any] | None,
        "what changes would gain, the verdict's own first",
    ]
    assumptions: Annotated[list[str], "what the verdict takes for granted"]
    experiments: Annotated[
        list[BottleneckExperimentsRow],
        "of a run with experiment=True: what stages twice as fast would gain",
    ]
    confirmed: Annotated[
        bool | None, "whether the experiments bear the verdict out; null is unknown"
    ]
