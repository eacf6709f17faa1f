"""Keep the slowest calls of one stage in a run, with what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.slowest import SLOWEST
from otel_pipeline_metrics._telemetry.spans import ids_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.records import AttributeValue, Batch, StageResult


# what is kept of a call's attributes
_MOST_ATTRIBUTES: Final = 16
_MOST_CHARACTERS: Final = 256
_MOST_ELEMENTS: Final = 16

_PLAIN_CALL: Final = {"outcome": "ok", "error_type": None}


class Slowest:
    """At most `SLOWEST` calls. Batches come in while the lock of the flush is held."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        # the slowest first
        self._kept: list[dict[str, Any]] = []

    def copy(self) -> Slowest:
        """Return the same calls."""
        made = Slowest()
        made._kept = list(self._kept)
        return made

    def to_list(self) -> list[dict[str, Any]]:
        """Return the calls as the report has them, the slowest first."""
        return [{**call, "attributes": dict(call["attributes"])} for call in self._kept]

    def add(self, batch: Batch) -> None:
        """Take the slowest calls of a batch."""
        for seconds, context in batch.slowest:
            if self._is_slow(seconds):
                self._add_traced(seconds, batch.attributes, context)
        for result in batch.results:
            if self._is_slow(result.busy_s):
                self._add_result(result, batch.attributes)
        traced = [seconds for seconds, _ in batch.slowest]
        for seconds in reversed(batch.durations[-SLOWEST:]):
            if not self._is_slow(seconds):
                break
            if seconds in traced:
                traced.remove(seconds)
            else:
                self._keep(seconds, batch.attributes, None, _PLAIN_CALL)

    def _is_slow(self, seconds: float) -> bool:
        return len(self._kept) < SLOWEST or seconds > self._kept[-1]["duration_s"]

    def _add_traced(
        self, seconds: float, attributes: Mapping[str, AttributeValue], context: Any
    ) -> None:
        # a flush between the end of a call and that of its span has taken it without the span
        for call in self._kept:
            if call["duration_s"] == seconds and call["trace_id"] is None:
                call["trace_id"], call["span_id"] = ids_of(context)
                return
        self._keep(seconds, attributes, context, _PLAIN_CALL)

    def _add_result(self, result: StageResult, fixed: Mapping[str, AttributeValue]) -> None:
        self._keep(
            result.busy_s,
            {**fixed, **(result.attributes or {})},
            result.context,
            {"outcome": result.outcome, "error_type": result.error_type},
        )

    def _keep(
        self,
        seconds: float,
        attributes: Mapping[str, AttributeValue],
        context: Any,
        ended: Mapping[str, str | None],
    ) -> None:
        trace_id, span_id = ids_of(context)
        self._kept.append(
            {
                "duration_s": seconds,
                **ended,
                "attributes": {
                    key: _bounded(value)
                    for key, value in list(attributes.items())[:_MOST_ATTRIBUTES]
                },
                "trace_id": trace_id,
                "span_id": span_id,
            }
        )
        self._kept.sort(key=lambda call: -call["duration_s"])
        del self._kept[SLOWEST:]


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MOST_CHARACTERS]
    if isinstance(value, (list, tuple)):
        return [_bounded(one) for one in value[:_MOST_ELEMENTS]]
    return value
