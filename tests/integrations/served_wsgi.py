"""An application for `test_asgi.py` that configures as it is imported, as one of WSGI does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

opm.configure(console=False)


@opm.fetch
def plain() -> int:
    """A stage in a thread of the server."""
    return os.getpid()


def app(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the worker's process id."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(plain()).encode()]
