"""Show spans and metrics on the terminal, to check them in development.

    python -m examples.console_output

A line for each span, then a table of all metrics, then the run's summary. No server is needed.
"""

from __future__ import annotations

import time

import otel_pipeline_metrics as opm

rates = opm.counted_cache(dict[str, float](), name="rates")


@opm.fetch(items=len)
def download(page: int) -> list[str]:
    """Return three prices, as a request would."""
    time.sleep(0.02)
    return [f"{page}.50 {currency}" for currency in ("EUR", "CAD", "EUR")]


@opm.process(items=len)
def convert(prices: list[str]) -> list[float]:
    """Convert prices; each rate is looked up once, and then cached."""
    converted = []
    for price in prices:
        amount, currency = price.split()
        rate = rates.get(currency)
        if rate is None:
            rate = rates[currency] = look_up(currency)
        converted.append(float(amount) * rate)
    return converted


@opm.fetch
def look_up(currency: str) -> float:
    """Return a rate, as a slow service would."""
    time.sleep(0.05)
    return {"EUR": 1.09, "CAD": 0.73}[currency]


@opm.write
def store(amounts: list[float]) -> None:
    """Write, as an insert would."""
    time.sleep(0.005)
    opm.current_stage().add_bytes(8 * len(amounts))


def main() -> None:
    opm.configure(service_name="prices", exporter="console")
    with opm.run("prices"):
        for page in range(25):
            store(convert(download(page)))


if __name__ == "__main__":
    main()
