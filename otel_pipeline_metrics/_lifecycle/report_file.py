"""Write a run's report where `run(report=...)` asks for it, in the format of the path's suffix."""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.files import (
    absolute,
    safe_name,
    write_atomically,
    write_temporary,
)
from otel_pipeline_metrics.report.run_report import FORMAT_BY_SUFFIX

if TYPE_CHECKING:
    from otel_pipeline_metrics.report import RunReport


_PLACEHOLDER: Final = re.compile(r"\{(run_id|date|pipeline)\}")


class ReportFile:
    """Where a run's report goes.

    A later `chdir` changes nothing; the placeholders are filled when the run begins.
    """

    def __init__(self, given: object) -> None:
        """Check the path."""
        path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else given
        if not isinstance(path, str):
            raise TypeError(f"report must be a path or None, not {type(given).__name__}")
        if not path:
            raise ValueError("report must not be empty: None means no file")
        suffix = Path(path).suffix.lower()
        self._format = FORMAT_BY_SUFFIX.get(suffix, "json")
        if suffix.strip(".") and suffix not in FORMAT_BY_SUFFIX:
            known = ", ".join(FORMAT_BY_SUFFIX)
            raise ValueError(
                f"report: the suffix {suffix!r} is unknown; it is one of {known}, or none for JSON"
            )
        if self._format == "html":
            try:
                import jinja2  # noqa: F401 - loaded now, since SIGTERM may ask for the page
            except ImportError as error:
                raise ImportError(
                    f"report: {path!r} needs jinja2: pip install 'otel-pipeline-metrics[cli]'"
                ) from error
        self._given = path
        self._folder = absolute(".")
        self._shown = Path(path)
        self._path = self._folder / self._shown

    def fill(self, *, run_id: str, pipeline: str, started_unix: float) -> None:
        """Put the run's own values in place of the placeholders."""
        values = {
            "run_id": run_id,
            "date": datetime.fromtimestamp(started_unix, tz=timezone.utc).date().isoformat(),
            "pipeline": safe_name(pipeline),
        }
        filled = _PLACEHOLDER.sub(lambda found: values[found[1]], self._given)
        # unlike Path.expanduser, it leaves a user that does not exist as it is
        self._shown = Path(os.path.expanduser(filled))  # noqa: PTH111
        self._path = self._folder / self._shown

    def write(self, report: RunReport) -> Path | None:
        """Write the report and return the path to show: as it was given, if that still holds.

        If the file cannot be written, the report goes as JSON to a temporary one.
        """
        shown = self._shown if absolute(self._shown) == self._path else self._path
        reason: Any
        try:
            write_atomically(self._path, self._rendered(report))
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = getattr(error, "strerror", None) or error
        except Exception as error:  # a renderer's
            errors.log_internal_error("rendering a report")
            reason = repr(error)
        else:
            return shown
        message = "the report could not be written to %s (%s)"
        try:
            elsewhere = write_temporary(report.to_json() + "\n", "pipeline-report-", ".json")
        except OSError as error:
            errors.logger.warning(f"{message}, nor elsewhere (%s)", shown, reason, error)
            return None
        errors.logger.warning(f"{message}; it was written to %s", shown, reason, elsewhere)
        return elsewhere

    def _rendered(self, report: RunReport) -> str:
        return report.render(self._format).removesuffix("\n") + "\n"
