"""List the ways in which a program can end, and the expected report of each."""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    """A program, and the expected report of its run."""

    text: str
    # `run.result`; None: there is no report.
    result: str | None
    # Whether telemetry is exported.
    flushed: bool = True
    # If it ends sooner than the flush timeout allows.
    within_s: float | None = None
    # Its exit code if a silent collector delays the last flush; None: the bare program's.
    code: int | None = None


def in_run(inside: str, *, before: str = "", after: str = "") -> str:
    """Return a program that does something after the work, in its run."""
    indented = "\n".join(f"    {line}" for line in inside.splitlines())
    return f"""{before}
with opm.run("nightly", report=report(), resources=False):
    print(works())
{indented or "    pass"}
{after}
print("the end")
moment()
"""


def in_task(inside: str, *, before: str = "") -> str:
    """Return a program that does something in its run in a task."""
    indented = "\n".join(f"        {line}" for line in inside.splitlines())
    return f"""
async def main():
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
{before and "    " + before}
    async with opm.run("nightly", report=report(), resources=False):
        print(works())
{indented}
    print("the end")

try:
    asyncio.run(main())
finally:
    moment()
"""


HANDLER = """
def handler(number, frame):
    print("handled", number)
    {action}
signal.signal(signal.{name}, handler)
"""


def handler(action: str = "pass", name: str = "SIGTERM") -> str:
    """Return the code that sets a handler of the program."""
    return HANDLER.format(action=action, name=name)


PROGRAMS = {
    "return": Program(in_run(""), "success"),
    "sys.exit(3)": Program(in_run("moment()\nsys.exit(3)"), "failure"),
    "sys.exit(text)": Program(in_run("moment()\nsys.exit('enough')"), "failure"),
    "sys.exit(0)": Program(in_run("moment()\nsys.exit(0)"), "success"),
    "sys.exit after the run": Program(in_run("", after="moment()\nsys.exit(4)"), "success"),
    "exception": Program(in_run("moment()\nfails()"), "failure"),
    "exception after the run": Program(in_run("", after="moment()\nfails()"), "success"),
    "timeout": Program(in_run("moment()\nraise TimeoutError('late')"), "timeout"),
    "os._exit": Program(
        in_run("sys.stdout.flush()\nmoment()\nos._exit(5)"), None, flushed=False, within_s=0.5
    ),
    # --- SIGTERM
    "SIGTERM": Program(in_run("kill()"), "cancellation"),
    "SIGTERM after the run": Program(in_run("", after="kill()"), "success"),
    "SIGTERM without a run": Program("print(works())\nkill()", None),
    "SIGTERM after shutdown()": Program(
        in_run("", after="moment()\nopm.shutdown()\nsay_stats()\nos.kill(os.getpid(), 15)"),
        "success",
    ),
    "SIGTERM twice": Program(in_run("later(0.3, signal.SIGTERM)\nkill()"), "cancellation"),
    "SIGTERM during the last flush": Program(
        in_run("", after="if not BARE: later(0.3, signal.SIGTERM)"), "success", code=-15
    ),
    "SIGTERM, the handler returns": Program(in_run("kill()", before=handler()), "success"),
    "SIGTERM, the handler exits": Program(
        in_run("kill()", before=handler("sys.exit(7)")), "failure"
    ),
    "SIGTERM, a handler set in the run": Program(
        in_run(f"{handler('sys.exit(8)')}kill()"), "failure"
    ),
    "SIGTERM, a handler without a run": Program(
        handler("sys.exit(9)") + "print(works())\nkill()", None
    ),
    "SIGTERM, a handler that raises": Program(
        in_run("kill()", before=handler("raise KeyError('mine')")), "failure"
    ),
    "SIGTERM, a handler that goes on to the one before": Program(
        in_run(
            """
before = signal.getsignal(signal.SIGTERM)
def chained(number, frame):
    print("handled", number, flush=True)
    if callable(before):
        before(number, frame)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
signal.signal(signal.SIGTERM, chained)
kill()"""
        ),
        "cancellation",
    ),
    "SIGTERM ignored": Program(
        in_run("kill()", before="signal.signal(signal.SIGTERM, signal.SIG_IGN)"), "success"
    ),
    "SIGTERM while a lock of logging is held": Program(
        in_run(
            """
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
handler.acquire()
kill()"""
        ),
        "cancellation",
        # the exporter's log hangs there too, so the end comes at the time limit
        flushed=False,
    ),
    "SIGTERM while the main thread waits for others": Program(
        in_run(
            """
waiting = threading.Thread(target=time.sleep, args=(20,), daemon=True)
waiting.start()
moment()
later(0.1, signal.SIGTERM)
waiting.join()"""
        ),
        "cancellation",
    ),
    # --- SIGINT
    "SIGINT": Program(in_run("kill(signal.SIGINT)"), "cancellation"),
    "SIGINT after the run": Program(in_run("", after="kill(signal.SIGINT)"), "success"),
    "SIGINT, caught": Program(
        "try:\n"
        + "\n".join(f"    {line}" for line in in_run("kill(signal.SIGINT)").splitlines())
        + "\nexcept KeyboardInterrupt:\n    print('caught')\n    moment()",
        "cancellation",
    ),
    "SIGINT, the handler exits": Program(
        in_run("kill(signal.SIGINT)", before=handler("sys.exit(130)", "SIGINT")), "failure"
    ),
    "SIGINT, the handler returns": Program(
        in_run("kill(signal.SIGINT)", before=handler(name="SIGINT")), "success"
    ),
    "SIGINT, and again during the last flush": Program(
        in_run("if not BARE: later(0.3, signal.SIGINT)\nkill(signal.SIGINT)"),
        "cancellation",
        flushed=False,
        within_s=0.6,
    ),
    # --- asyncio
    "a task that is cancelled": Program(
        in_task("task.cancel()\nawait asyncio.sleep(5)"), "cancellation"
    ),
    "asyncio.timeout": Program(
        in_task("await asyncio.wait_for(asyncio.sleep(5), 0.01)"), "timeout"
    ),
    "SIGINT under asyncio.run": Program(
        in_task("later(0.1, signal.SIGINT)\nawait asyncio.sleep(5)"), "cancellation"
    ),
    "SIGTERM under asyncio.run": Program(
        in_task("moment()\nlater(0.1, signal.SIGTERM)\nawait asyncio.sleep(5)"), "cancellation"
    ),
    "SIGTERM, a handler on the loop": Program(
        in_task(
            "later(0.1, signal.SIGTERM)\nawait asyncio.sleep(5)",
            before="loop.add_signal_handler(signal.SIGTERM, task.cancel)",
        ),
        "cancellation",
    ),
    "SIGTERM, a handler on the loop set in the run": Program(
        in_task(
            "loop.add_signal_handler(signal.SIGTERM, task.cancel)\n"
            "later(0.1, signal.SIGTERM)\nawait asyncio.sleep(5)"
        ),
        "cancellation",
    ),
    "a loop that is closed in the run": Program(
        """
loop = asyncio.new_event_loop()
async def task():
    print(works())
    async with opm.stage("unfinished"):
        await asyncio.sleep(5)
with opm.run("nightly", report=report(), resources=False):
    pending = loop.create_task(task())
    loop.run_until_complete(asyncio.sleep(0.05))
    pending._log_destroy_pending = False
    loop.close()
print("the end")
moment()
""",
        "success",
    ),
    # --- threads, and runs in runs
    "return, threads go on recording": Program(in_run("", before="record_meanwhile()"), "success"),
    "exception, threads go on recording": Program(
        in_run("moment()\nfails()", before="record_meanwhile()"), "failure"
    ),
    "SIGTERM, threads go on recording": Program(
        in_run("kill()", before="record_meanwhile()"), "cancellation"
    ),
    "SIGINT, threads go on recording": Program(
        in_run("kill(signal.SIGINT)", before="record_meanwhile()"), "cancellation"
    ),
    "a run on another thread": Program(
        """
def pipeline():
    with opm.run("nightly", report=report(), resources=False):
        print(works())
        fails()
thread = threading.Thread(target=pipeline)
thread.start()
thread.join()
moment()
""",
        "failure",
    ),
    "SIGTERM, a run on another thread": Program(
        """
ready = threading.Event()
def pipeline():
    with opm.run("nightly", report=report(), resources=False):
        print(works(), flush=True)
        ready.set()
        time.sleep(5)
threading.Thread(target=pipeline, daemon=True).start()
ready.wait()
kill()
""",
        "cancellation",
    ),
    "SIGTERM, two runs": Program(
        """
with opm.run("outer", report=report("outer"), resources=False):
    with opm.run("nightly", report=report(), resources=False):
        print(works(), flush=True)
        kill()
""",
        "cancellation",
    ),
}
