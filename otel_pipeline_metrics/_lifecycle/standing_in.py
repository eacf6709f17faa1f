"""Keep telemetry in memory for a while instead of exporting it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.options import OPTIONS
from otel_pipeline_metrics._lifecycle.configure import configure, in_force, shutdown
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._export.in_memory import InMemory


# What decides where telemetry goes, and who it comes from.
_OF_THE_EXPORT: Final = frozenset(
    {"service_name", "exporter", "tracer_provider", "meter_provider", "resource_attributes"}
)


@contextmanager
def standing_in() -> Iterator[InMemory]:
    """Configure providers in memory, and at the end what was configured before.

    They are the global providers meanwhile, so that what other libraries measure is kept too.
    """
    from otel_pipeline_metrics._export import global_providers  # load the SDK
    from otel_pipeline_metrics._export.in_memory import InMemory

    config = in_force()
    before: dict[str, Any] = {}
    if config is not None:
        before = {o.name: getattr(config, o.field or o.name) for o in OPTIONS if o.name}
    rest = {
        name: value
        for name, value in before.items()
        if name not in _OF_THE_EXPORT and not name.startswith("spool")
    }
    kept = InMemory()
    if config is None:
        sink.install(sink.silent())  # which takes what ended before
    with global_providers.replaced(kept.tracer_provider, kept.meter_provider):
        configure(
            **{
                **rest,
                "tracer_provider": kept.tracer_provider,
                "meter_provider": kept.meter_provider,
                "console": False,
            }
        )
        try:
            yield kept
        finally:
            shutdown()
            kept.close()
    if config is not None:
        configure(**before)
    else:
        sink.install(sink.OtelSink())  # as after the import: on whatever provider comes
