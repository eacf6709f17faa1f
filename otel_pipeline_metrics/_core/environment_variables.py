"""Name the environment variables of this library, for `opentelemetry-instrument`.

It offers each name here that begins with OTEL_ as a command-line option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.options import OPTIONS

if TYPE_CHECKING:

    def __getattr__(name: str) -> str: ...


globals().update({option.variable: option.variable for option in OPTIONS if option.variable})
