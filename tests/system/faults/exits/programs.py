"""Programs that end in the middle of recording, bare or with a collector that never answers."""

from __future__ import annotations

from typing import Final

# A bare program has the same functions, without the library. What the library and the SDK log is
# not compared: a program decides itself where that goes.
_BEGIN: Final = """
import os, sys, threading, time
BARE = "OPM_BARE" in os.environ
if BARE:
    import contextlib
    work = lambda number: number + 1
    run = contextlib.nullcontext
else:
    import logging
    import otel_pipeline_metrics as opm
    for name in ("otel_pipeline_metrics", "opentelemetry"):
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    opm.configure(exporter="otlp", console=False, flush_timeout=0.2)
    work = opm.process(lambda number: number + 1)
    run = lambda: opm.run("r")

def always():
    while True:
        for number in range(100):
            work(number)
        time.sleep(0)

def often():
    while True:
        work(1)
        time.sleep(0.001)

def start(function, count=4):
    for _ in range(count):
        threading.Thread(target=function, daemon=True).start()

for number in range(50):
    work(number)
"""
_GEVENT: Final = "from gevent import monkey\nmonkey.patch_all()\nimport gevent\n"
_EVENTLET: Final = (
    "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n"
)

# In each, something records until the end.
PROGRAMS: Final = {
    "returns": _BEGIN,
    "daemon threads": f"{_BEGIN}start(always)\ntime.sleep(0.02)",
    "daemon threads in a run": f"{_BEGIN}with run():\n    start(always)\n    time.sleep(0.02)",
    "raises": f"{_BEGIN}start(always)\ntime.sleep(0.02)\nwith run():\n    raise ValueError('x')",
    "sys.exit": f"{_BEGIN}start(often)\nwith run():\n    sys.exit(3)",
    "sampling threads": f"""{_BEGIN}
if not BARE:
    opm.register_cache("c", lambda: {{"hits": 1, "misses": 1}})
    opm.ResourceMonitor(interval=0.001, on_reading=lambda reading: work(1)).start()
start(often)
time.sleep(0.02)
""",
    "executor": f"""{_BEGIN}
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
futures = [pool.submit(work, number) for number in range(500)]
""",
    "gevent": f"""{_GEVENT}{_BEGIN}
greenlets = [gevent.spawn(often) for _ in range(4)]
with run():
    gevent.sleep(0.02)
""",
    "gevent's threads": f"{_GEVENT}{_BEGIN}start(often)\ntime.sleep(0.02)",
    "eventlet": f"""{_EVENTLET}{_BEGIN}
greenlets = [eventlet.spawn(often) for _ in range(4)]
with run():
    eventlet.sleep(0.02)
""",
    "eventlet's threads": f"{_EVENTLET}{_BEGIN}start(often)\ntime.sleep(0.02)",
}
