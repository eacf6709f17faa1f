"""Test the program's own providers in a forked child."""

from __future__ import annotations

import pytest

from tests.system.processes.support import (
    exported,
    invocations,
    points,
    run_forking,
)

GIVEN = """
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        def provider():
            return MeterProvider(
                [PeriodicExportingMetricReader(OTLPMetricExporter())],
                resource=Resource.create({"service.instance.id": "theirs"}),
            )
        meters = provider()
        own = meters.get_meter("own").create_counter("own")
        def child():
            for _ in range(3000):
                work()
            own.add(1)
            meters.force_flush()
"""


@pytest.mark.parametrize("how", ["given", "global", "unconfigured"])
def test_providers_of_the_program(how: str) -> None:
    """Ours start from zero there as well; its own instruments stay as the SDK leaves them."""
    install = {
        "given": "opm.configure(meter_provider=meters, exporter='none')",
        "global": "metrics.set_meter_provider(meters); opm.configure()",
        "unconfigured": "metrics.set_meter_provider(meters)",
    }[how]
    there, _ = run_forking(f"""
        {GIVEN.strip()}
        {install}
        work(); work(); work(); work(); work()
        own.add(5)
        meters.force_flush()
        forked(child)
        meters.force_flush()
    """)
    counts = exported(there, "pipeline.stage.duration")
    assert sorted(set(counts)) == [5, 3000]
    theirs = exported(there, "own")
    assert sorted(set(theirs)) == [5, 6]


@pytest.mark.slow
def test_given_providers_in_a_child_of_multiprocessing() -> None:
    """Nothing else flushes them there."""
    there, _ = run_forking(f"""
        import multiprocessing
        {GIVEN.strip()}
        opm.configure(meter_provider=meters, exporter="none")
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
    """)
    assert [p.count for _, _, p in points(there, "pipeline.stage.duration")] == [1]


@pytest.mark.slow
def test_a_pool_that_is_terminated_flushes_first() -> None:
    """`with Pool()` ends its workers by SIGTERM, which is handled as in the parent."""
    there, _ = run_forking("""
        import multiprocessing
        opm.configure()
        work()
        def call(n): work()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(call, range(10))
    """)
    assert sum(invocations(there).values()) == 11
