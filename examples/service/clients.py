"""The clients of the demo: they send orders, and again those that were refused."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

CLIENTS = 4
CUSTOMERS = 1000
RETRY_S = 0.2


class Clients:
    """Threads that send so many orders a second, together.

    Args:
        port: where the service listens on the loopback.
        per_second: orders.
    """

    def __init__(self, port: int, per_second: float) -> None:
        self._port = port
        self._interval_s = CLIENTS / per_second
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()
        # daemons: an error of the demo must not leave it hanging
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]
        # customers by the ids of their orders
        self.accepted: dict[str, int] = {}
        # how often, by the number of the order
        self.refused: Counter[int] = Counter()
        # why clients gave up
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            self._send(connection)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            self.failures.append(f"a client has given up: {error!r}")
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            number = next(self._numbers)
            order = f"order {number}"
            customer = random.randrange(CUSTOMERS)  # noqa: S311 - no secret
            while not self._stopped.is_set():
                if self._is_accepted(connection, {"id": order, "customer": customer}):
                    self.accepted[order] = customer
                    break
                self.refused[number] += 1
                self._stopped.wait(RETRY_S)
            due = max(due + self._interval_s, time.monotonic() - 1)
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _is_accepted(
        self, connection: http.client.HTTPConnection, order: dict[str, object]
    ) -> bool:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/orders", json.dumps(order), headers)
        with connection.getresponse() as answer:
            answer.read()
        if answer.status not in (202, 503):
            raise RuntimeError(f"the service answered {answer.status}")
        return answer.status == 202
