"""Run a pipeline's process: make spans and a metric, then shut down in atexit.

Usage: python -m tests.export.child FLUSH_TIMEOUT_S SPANS; prints the flush report to stdout.
"""

from __future__ import annotations

import atexit
import logging
import sys

from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export.providers import build
from tests.support.timing import own_time


def main(timeout_s: float, spans: int) -> None:
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
    telemetry = build(Config(service_name="child"))

    def end() -> None:
        print("ending", own_time(), flush=True)
        print(telemetry.shutdown(timeout_s), flush=True)

    atexit.register(end)
    tracer = telemetry.tracer_provider.get_tracer("child")
    counter = telemetry.meter_provider.get_meter("child").create_counter("done")
    for _ in range(spans):
        tracer.start_span("work").end()
        counter.add(1)


main(float(sys.argv[1]), int(sys.argv[2]))
