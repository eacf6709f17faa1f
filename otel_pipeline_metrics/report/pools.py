"""Tell what became of the workers of elastic pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, number, whole
from otel_pipeline_metrics.report.tables import Table

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.run_report import RunReport

# Rows for each pool: the first changes of a long run tell less than the last ones.
MAX_CHANGES: Final = 12


def pool_table(report: RunReport) -> Table:
    """Return a row for each of the last changes of the number of workers."""
    rows = [
        (
            str(pool.get("name")),
            text.duration(number(change, "at_s")),
            text.number(whole(change, "from")),
            text.number(whole(change, "to")),
            str(change.get("why")),
        )
        for pool in report.pools
        for change in entries(pool, "changes")[-MAX_CHANGES:]
    ]
    return Table(("workers of", "after", "from", "to", "because of"), rows, left=1)
