"""Show a run's summary at its end: on the console, or in the log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors, options, output, settings, text
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.tables import look_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_pipeline_metrics.report import RunReport


MORE: Final = 'spans and metrics: exporter="console" or OTEL_PIPELINE_METRICS_CONSOLE=all'

# Set by `configure()`: writes to the console the spans and metrics that it has not shown yet.
show_telemetry: Callable[[], None] | None = None

# Set by `configure()`: whether the first summary is followed by how to see more.
tell_of_more = False


def show(report: RunReport, written: Path | None) -> None:
    """Show what is to be seen of a run that has ended, the summary last."""
    global tell_of_more
    if show_telemetry is not None:
        with errors.suppress_errors("the console"):
            deferring_signals(show_telemetry)
    asked = settings.settings().console
    asked = options.amount_of(os.environ) if asked is None else asked
    stream: Any = sys.stderr if asked in {None, "summary", "all"} else asked
    shown = asked != "off" and (asked is not None or output.is_terminal(sys.stderr))
    where = f"\n\nreport: {text.printable(written)}" if written is not None else ""
    if not shown or not _print(stream, report, where):
        output.write_held()
        errors.logger.info(f"{console.render(report)}{where}")
        return
    errors.logger.info("%s, %s", console.headline(report), console.details(report))
    if tell_of_more:
        tell_of_more = False
        output.write_line(stream, MORE)


def _print(stream: Any, report: RunReport, where: str) -> bool:
    """Write the summary, as wide as the terminal and in its colours."""
    if stream is None:
        return False
    return output.write_line(stream, f"{console.render(report, look_of(stream))}{where}")
