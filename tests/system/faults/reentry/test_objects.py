"""Test stages in unusual places: finalizers, deep recursion, tracers, many threads."""

from __future__ import annotations

import pytest

from tests.system.faults.reentry.running import run

pytestmark = [pytest.mark.processes, pytest.mark.slow]

FINALIZERS = """
from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
opm.configure(exporter="otlp", console=False, spans_per_second=None)
export = configure._export

class Node:
    def __init__(self):
        self.itself = self

    def __del__(self):
        with opm.stage("del"):
            dels.append(None)

def weakly():
    with opm.stage("weakly"):
        pass

def collected(phase, info):
    with opm.stage("gc"):
        gcs.append(None)

gcs, dels = [], []
gc.collect()
gc.callbacks.append(collected)
gc.set_threshold(50, 2, 2)
for number in range(2000):
    weakref.finalize(Node(), weakly)
    with opm.stage("work") as s:
        s.add_items(1)
    if number % 500 == 0:
        export.flush(1.0)
gc.callbacks.remove(collected)
while len(dels) < 2000:
    gc.collect()  # does nothing while another thread collects
gc.set_threshold(700, 10, 10)
opm.shutdown()
calls = backend.collector.calls
spans = backend.collector.spans
stats = opm.stats()["spans"]
say(calls=[calls(n) for n in ("work", "del", "weakly", "gc")], gcs=len(gcs),
    created=stats["created"], exported=stats["exported"], dropped=stats["dropped"],
    spans=spans.total(), work=spans["work"])
"""


def test_stages_entered_by_finalizers_while_spans_and_metrics_are_exported() -> None:
    said = run(FINALIZERS)
    assert said["calls"] == [2000, 2000, 2000, said["gcs"]]
    assert said["exported"] == said["spans"]
    assert said["created"] == said["exported"] + said["dropped"]
    assert said["work"] >= 2000 - said["dropped"]


WAKING = """
from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
opm.configure(exporter="otlp", console=False, spans_per_second=None)
processor = configure._export.tracer_provider._active_span_processor._span_processors[0]
submit = processor._thread.submit
struck = []

def interrupted(function):
    # as a signal handler or a finalizer would strike, before and after the thread is woken
    for _ in range(2):
        if threading.current_thread() is threading.main_thread() and len(struck) < 6:
            struck.append(None)
            with opm.stage("late"):
                pass
        call = submit(function)
    return call

processor._thread.submit = interrupted
for _ in range(600):
    with opm.stage("work"):
        pass
opm.shutdown()
say(spans=dict(backend.collector.spans), struck=len(struck))
"""


def test_a_span_that_ends_while_its_thread_wakes_the_exporting_one() -> None:
    """The SDK's processor would wait for its own lock for ever."""
    said = run(WAKING)
    assert said["struck"] >= 1
    assert said["spans"] == {"work": 600, "late": said["struck"]}


RECURSION = """
opm.configure(exporter="none", console=False)

@opm.stage("deep")
def deep(levels):
    return 0 if not levels else 1 + deep(levels - 1)

def bare(levels):
    return 0 if not levels else 1 + bare(levels - 1)

sys.setrecursionlimit(10_000)
reached = deep(1000)
sys.setrecursionlimit(1000)
outcomes = []
for function in (bare, deep):
    try:
        function(5000)
    except RecursionError as error:
        outcomes.append(str(error))
found = counted()["deep"]
begun = sum(s.account.count + s.active for s in series.all_series())
# and all is as before
again = deep(10)
say(reached=reached, same=outcomes, found=found, begun=begun, again=again,
    after=counted()["deep"] - found)
"""


def test_recursion_a_thousand_deep_and_too_deep() -> None:
    """A call that fails while it begins is in flight; the program sees no other exception."""
    said = run(RECURSION, quiet=False)
    assert said["reached"] == 1000
    assert len(said["same"]) == 2
    assert all(text.startswith("maximum recursion depth exceeded") for text in said["same"])
    assert 0 <= said["begun"] - said["found"] <= 3
    assert said["found"] > 1001 + 300
    assert (said["again"], said["after"]) == (10, 11)


TRACED = """
opm.configure(exporter="none", console=False)
events = []

def trace(frame, event, argument):
    events.append(event)
    return trace

@opm.stage("work")
def work(n):
    return n + 1

sys.{setter}(trace)
with opm.run("traced", resources=False) as r:
    total = sum(work(n) for n in range(1500))
sys.{setter}(None)
say(total=total, count=r.report.stages[0]["count"], events=len(events) > 1500)
"""


@pytest.mark.parametrize("setter", ["settrace", "setprofile"])
def test_stages_under_a_tracer(setter: str) -> None:
    said = run(TRACED.format(setter=setter))
    assert said == {"total": 1125750, "count": 1500, "events": True, "stderr": ""}


THREADS = """
from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
opm.configure(exporter="otlp", console=False, spans_per_second=10)

@opm.stage("work")
def work(n):
    if n % 7 == 0:
        raise KeyError(n)

def go():
    for n in range(1, 2001):
        try:
            work(n)
        except KeyError:
            pass

sys.setswitchinterval(1e-5)
with opm.run("threads", resources=False) as r:
    threads = [threading.Thread(target=go) for _ in range(32)]
    [t.start() for t in threads]
    while any(t.is_alive() for t in threads):
        opm.stats()
        r.report
        configure._export.flush(1.0)
    [t.join() for t in threads]
opm.shutdown()
(stage,) = r.report.stages
stats = opm.stats()["spans"]
say(count=stage["count"], errors=stage["errors"]["total"], flying=stage["in_flight"],
    calls=backend.collector.calls("work"), stats=stats, spans=backend.collector.spans.total())
"""


def test_32_threads_while_others_read_and_flush() -> None:
    said = run(THREADS)
    stats = said["stats"]
    assert (said["count"], said["errors"], said["flying"]) == (64_000, 32 * 285, 0)
    assert said["calls"] == 64_000
    assert stats["exported"] == said["spans"]
    assert stats["created"] == stats["exported"] + stats["dropped"]


MEMORY = """
import otel_pipeline_metrics._stages.{module} as measure
opm.configure(exporter="none", console=False)

@opm.stage("works")
def works(n):
    opm.current_stage().add_items(1)
    return n

def fails(*_):
    raise {error}

before = getattr(measure, {place!r})
given = object()
setattr(measure, {place!r}, fails)
results = [works(given) is given for _ in range(3)]
setattr(measure, {place!r}, before)
say(results=results, again=works(1), current=series.active_cell.get() is None)
"""


@pytest.mark.parametrize("error", ["MemoryError", "RecursionError('deep')"])
@pytest.mark.parametrize(
    ("module", "place"),
    [("closing", "_result"), ("invocation", "close"), ("invocation", "deactivate")],
)
def test_a_memory_error_in_our_own_work(error: str, module: str, place: str) -> None:
    said = run(MEMORY.format(error=error, module=module, place=place), quiet=False)
    assert (said["results"], said["again"]) == ([True] * 3, 1)
    assert said["stderr"].count("internal error in") == 1
