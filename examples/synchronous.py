"""Run a synchronous pipeline: functions, a `with` block, a retry and an error.

    python -m examples.synchronous --out /tmp/synchronous

Each stage prints a line at its end; the metrics and the summary come last. No server is needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import otel_pipeline_metrics as opm

PAGES = ["3,1,4", "1,5,9,2", "6,five,3", "5,8"]
BROKEN_CONNECTIONS = {1: 2}  # page 1 answers at the third attempt
ATTEMPTS = 3


@opm.fetch
def download(page: int) -> str:
    """Connect again when the connection breaks; each further attempt is a retry."""
    stage = opm.current_stage()
    for attempt in range(ATTEMPTS):
        try:
            text = connect(page, attempt)
            break
        except ConnectionError as error:
            if attempt + 1 == ATTEMPTS:
                raise
            stage.retry(error)
    stage.add_bytes(len(text), "in")
    return text


def connect(page: int, attempt: int) -> str:
    if attempt < BROKEN_CONNECTIONS.get(page, 0):
        raise ConnectionResetError(f"page {page}, attempt {attempt + 1}")
    return PAGES[page]


@opm.process(items=len)
def parse(text: str) -> list[int]:
    """Parse numbers; an exception is counted by type and reaches the caller unchanged."""
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "synchronous")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    opm.configure(service_name="synchronous", exporter="console")
    with (
        (out / "numbers.txt").open("w", encoding="utf-8") as file,
        opm.run("synchronous", report=out / "export_metrics.json") as run,
    ):
        for page in range(len(PAGES)):
            try:
                numbers = parse(download(page))
            except ValueError as error:
                print(f"page {page} is left out: {error}")
                continue
            with opm.write("save") as stage:  # a block is a stage as well
                written = file.write("".join(f"{number}\n" for number in numbers))
                stage.add_items(len(numbers))
                stage.add_bytes(written)
    for row in run.report.stages:
        print(f"{row['name']}: {row['retries']} retries, {row['errors']['total']} errors")
    opm.shutdown()


if __name__ == "__main__":
    main()
