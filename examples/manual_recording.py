"""Record manually, for code that already times itself and keeps its own counts.

    python -m examples.manual_recording --out /tmp/manual-recording

The process has one collector. Its records go to its JSON file, to the report of the run in
progress and to the metrics. No server is needed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import otel_pipeline_metrics as opm

TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps"


def count_words(words: list[str]) -> tuple[dict[str, int], float]:
    """Count words, and return the time taken."""
    began = time.perf_counter()
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    folder = Path(tempfile.gettempdir()) / "manual-recording"
    parser.add_argument("--out", type=Path, default=folder)
    out: Path = parser.parse_args().out

    opm.configure(service_name="manual-recording", console="summary")
    collector = opm.get_metrics_collector()
    words = TEXT.split()
    # resources=False: this program records its resources itself
    with opm.run("manual-recording", report=out / "report.json", resources=False):
        for _ in range(3):
            counts, seconds = count_words(words)
            collector.record_stage("count words", seconds, count=len(words))
            hits = len(words) - len(counts)
            collector.record_cache("words", hits=hits, misses=len(counts), size_bytes=4096)
        collector.record_stage("upload", 0.25, error=True)
        collector.record_resources(cpu_percent=12.5, memory_mb=64, disk_io_mb=1)
        collector.record_resources(cpu_percent=37.5, memory_mb=80)

    data = collector.export_json(out / "export_metrics.json")
    for name, stage in data["stages"].items():
        each = stage["avg_duration_s"] * 1e6
        print(f"{name}: {stage['count']} items, {each:,.1f} µs each, {stage['errors']} errors")
    print(f"words: {data['caches']['words']['hit_rate_pct']:.1f} % hits")
    print(f"peak memory: {data['resources']['peak_memory_mb']} MB")
    print(f"written to {out / 'export_metrics.json'}")
    opm.shutdown()


if __name__ == "__main__":
    main()
