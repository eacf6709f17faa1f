"""Run a program in a process of its own, so that one that hangs is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.support.process import ROOT

LIMIT_S = 120

PRELUDE = """
import atexit, gc, json, os, signal, sys, threading, time, weakref
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core import series

def counted():
    '''How many invocations of each stage have ended, or are in progress.'''
    drained = drain.drain()
    found = {}
    for one in series.all_series():
        n = one.account.count + len(one.durations) + len(one.results)
        found[one.key.stage] = found.get(one.key.stage, 0) + n
    return found

def say(**what):
    print(json.dumps(what), flush=True)
"""


def run(text: str, *arguments: str, quiet: bool = True, **env: str) -> dict[str, Any]:
    """Run a program that prints one value, succeeds and, if `quiet`, writes nothing to stderr."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + text, *arguments],
        cwd=ROOT,
        env={**clean, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if quiet:
        assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    return {**said, "stderr": done.stderr}
