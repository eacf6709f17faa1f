"""Know the managers of this process that exist, for health and for its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from otel_pipeline_metrics.service.manager import MetricsManager


managers: Final[WeakSet[MetricsManager]] = WeakSet()
