"""How many spans a stage may make, and which calls count as slow."""

from __future__ import annotations

from typing import Final

SPAN_BURST: Final = 1000
"""Spans that a stage may make at once before its budget a second tells."""

PASSED_AT_ONCE: Final = 16
"""Invocations without a span after which the clock is asked whether there is budget again."""

SLOW_QUANTILE: Final = 0.99
ENOUGH_TO_JUDGE: Final = 100
"""Durations from which a quantile says what is slow."""
