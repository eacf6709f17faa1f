"""Run a pipeline's process whose collector misbehaves.

Usage: python -m tests.system.faults.collector.child SPANS SECONDS OUTCOME

Makes SPANS spans, evenly over SECONDS, and the metrics of one stage. Prints a line of JSON when
the program's own work ends, and another one with the ledger at the end. OUTCOME is `return` or
`raise`.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import time

from opentelemetry import trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import configure
from tests.support.timing import own_time


@opm.stage("square")
def square(number: int) -> int:
    return number * number


def main(spans: int, seconds: float, outcome: str) -> None:
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
    # registered before ours, so it runs after ours
    atexit.register(lambda: print(json.dumps(export.stats()), flush=True))
    opm.configure(service_name="faults")
    export = configure._export
    assert export is not None
    tracer = trace.get_tracer("faults")
    started = time.monotonic()
    for number in range(spans):
        time.sleep(max(0.0, started + seconds * number / spans - time.monotonic()))
        tracer.start_span(f"work-{number:06d}").end()
    result = sum(map(square, range(10)))
    print(json.dumps({"result": result, "ending": own_time()}), flush=True)
    if outcome == "raise":
        raise ValueError("the pipeline's own")


main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
