"""A pytest plugin: tell coverage which test runs, in this process and in those it starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# `coverage.ini` makes it the context of every process that starts meanwhile
VARIABLE = "MUTATION_TEST"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give the test's name to coverage for as long as it runs."""
    current = coverage.Coverage.current()
    os.environ[VARIABLE] = item.nodeid
    if current is not None:
        current.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        os.environ.pop(VARIABLE, None)
        if current is not None:
            current.switch_context("")
