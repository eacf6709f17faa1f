"""A program ends like the bare one, whatever records then: exit code, stdout and stderr."""

from __future__ import annotations

import pytest

from tests.support.repeats import repeats
from tests.system.faults.exits.programs import PROGRAMS
from tests.system.faults.exits.running import differences, silent_collector

pytestmark = [pytest.mark.processes, pytest.mark.exits]

TIMES = repeats(20)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_end_is_that_of_the_bare_program(name: str) -> None:
    with silent_collector() as endpoint:
        assert list(differences([name] * TIMES, endpoint, at_once=2)) == [None] * TIMES
