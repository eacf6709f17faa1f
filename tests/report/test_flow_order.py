"""Test the order in which a report shows its stages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics.report.flow import stages_in_flow_order

names = st.sampled_from([*"abcdef", "elsewhere"])
queues = st.lists(
    st.fixed_dictionaries(
        {
            "producers": st.lists(names, max_size=3),
            "consumers": st.lists(names, max_size=3),
        }
    ),
    max_size=6,
)


@given(kinds=st.lists(st.sampled_from(["fetch", None, "write"]), max_size=6), queues=queues)
def test_a_stage_follows_the_other_producers_of_its_queues(
    kinds: list[str | None], queues: list[dict[str, list[str]]]
) -> None:
    """Of those that may follow, the first by kind and place; in a circle, the first of all."""
    stages = [{"name": "abcdef"[index], "kind": kind} for index, kind in enumerate(kinds)]
    left = sorted(stages, key=lambda stage: ("fetch", None, "write").index(stage["kind"]))
    expected: list[Any] = []
    while left:
        missing = {stage["name"] for stage in left}

        def waits(name: Any, missing: set[Any] = missing) -> bool:
            return any(
                (missing - {name}).intersection(queue["producers"])
                for queue in queues
                if name in queue["consumers"]
            )

        chosen = next((stage for stage in left if not waits(stage["name"])), left[0])
        left.remove(chosen)
        expected.append(chosen)

    report: Any = SimpleNamespace(stages=stages, queues=queues)
    assert stages_in_flow_order(report) == expected
