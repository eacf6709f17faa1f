"""What a call of `configure()` asks for: what decides it, and what of it has no effect."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, NamedTuple

from otel_pipeline_metrics._core import errors, every_series, privacy, stage_id, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.flush import ExportPipeline


class Asked(NamedTuple):
    """Everything that decides what `configure()` does."""

    config: Config
    environment: dict[str, str]
    # the global providers that are not ours, by their ids
    providers: tuple[int, ...]

    def is_same(self, other: Asked | None) -> bool:
        return (
            other is not None
            and self.config.is_same(other.config)
            and self.environment == other.environment
            and self.providers == other.providers
        )


def ask(config: Config, providers: ModuleType | None) -> Asked:
    variables = {key: value for key, value in os.environ.items() if key.startswith("OTEL_")}
    found = () if providers is None else providers.global_providers.all_existing()
    return Asked(config, variables, tuple(map(id, found)))


def load_providers(config: Config) -> ModuleType | None:
    """Import the SDK, for which only a program pays that calls `configure()`.

    None, and a warning: the import fails, as without file descriptors, or with variables that
    the SDK reads then.
    """
    try:
        from otel_pipeline_metrics._export import environment, environment_repairs

        plan = environment.plan(os.environ, config.exporters)
        with environment_repairs.repaired_environment(dict(plan.repairs)):
            from otel_pipeline_metrics._export import providers
    except Exception as error:
        errors.logger.warning("OpenTelemetry cannot be loaded, so nothing is exported: %r", error)
        return None
    return providers


def with_privacy_rules(config: Config, metric_attributes: Sequence[str], *, strict: bool) -> Config:
    """Put the rules on attributes in force; return settings without forbidden keys.

    Args:
        config: the settings.
        metric_attributes: those that were given as an argument.
        strict: whether the rules are strict if the settings do not tell.

    Raises:
        ValueError: `strict` is in force and a key is forbidden here or in a stage that is defined
            already.
    """
    if config.strict is None:
        config = dataclasses.replace(config, strict=strict)
    rules = config.privacy_rules()
    of_resources = privacy.DESCRIBES_A_RESOURCE
    rules.check(config.resource_attributes, "resource_attributes", of_resources)
    # those that the environment names are dropped with a warning instead
    rules.check(dict.fromkeys(metric_attributes), "metric_attributes")
    defined = stage_id.with_attribute(lambda key: rules.reason_against(key) is not None)
    if config.strict:
        before = [(f"stage {stage.name!r}", key) for stage, key in defined]
        before += privacy.dropped_before()
        if before:
            owner, key = before[0]
            raise ValueError(
                f"strict: {owner}, defined before this, has the attribute {key!r}, whose key is "
                "forbidden: it may identify a person or reveal a secret"
            )
    privacy.activate(rules)
    for stage, key in defined:
        privacy.drop(key, f"stage {stage.name!r}")
    every_series.withdraw(defined)
    return dataclasses.replace(
        config,
        resource_attributes=privacy.drop_forbidden(
            config.resource_attributes, "resource_attributes", of_resources
        ),
        metric_attributes=tuple(
            privacy.drop_forbidden(dict.fromkeys(config.metric_attributes), "metric_attributes")
        ),
    )


def warn_of_ignored(config: Config, export: ExportPipeline) -> None:
    """Log the arguments that have no effect, since the process has providers already."""
    others = [info.signal for info in export.exporters if info.kind in {"given", "global"}]
    if config.console == "all" and others:
        errors.logger.warning(
            'configure(): console="all" cannot show the %s of providers that it did not build',
            text.listed(others),
        )
    if not any(info.kind == "global" for info in export.exporters):
        return
    given = {
        "service_name": config.service_name,
        "exporter": config.exporters,
        "resource_attributes": config.resource_attributes,
        "spool": config.spool,
    }
    ignored = [name for name, value in given.items() if value]
    if ignored:
        errors.logger.warning(
            "configure(): %s has no effect, since the process has providers already",
            ", ".join(ignored),
        )
