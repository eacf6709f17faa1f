"""Environment variables of this library, beside the standard OTEL_* ones.

`opentelemetry-instrument` offers each name here that begins with OTEL_ as an option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.settings import OPTIONS

if TYPE_CHECKING:

    def __getattr__(name: str) -> str: ...


globals().update({option.variable: option.variable for option in OPTIONS if option.variable})
