"""The base of everything that stands in for a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._probes.queues.instrumented import Instrumented

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.limits.probe import LimitProbe


class Limited(Instrumented):
    """A stand-in of a limit; every attribute that it does not count is the wrapped object's."""

    __slots__ = ()

    # a `LimitProbe`
    _opm_probe: Any

    def __init__(self, limit: Any, probe: LimitProbe) -> None:
        object.__setattr__(self, "_opm_queue", limit)
        object.__setattr__(self, "_opm_probe", probe)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the wrapped object, if that can be pickled; another process counts anew."""
        make, arguments = self._opm_probe.again
        return make, (self._opm_queue, *arguments)
