"""One frozen configuration, replaced whole by `configure()` and never changed in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TextIO, Union

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.records import AttributeValue


ExporterName = Literal["otlp", "console", "none"]
EXPORTERS: tuple[ExporterName, ...] = ("otlp", "console", "none")

Console = Union[bool, TextIO, None]  # noqa: UP007 - evaluated, and Python 3.10 has no such |
"""True: run summaries go to stderr; False: never; a text stream: there; None: to stderr while
the development console is on or stderr is a terminal."""


@dataclass(frozen=True)
class Config:
    """What the user asked for, checked; the environment is read when providers are built."""

    service_name: str | None = None
    exporters: tuple[ExporterName, ...] | None = None
    """None: OTEL_* decides, and without it the development console."""
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    resource_attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metric_attributes: tuple[str, ...] = ()
    console: Console = None
    spans_per_second: float | None = 100.0
    """Spans that each stage may make a second, over time; None: no limit."""
    flush_timeout_s: float = 5.0
    """Deadline for everything that is flushed at the end, all signals together."""
    spool: Path | None = None
    """Directory that keeps what the collector would not take; None: it is dropped."""
    spool_max_bytes: int = 100 * 1024 * 1024
    spool_max_age_s: float = 7 * 24 * 3600.0
    strict: bool | None = None
    """Whether a forbidden attribute key is a ValueError; None: where the development console
    is on."""
    forbidden_keys: tuple[str, ...] = ()
    """Beside those that always are."""
    max_attribute_values: int = 200
    """Distinct values of each attribute on metrics, before they become `_OTHER`."""
    error_messages: bool = False
    """Whether the messages of exceptions go on failed spans."""


_current = Config()


def settings() -> Config:
    """Return the configuration in force; the default one where nobody called `configure()`."""
    return _current


def replace(config: Config) -> None:
    """Put `config` in force."""
    global _current  # the one place that holds it
    _current = config
