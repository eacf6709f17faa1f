"""Ray: what the workers do is in the report of the driver's run.

Needs `pip install ray`. It starts a cluster on the loopback by itself:

    python -m examples.ray_pipeline
"""

from __future__ import annotations

import os

# Ray reads it when it is imported, and listens on the loopback alone. Without it, Ray on Linux
# listens on all addresses, also where `ray.init` is given a loopback address.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.ray import setup_ray_worker


@opm.process
def parse(text: str) -> int:
    return int(text)


def main() -> None:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": setup_ray_worker},
    )
    task = ray.remote(parse)
    with opm.run("parsing", resources=False) as run:
        print(sum(ray.get([task.remote(text) for text in "12345"])))
    for stage in run.report.stages:
        print(stage["name"], stage["count"], run.parts_missing)
    ray.shutdown()


if __name__ == "__main__":
    main()
