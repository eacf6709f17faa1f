"""Ten thousand alarms at random moments, in five programs, stop no thread's spans."""

from __future__ import annotations

import pytest

from tests.system.faults.reentry.running import run

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ALARMS = """
import random
from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
opm.configure(exporter="otlp", console=False, spans_per_second=None)
processor = configure._export.tracer_provider._active_span_processor._span_processors[0]

class Late(TimeoutError):
    pass

raised = caught = 0

def handler(*_):
    global raised
    raised += 1
    raise Late

signal.signal(signal.SIGALRM, handler)

@opm.stage("work")
def work():
    pass

@opm.stage("later")
def later():
    pass

# a function of its own: in Python 3.13.0 what strikes as a loop jumps back passes a try around it
def work_on(before):
    while raised == before:
        work()

random.seed(int(sys.argv[1]))
while raised < 2_000:
    before = raised
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.0006))
        work_on(before)
    except Late:
        caught += 1
signal.setitimer(signal.ITIMER_REAL, 0)
queued = len(processor._queued)
configure._export.flush(10)
for _ in range(1000):
    later()
configure._export.flush(10)
later = backend.collector.spans["later"]
opm.shutdown()
say(raised=raised, caught=caught, later=later, queued=queued, capacity=processor._ledger.capacity,
    arrived=backend.collector.spans.total(), **opm.stats()["spans"])
"""


@pytest.mark.parametrize("seed", range(5))
def test_every_later_span_arrives(seed: int) -> None:
    said = run(ALARMS, str(seed), quiet=False)
    # Every exception reaches the program, and none is swallowed by us or by OpenTelemetry. Python
    # itself swallows, and says so, what strikes in a finalizer.
    assert said["raised"] == 2_000
    swallowed = said["raised"] - said["caught"]
    # Seldom one more does not: none of 240,000 on a quiet day, and one of 10,000 on another. Where,
    # is not known.
    assert 0 <= swallowed <= said["stderr"].count("Exception ignored in") + 1
    assert said["later"] == 1000
    assert said["queued"] <= said["capacity"]
    assert said["created"] == said["exported"] + said["dropped"]
    assert said["exported"] == said["arrived"]
    assert said["pending"] == 0
