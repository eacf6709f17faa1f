"""Provide the real Collector, if it is built."""

from __future__ import annotations

import os

import pytest

from tests.support.servers import missing_binaries


@pytest.fixture(scope="session")
def built_backends() -> None:
    """Skip if the servers are not built; fail in CI, which must run these tests."""
    if missing := missing_binaries():
        reason = f"not built: {', '.join(missing)} (run `make backends`)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
