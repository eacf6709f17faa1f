"""The other service, which the demo breaks: it tells where a customer lives."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

COUNTRIES = ("de", "fr", "it", "pl")
# what an answer takes
TAKES_S = 0.005


def country(customer: int) -> str:
    return COUNTRIES[customer % len(COUNTRIES)]


class Customers:
    """A server on a free port of the loopback, on a thread."""

    def __init__(self) -> None:
        self.broken = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(TAKES_S)
                if outer.broken:
                    self.send_error(500)
                    return
                body = json.dumps({"country": country(int(self.path.strip("/")))}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
