"""What a wrapper needs of this package, as one object that pickles as its name.

A wrapper of a local function is pickled with all that it refers to. Modules of a project that is
not installed, and functions with their globals, are copied then (dill), and context variables
cannot be. This object is looked up by name where the wrapper is loaded.
"""

from __future__ import annotations

import threading
from typing import Final

from otel_pipeline_metrics._core import clock, hooks, nesting, series
from otel_pipeline_metrics._core.process.gc_safety import extras, others
from otel_pipeline_metrics._stages import invocation, later, sampling, suspended


class Internals:
    """The modules that wrappers use: slots are read as fast as the globals of a module."""

    __slots__ = (
        "active_cell", "anything", "clock", "extras", "failure", "ident", "invocation", "later",
        "nesting", "no_turn", "others", "sampling", "series", "suspended",
    )  # fmt: skip

    def __init__(self) -> None:
        self.active_cell = series.active_cell
        # what they catch: each name that they close over costs every call
        self.anything = BaseException
        self.failure = Exception
        self.no_turn = hooks.NO_TURN
        self.clock = clock
        self.extras = extras
        self.ident = threading.get_ident
        self.invocation = invocation
        self.later = later
        self.nesting = nesting
        self.others = others
        self.sampling = sampling
        self.series = series
        self.suspended = suspended

    def __reduce__(self) -> str:
        """Pickle as the name of the one object there is."""
        return "internals"


internals: Final = Internals()
