"""Hold the configuration in force: frozen, and replaced whole by `configure()`."""

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

# Where run summaries go. True: stderr; False: nowhere; a text stream: there; None: stderr if the
# development console is on or stderr is a terminal.
Console = Union[bool, TextIO, None]  # noqa: UP007 - TextIO has no | in Python 3.10


@dataclass(frozen=True)
class Config:
    """The checked arguments of `configure()`, without the OTEL_* variables."""

    service_name: str | None = None
    # None: OTEL_* decides; without it, the development console is on
    exporters: tuple[ExporterName, ...] | None = None
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    resource_attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metric_attributes: tuple[str, ...] = ()
    console: Console = None
    # spans that each stage may make a second, averaged over time; None: no limit
    spans_per_second: float | None = 100.0
    # for everything that is flushed at the end, all signals together
    flush_timeout_s: float = 5.0
    # directory for batches that the collector did not take; None: they are dropped
    spool: Path | None = None
    spool_max_bytes: int = 100 * 1024 * 1024
    spool_max_age_s: float = 7 * 24 * 3600.0
    # whether a forbidden attribute key is a ValueError; None: if the development console is on
    strict: bool | None = None
    # in addition to `privacy.WORDS`
    forbidden_keys: tuple[str, ...] = ()
    # distinct values of each attribute on metrics; further ones become `_OTHER`
    max_attribute_values: int = 200
    # whether the messages of exceptions are set on failed spans
    error_messages: bool = False


_current = Config()


def settings() -> Config:
    """Return the configuration in force; before `configure()`, the default one."""
    return _current


def replace(config: Config) -> None:
    """Put `config` in force."""
    global _current  # written here only
    _current = config
