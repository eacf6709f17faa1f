"""Find the pending values of one stage, queue or limit, by metric and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.records import StageKey
from otel_pipeline_metrics._telemetry.pending import PendingSum, PendingValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.records import AttributeValue
    from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import Instrument


# A counter's name, an attribute and its value, and an error type; each may be empty but the first.
SumId = tuple[str, str, str, str]

_NO_STAGE: Final = StageKey(None, "", None)


class Totals:
    """The pending values of one stage under one set of metric attributes."""

    __slots__ = (
        "_instruments", "attributes", "cpu_time", "durations", "running", "stage", "sums", "values",
    )  # fmt: skip

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        attributes: dict[str, AttributeValue],
        stage: StageKey = _NO_STAGE,
    ) -> None:
        self._instruments = instruments
        self.attributes = attributes
        # the key that the stage is reported under
        self.stage = stage
        # of `sums` and `values`, what most batches add to
        self.durations: PendingValues | None = None
        self.running: PendingSum | None = None
        self.cpu_time: PendingSum | None = None
        self.sums: dict[SumId, PendingSum] = {}
        # by metric and error type
        self.values: dict[tuple[str, str], PendingValues] = {}

    def sum(self, identity: SumId) -> PendingSum:
        """Return a counter's pending increments, made if need be."""
        found = self.sums.get(identity)
        if found is None:
            metric, key, value, error_type = identity
            attributes = self._with_extra({key: value, defs.ERROR_TYPE: error_type})
            found = self.sums[identity] = PendingSum(self._instruments[metric], attributes)
        return found

    def histogram(self, metric: defs.Metric, error_type: str = "") -> PendingValues:
        """Return a histogram's pending values, made if need be."""
        found = self.values.get((metric.name, error_type))
        if found is None:
            attributes = self._with_extra({defs.ERROR_TYPE: error_type})
            found = PendingValues(self._instruments[metric.name], attributes)
            self.values[metric.name, error_type] = found
        return found

    def _with_extra(self, more: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
        """Return the attributes, and those of `more` that have a value."""
        return {**self.attributes, **{key: value for key, value in more.items() if value}}

    def flush_if_full(self) -> None:
        """Record histograms with too many values for the next collection."""
        for values in self.values.values():
            values.flush_if_full()
