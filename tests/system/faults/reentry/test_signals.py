"""Test signal handlers that interrupt a stage's accounting, a drain or a flush."""

from __future__ import annotations

import pytest

from tests.system.faults.reentry.running import run

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ALARMS = """
import random
opm.configure(exporter="none", console=False)

class Late(TimeoutError):
    pass

raised = caught = ended = 0

def handler(*_):
    global raised
    raised += 1
    raise Late

signal.signal(signal.SIGALRM, handler)

@opm.stage("work")
def work():
    pass

# a function of its own: in Python 3.13.0 what strikes as a loop jumps back passes a try around it
def work_on(before):
    global ended
    while raised == before:
        work()
        ended += 1

random.seed(1)
with opm.run("alarms", resources=False) as r:
    while raised < 300:
        before = raised
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.001))
            work_on(before)
        except Late:
            caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
(stage,) = r.report.stages
say(raised=raised, caught=caught, ended=ended, count=stage["count"], flying=stage["in_flight"])
"""


def test_the_exception_of_an_alarm_is_raised_further() -> None:
    """It interrupts mostly our own code here, and the program's own handler catches it.

    A call that it ends before it was measured is missing, one for each exception at most; a batch
    whose flush it interrupts is flushed again.
    """
    said = run(ALARMS, quiet=False)
    assert said["caught"] == said["raised"] == 300
    assert "internal error" not in said["stderr"]
    # each alarm may have ended one more than the loop could count
    assert said["ended"] - said["raised"] <= said["count"] <= said["ended"] + said["raised"]
    assert said["flying"] == 0


DRAINING = """
import otel_pipeline_metrics._lifecycle.run_stats as stats
opm.configure(exporter="none", console=False)
calls = []

def handler(*_):
    calls.append(1)
    {action}

signal.signal(signal.SIGUSR1, handler)
accept = stats.RunStats.accept

def interrupted(self, batch):
    if not calls:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not calls:
            pass
    accept(self, batch)

stats.RunStats.accept = interrupted
began = time.monotonic()
with opm.run("outer", resources=False) as outer:
    for _ in range(3000):
        with opm.stage("work"):
            pass
say(seconds=time.monotonic() - began, work=outer.report.stages[0]["count"], calls=len(calls))
"""
ACTIONS = {
    "a stage": "with opm.stage('handler'): pass",
    "3,000 stages": "[opm.stage('handler')(lambda: None)() for _ in range(3000)]",
    "stats": "opm.stats()",
    "configure": "opm.configure(exporter='none', console=False)",
    "shutdown": "opm.shutdown()",
    "a look at the report": "outer.report",
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_signal_handler_in_the_middle_of_draining(name: str) -> None:
    """It neither waits for the draining that it interrupts, nor takes part in it."""
    said = run(DRAINING.format(action=ACTIONS[name]), quiet=False)
    # if it ends the telemetry, the batch in progress is too late for it: a warning says so
    late = "the last calls are not in the metrics: they could not be flushed in time\n"
    assert said["stderr"] == (late if name == "shutdown" else "")
    assert (said["work"], said["calls"]) == (3000, 1)
    assert said["seconds"] < 0.9  # as long as a collection would wait for another thread


def test_a_run_in_the_middle_of_draining_says_what_its_report_lacks() -> None:
    action = "exec(\"with opm.run('inner', resources=False), opm.stage('handler'): pass\")"
    said = run(DRAINING.format(action=action), quiet=False)
    assert (said["work"], said["calls"]) == (3000, 1)
    assert said["stderr"].count("the report of run 'inner' lacks its last calls") == 1


LOCKED = """
opm.configure(console=False, exporter="none")
done = []

def handler(*_):
    {action}
    done.append(1)

signal.signal(signal.SIGUSR1, handler)
with configure._lock:
    os.kill(os.getpid(), signal.SIGUSR1)
    while not done:
        pass
with opm.stage("after"):
    pass
say(done=len(done), **opm.stats()["spans"])
"""


@pytest.mark.parametrize(
    "action", ["opm.stats()", "opm.configure(exporter='none')", "opm.shutdown()"]
)
def test_a_signal_while_configure_holds_its_lock(action: str) -> None:
    assert run(LOCKED.format(action=action))["done"] == 1


RECORDING = """
collector = opm.MetricsCollector()
done = []

def handler(*_):
    collector.record_stage("manual", 0.5)
    collector.record_cache("cache", hits=1, misses=0)
    done.append(collector.stages)

signal.signal(signal.SIGUSR1, handler)
with collector._lock:
    os.kill(os.getpid(), signal.SIGUSR1)
    while not done:
        pass
say(count=collector.stages["manual"]["count"])
"""


def test_manual_recording_in_the_middle_of_manual_recording() -> None:
    assert run(RECORDING)["count"] == 1


STORM = """
from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
opm.run  # imported when it is first asked for, which is not a handler's business
seen, entered = [], []

def enter():
    with opm.stage("handler"):
        entered.append(None)

def handler(*_):
    seen.append(None)
    number = len(seen)
    opm.stats()
    enter()
    if number % 5 == 0:
        with opm.run("inside", resources=False):
            enter()
    if number % 50 == 0:
        opm.configure(exporter="otlp", console=False)
    signal.setitimer(signal.ITIMER_REAL, 0.001 if number < 400 else 0)

signal.signal(signal.SIGALRM, handler)
opm.configure(exporter="otlp", console=False)
signal.setitimer(signal.ITIMER_REAL, 0.001)
made = 0
while len(seen) < 400:
    for _ in range(50):
        with opm.stage("worker") as s:
            s.add_items(1)
    made += 50
    if made % 500 == 0:
        configure._export.flush(1.0)
opm.shutdown()
say(made=made, entered=len(entered),
    worker=backend.collector.calls("worker"), handler=backend.collector.calls("handler"))
"""


def test_a_storm_of_signals_while_spans_and_metrics_are_exported() -> None:
    """400 handlers, a millisecond apart, read stats, measure, run and configure."""
    said = run(STORM, quiet=False)
    assert said["worker"] == said["made"]
    assert said["handler"] == said["entered"]
