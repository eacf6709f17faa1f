"""Use the fixtures of stages: telemetry is tested through them."""

from __future__ import annotations

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.stages.conftest import make_otel, nothing_left_over, otel, silence

__all__ = ["make_otel", "nothing_left_over", "otel", "silence"]
