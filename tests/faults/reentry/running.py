"""Runs a program in a process of its own, so that one that hangs is seen to hang."""

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
from otel_pipeline_metrics import _configure, _guard, _draining, _series

def counted():
    '''How many invocations of each stage have ended, or are in progress.'''
    drained = _draining.drain()
    found = {}
    for series in _series.all_series():
        n = series.ended_before + len(series.plain) + len(series.results)
        found[series.key.stage] = found.get(series.key.stage, 0) + n
    return found

def say(**what):
    print(json.dumps(what), flush=True)
"""


def run(text: str, *arguments: str, quiet: bool = True, **env: str) -> dict[str, Any]:
    """Run a program that says one thing, ends well and, if `quiet`, has nothing on stderr."""
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
