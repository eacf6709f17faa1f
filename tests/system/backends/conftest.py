"""Start the real servers once for all tests here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.servers import missing_binaries, start_backends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Backends


@pytest.fixture(scope="session")
def built_backends() -> None:
    """Skip if the servers are not built; fail in CI, which must run these tests."""
    if missing := missing_binaries():
        reason = f"not built: {', '.join(missing)} (run `make backends`)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def backends(built_backends: None) -> Iterator[Backends]:
    """Provide a Collector with development.yaml, and the Jaeger and Prometheus behind it."""
    with start_backends() as running:
        yield running
