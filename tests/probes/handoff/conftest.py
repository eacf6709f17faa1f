"""Configure nothing before and after each test."""

from __future__ import annotations

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.lifecycle.configure.conftest import captured, other, slate

__all__ = ["captured", "other", "slate"]
