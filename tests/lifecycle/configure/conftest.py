"""Configure nothing before and after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lifecycle.configure.support import Captured, clean_slate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def slate() -> Iterator[None]:
    with clean_slate():
        yield


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Return providers of a user's, which the test passes or installs."""
    providers = Captured()
    yield providers
    providers.close()


@pytest.fixture
def other() -> Iterator[Captured]:
    """Return a second pair of providers."""
    providers = Captured()
    yield providers
    providers.close()
