"""Configure nothing before and after each test, and keep Ray on the loopback."""

from __future__ import annotations

import os

# fixtures are shared by importing them: pytest finds them in this module's namespace
from tests.lifecycle.configure.conftest import captured, other, slate
from tests.system.backends.conftest import backends, built_backends

__all__ = ["backends", "built_backends", "captured", "other", "slate"]

# Ray reads it when it is imported, here or in a program of the tests; see docs/engines.md
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
