"""Name the environment variables of this library, beside the standard OTEL_* ones.

`opentelemetry-instrument` offers each as a command-line option.
"""

from __future__ import annotations

# Stage attributes that are set on metrics too, separated by commas; as `metric_attributes`.
OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES = "OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES"

# true: print run summaries to stderr; false: never; as `console`.
OTEL_PIPELINE_METRICS_CONSOLE = "OTEL_PIPELINE_METRICS_CONSOLE"

# Seconds that the flush at the end may take, all signals together (5).
OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT = "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT"

# true: let the exporters log each failed request themselves (false).
OTEL_PIPELINE_METRICS_EXPORTER_LOGS = "OTEL_PIPELINE_METRICS_EXPORTER_LOGS"

# true: a forbidden attribute key is a ValueError; false: it is dropped; as `strict`.
OTEL_PIPELINE_METRICS_STRICT = "OTEL_PIPELINE_METRICS_STRICT"

# More forbidden attribute keys, separated by commas; as `forbidden_keys`.
OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS = "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS"

# Distinct values of an attribute on metrics; further ones become _OTHER (200).
OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES = "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES"

# true: set the messages of exceptions on failed spans (false); as `error_messages`.
OTEL_PIPELINE_METRICS_ERROR_MESSAGES = "OTEL_PIPELINE_METRICS_ERROR_MESSAGES"

# false: record each histogram value through the public API, at seven times the cost (true).
OTEL_PIPELINE_METRICS_FOLD = "OTEL_PIPELINE_METRICS_FOLD"

# Directory for batches that the collector did not take, until it does; as `spool`.
OTEL_PIPELINE_METRICS_SPOOL = "OTEL_PIPELINE_METRICS_SPOOL"

# Bytes in that directory above which the oldest batches are dropped (104857600).
OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES = "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES"

# Seconds after which a batch in that directory is dropped (604800, a week).
OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE = "OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE"

# Those that take effect at import, before `configure()`.
READ_AT_IMPORT = (
    OTEL_PIPELINE_METRICS_STRICT,
    OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS,
    OTEL_PIPELINE_METRICS_ERROR_MESSAGES,
)
