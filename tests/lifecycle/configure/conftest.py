"""Each test here begins with nothing configured and leaves nothing behind."""

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
    """A user's providers; the test says whether they are given or installed."""
    providers = Captured()
    yield providers
    providers.close()


@pytest.fixture
def other() -> Iterator[Captured]:
    """A second pair."""
    providers = Captured()
    yield providers
    providers.close()
