"""Drive the service for a minute, break what it depends on, and show what was told.

    make demo-service

Starts the service under uvicorn with a Collector, a Prometheus and an Alertmanager, if they are on
this machine. Sends orders, breaks the service that knows the customers, mends it, and ends the
service by SIGTERM. Prints the alerts that fired, what the verdict said, and whether every order
that was accepted is in SQLite; exits with 1 if one is missing, or no alert fired.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import otel_pipeline_metrics as opm
from examples.service import servers
from examples.service.clients import Clients
from examples.service.customers import Customers, country
from otel_pipeline_metrics.report.flow import verdict_in_words
from tests.support.process import StartError, answers, free_ports, poll

# the parts of the time in which all is well, before and after
BEFORE, AFTER = 0.25, 0.3
PER_SECOND = 100.0
# these must fire where there are servers
EXPECTED = {"PipelineErrorBudgetBurnsFast", "PipelineQueueFull"}
# begins the line of the log with which the service tells that the verdict has changed
VERDICT = "INFO otel_pipeline_metrics: run orders: "
START_S = 60.0
ANSWER_S = 60.0
# what a stop may take: all accepted orders are stored
STOP_S = 120.0
WIDTH = 100


class Demo:
    """What is printed, with the time since the start, and the alerts so far."""

    def __init__(self, found: servers.Servers, log: Path) -> None:
        self._servers = found
        self._log = log
        self._verdicts = 0
        self._start = time.monotonic()
        self.firing: set[servers.Alert] = set()
        self.fired: set[servers.Alert] = set()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._start:5.0f} s  {what}", flush=True)

    def watch(self, seconds: float) -> None:
        """Print each alert that begins or ends meanwhile, and each change of the verdict."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            now = self._servers.alerts()
            names = {alert.name for alert in self.firing}
            for alert in sorted(now):
                if alert.name not in names:
                    self.say(f"alert {alert.name} ({alert.severity}): {alert.summary}")
            for name in sorted(names - {alert.name for alert in now}):
                self.say(f"alert {name} is resolved")
            self.firing = now
            self.fired |= now
            verdicts = self._log.read_text(encoding="utf-8").split(VERDICT)[1:]
            for verdict in verdicts[self._verdicts :]:
                self.say(f"verdict: {verdict.splitlines()[0]}")
            self._verdicts = len(verdicts)
            time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--no-servers", action="store_true", help="the service alone")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute() / "service"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        with servers.start(out, wanted=not arguments.no_servers) as found:
            complaints = drive(found, out, arguments.seconds)
    except (StartError, TimeoutError, subprocess.TimeoutExpired) as error:
        complaints = [str(error)]
    for line in complaints:
        print(f"FAILED: {line}")
    return 1 if complaints else 0


def drive(found: servers.Servers, out: Path, seconds: float) -> list[str]:
    """Run the demo; return what is not as it should be."""
    print(f"with {', '.join(found.names()) or 'no server'}")
    for line in found.left_out:
        print(f"left out: {line}")
    with ExitStack() as stack:
        customers = stack.enter_context(Customers())
        service = stack.enter_context(Service(out, customers.url, found.environment()))
        clients = stack.enter_context(Clients(service.port, PER_SECOND))
        demo = Demo(found, out / "service.log")
        demo.say(f"{PER_SECOND:.0f} orders a second go to http://127.0.0.1:{service.port}/orders")
        demo.watch(BEFORE * seconds)
        demo.say(f"the service is {service.health()}")
        # one of severity "info" tells what limits a service, which is no fault
        early = {alert for alert in demo.fired if alert.severity != "info"}
        customers.broken = True
        demo.say("the service that knows the customers is broken: it answers 500")
        demo.watch((1 - BEFORE - AFTER) * seconds)
        demo.say(f"the service is {service.health()}")
        customers.broken = False
        demo.say("it works again")
        demo.watch(AFTER * seconds)
        demo.say(f"the service is {service.health()}")
    # the clients have stopped first, then the service
    demo.say("the service has ended, by SIGTERM")
    complaints = [f"the alert {alert.name} fired too early" for alert in sorted(early)]
    if found.prometheus is not None:
        missing = sorted(EXPECTED - {alert.name for alert in demo.fired})
        complaints += [f"the alert {name} did not fire" for name in missing]
    show_verdict(out)
    complaints += check_orders(out, clients)
    # uvicorn shuts down, and then ends by the signal that it got
    if service.code not in (0, -signal.SIGTERM):
        complaints.append(f"the service ended with {service.code}; see {out / 'service.log'}")
    return complaints


class Service:
    """The service, as a program of its own."""

    def __init__(self, out: Path, customers_url: str, telemetry: dict[str, str]) -> None:
        self._out = out
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            **telemetry,
            "SERVICE_OUT": str(out),
            "CUSTOMERS_URL": customers_url,
        }
        (self.port,) = free_ports(1)
        self.code: int | None = None

    def __enter__(self) -> Service:
        command = [sys.executable, "-m", "uvicorn", "examples.service.app:app"]
        command += ["--port", str(self.port), "--log-level", "warning"]
        with (self._out / "service.log").open("wb") as log:
            self._process = subprocess.Popen(command, env=self._environment, stderr=log)  # noqa: S603 - this very interpreter
        ready = f"http://127.0.0.1:{self.port}/ops/ready"
        try:
            poll(
                lambda: answers(ready) or self._process.poll() is not None,
                timeout=START_S,
                what="the service to start",
            )
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.poll() is not None:
            raise StartError(
                "the service ended while starting:\n"
                + (self._out / "service.log").read_text(encoding="utf-8")
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self.code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def health(self) -> str:
        """Return what /ops/health tells."""
        url = f"http://127.0.0.1:{self.port}/ops/health"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            body = json.load(answer)
        parts = [name for name, state in body["components"].items() if state != "ok"]
        return str(body["status"]) + (f": {', '.join(parts)}" if parts else "")


def show_verdict(out: Path) -> None:
    """Print what limited the service on the whole."""
    verdict = verdict_in_words(opm.RunReport.load(out / "report.json").bottleneck)
    print(f"\nThe verdict on the whole run: {verdict.headline}.")
    print(textwrap.fill(verdict.why, WIDTH))


def check_orders(out: Path, clients: Clients) -> list[str]:
    """Compare what was accepted with what is in SQLite, and in the files of operations."""
    with closing(sqlite3.connect(out / "orders.sqlite")) as database:
        rows = database.execute("SELECT id, customer, country FROM orders").fetchall()
    files = [
        json.loads(path.read_text(encoding="utf-8")) for path in (out / "operations").iterdir()
    ]
    kinds = Counter(record["operation_type"] for file in files for record in file["records"])
    expected = {
        (order, customer, country(customer)) for order, customer in clients.accepted.items()
    }
    complaints = [*clients.failures]
    if not expected:
        complaints.append("no order was accepted")
    for count, what in (
        (len(expected - set(rows)), "accepted orders are lost"),
        (len(set(rows) - expected), "orders are wrong, or were never accepted"),
        (abs(kinds["database"] - len(rows)), "operations are missing on disk, or too many"),
    ):
        if count:
            complaints.append(f"{count:,} {what}")
    print(
        f"\n{len(expected):,} orders were accepted; {len(rows):,} are in SQLite, each once.\n"
        f"{len(clients.refused):,} of them had been refused, while the queue was full, and were "
        f"sent again.\n"
        f"{sum(kinds.values()):,} operations are on disk, {kinds['database']:,} of them inserts.\n"
        f"More is in {out}: report.json (opm report), operations (opm ops), service.log."
    )
    return complaints


if __name__ == "__main__":
    sys.exit(main())
