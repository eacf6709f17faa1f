"""Define the settings, and keep those in force; `options` has the arguments that set them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TextIO, Union

from otel_pipeline_metrics._core import attribute_keys, privacy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.records import AttributeValue

ExporterName = Literal["otlp", "console", "prometheus", "none"]
EXPORTERS: tuple[ExporterName, ...] = ("otlp", "console", "prometheus", "none")
# settings that are the same only if they are identical
_OBJECTS: Final = frozenset({"tracer_provider", "meter_provider", "console"})

# what is printed: nothing, the summaries of runs, or spans and metrics too
Amount = Literal["off", "summary", "all"]
AMOUNTS: Final[dict[str, Amount]] = {
    "off": "off", "summary": "summary", "all": "all",
    # what the variable and the argument took before
    "false": "off", "true": "summary",
}  # fmt: skip
# a stream takes the summaries
Console = Union[Amount, bool, TextIO, None]  # noqa: UP007 - evaluated; Python 3.10 has no such |


# without comparison and repr, which cost a part of the import and have no user
@dataclass(frozen=True, eq=False, repr=False)
class Config:
    """The checked settings; `configure()` replaces them as a whole."""

    service_name: str | None = None
    # None: OTEL_* variables decide, and without any nothing is exported
    exporters: tuple[ExporterName, ...] | None = None
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    resource_attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metric_attributes: tuple[str, ...] = ()
    # None: a summary where stderr is a terminal when the run ends
    console: Amount | TextIO | None = None
    spans_per_second: float | None = 100.0
    flush_timeout_s: float = 5.0
    spool: Path | None = None
    spool_max_bytes: int = 100 * 1024 * 1024
    spool_max_age_s: float = 7 * 24 * 3600.0
    spool_delta: bool = False
    # None: True where no exporter is set, or the console alone
    strict: bool | None = None
    forbidden_keys: tuple[str, ...] = ()
    allowed_keys: tuple[str, ...] = ()
    max_attribute_values: int = 200
    error_messages: bool = False
    code_location: bool = False
    logs: bool = False
    stalled_after_s: float = 300.0
    monitoring_enabled: bool = True
    monitoring_interval_s: float = 30.0
    enable_system_metrics: bool = True
    enable_performance_metrics: bool = True
    enable_business_metrics: bool = True
    enable_prometheus_integration: bool = False
    # None: OTEL_METRIC_EXPORT_INTERVAL, or 10 s
    metrics_sync_interval_s: float | None = None
    history_size: int = 100
    # with {trace_id} in it
    trace_url: str | None = None
    attach: bool = False

    def is_same(self, other: Config) -> bool:
        """Tell whether all settings are equal, and the providers and the stream identical."""
        # the provider of another library may compare as it likes
        for name in self.__dataclass_fields__:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is theirs:
                continue
            if name in _OBJECTS or type(ours) is not type(theirs) or ours != theirs:
                return False
        return True

    def privacy_rules(self) -> privacy.Rules:
        """Return the rules on attribute keys and messages that these settings ask for."""
        return privacy.Rules(
            frozenset(map(attribute_keys.normal, self.forbidden_keys)),
            bool(self.strict),
            self.error_messages,
            frozenset(self.allowed_keys),
        )


_current = Config()


def settings() -> Config:
    """Return the settings in force; the defaults until `configure()` is called."""
    return _current


def replace(config: Config) -> None:
    """Put `config` in force."""
    global _current
    _current = config
