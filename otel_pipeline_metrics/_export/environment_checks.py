"""Which standard OTEL_* variables hold values that the SDK cannot use, and what to read instead.

The SDK answers a broken value in a dozen ways: an exception out of a constructor, a stack
trace in the log, a warning that quotes a secret header. Here each becomes one sentence that
names the variable, and a repair under which the SDK never sees the value.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_QUOTED: Final = 40
"""Characters of a broken value that a problem quotes."""

MIN_SECRET: Final = 4
"""Characters from which a password, a parameter or a header is looked for by itself."""

_SPAN_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_BSP_DEFAULTS: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": 5000,
    "OTEL_BSP_EXPORT_TIMEOUT": 30000,
    "OTEL_BSP_MAX_QUEUE_SIZE": 2048,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 512,
}
_READER_DEFAULTS: Final = {
    "OTEL_METRIC_EXPORT_INTERVAL": 60000,
    "OTEL_METRIC_EXPORT_TIMEOUT": 30000,
}
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_CHOICES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "OTEL_TRACES_SAMPLER": (
        (
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ),
        "parentbased_always_on",
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": (("trace_based", "always_on", "always_off"), "trace_based"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": (_COMPRESSIONS, "none"),
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": (_COMPRESSIONS, "none"),
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": (_COMPRESSIONS, "none"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": (
        ("cumulative", "delta", "lowmemory"),
        "cumulative",
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        ("explicit_bucket_histogram", "base2_exponential_bucket_histogram"),
        "explicit_bucket_histogram",
    ),
}
_HEADER: Final = re.compile(
    # The grammar of opentelemetry.util.re in its liberal mode; what does not match would be
    # logged there with its value.
    r"[ \t]*[\x21\x23-\x27\x2a\x2b\x2d\x2e\x30-\x39\x41-\x5a\x5e-\x7a\x7c\x7e]+[ \t]*="
    r"[ \t]*[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*[ \t]*"
)
_PAIRS: Final = {
    # Never quoted: headers hold credentials, and resource attributes may.
    "OTEL_RESOURCE_ATTRIBUTES": re.compile(r"\s*[^=\s][^=]*=.*", re.DOTALL),
    "OTEL_EXPORTER_OTLP_HEADERS": _HEADER,
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": _HEADER,
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS": _HEADER,
}
_PORTS: Final = range(1, 65536)


class Findings:
    """What was found wrong: a sentence each, and what the SDK is to read instead."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repairs: dict[str, str | None] = {}

    def broken(self, name: str, why: str, *, use: str | None = None) -> None:
        """Note one problem of variable `name`, to be read as `use` (None: as unset)."""
        self.problems.append(f"{name} {why}")
        self.repairs[name] = use


def get(env: Mapping[str, str], name: str) -> str:
    """Return the variable without blanks around it; "" if unset, as the specification says."""
    return env.get(name, "").strip()


def quoted(value: str) -> str:
    """Return `value` fit for a message."""
    return repr(value if len(value) <= MAX_QUOTED else value[: MAX_QUOTED - 1] + "…")


def positive(text: str) -> float | None:
    """Return the number above 0 that `text` spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def redact_endpoint(url: str) -> str:
    """Return `url` without what may be secret in it: user, password, query and fragment."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = parts.netloc.rpartition("@")[2]
        clean = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:  # such as an unclosed IPv6 bracket
        return "<unreadable endpoint>"
    return clean.removeprefix("//")


def secrets(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a message must not quote of OTLP endpoints and headers, the longest first."""
    found: set[str] = set()
    alone: set[str] = set()
    for name, value in env.items():
        if not name.startswith("OTEL_EXPORTER_OTLP_"):
            continue
        if name.endswith("HEADERS"):
            alone |= {pair.partition("=")[2].strip() for pair in value.split(",")}
        elif name.endswith("ENDPOINT"):
            place, _, query = value.strip().partition("?")
            user = place.partition("://")[2].rpartition("@")[0] or place.rpartition("@")[0]
            alone |= {
                user.partition(":")[2],
                *(part.partition("=")[2] for part in query.split("&")),
            }
            found |= {user, query}
    # what is shorter would be found in any number
    found |= {one for one in alone if len(one) >= MIN_SECRET}
    found |= {unquote(one) for one in found}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def check(env: Mapping[str, str]) -> Findings:
    """Check every standard variable whose value may break the SDK."""
    found = Findings()
    for name, value in env.items():
        if name.startswith("OTEL_") and not value.strip():
            found.repairs[name] = None  # an empty variable means the same as an unset one
    _check_integers(env, found)
    _check_batch_fits_queue(env, found)
    _check_intervals(env, found)
    _check_choices(env, found)
    _check_sampler_argument(env, found)
    _check_pairs(env, found)
    _check_endpoints(env, found)
    return found


def _check_integers(env: Mapping[str, str], found: Findings) -> None:
    for name, default in _BSP_DEFAULTS.items():
        text = get(env, name)
        if text and (not text.isdecimal() or int(text) == 0):
            found.broken(name, f"is no whole number above 0: {quoted(text)}; {default} is used")
    for name in _SPAN_LIMITS:
        text = get(env, name)
        if text and not text.isdecimal():
            found.broken(name, f"is no whole number: {quoted(text)}; the default is used")


def _check_batch_fits_queue(env: Mapping[str, str], found: Findings) -> None:
    """A batch larger than the queue is a ValueError in the SDK, even if only one is set."""
    sizes = [
        default if name in found.repairs else int(get(env, name) or default)
        for name, default in _BSP_DEFAULTS.items()
        if name.startswith("OTEL_BSP_MAX_")
    ]
    queue, batch = sizes
    if batch <= queue:
        return
    name = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    if get(env, name):
        found.broken(name, f"is larger than the queue of {queue}; {queue} is used", use=str(queue))
    else:
        found.repairs[name] = str(queue)


def _check_intervals(env: Mapping[str, str], found: Findings) -> None:
    for name, default in _READER_DEFAULTS.items():
        text = get(env, name)
        if text and positive(text) is None:
            found.broken(
                name,
                f"is no number of milliseconds above 0: {quoted(text)}; {default} is used",
            )


def _check_choices(env: Mapping[str, str], found: Findings) -> None:
    for name, (choices, default) in _CHOICES.items():
        text = get(env, name)
        if text and text.lower() not in choices:
            found.broken(
                name, f"is none of {', '.join(choices)}: {quoted(text)}; {default} is used"
            )
        elif text and text != env[name]:
            found.repairs[name] = text  # older SDKs do not strip it


def _check_sampler_argument(env: Mapping[str, str], found: Findings) -> None:
    text = get(env, "OTEL_TRACES_SAMPLER_ARG")
    if not get(env, "OTEL_TRACES_SAMPLER").lower().endswith("traceidratio"):
        return
    try:
        usable = 0.0 <= float(text or "1") <= 1.0
    except ValueError:
        usable = False
    if not usable:
        found.broken(
            "OTEL_TRACES_SAMPLER_ARG",
            f"is no ratio from 0 to 1: {quoted(text)}; 1 is used",
            use="1",
        )
    elif not text:
        found.repairs["OTEL_TRACES_SAMPLER_ARG"] = "1"


def _check_pairs(env: Mapping[str, str], found: Findings) -> None:
    for name, pattern in _PAIRS.items():
        items = [item for item in env.get(name, "").split(",") if item.strip()]
        good = [item for item in items if pattern.fullmatch(item)]
        if len(good) == len(items):
            continue
        places = ", ".join(str(n) for n, item in enumerate(items, 1) if item not in good)
        found.broken(
            name,
            f"must be key=value pairs separated by commas; left out: number {places} "
            f"of {len(items)}",
            use=",".join(good) or None,
        )


def _check_endpoints(env: Mapping[str, str], found: Findings) -> None:
    for signal in ("", "TRACES_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
        text = get(env, name)
        if not text:
            continue
        if not _usable_endpoint(text):
            found.broken(
                name,
                f"is no usable URL: {quoted(redact_endpoint(text))}; the default is used",
            )
        elif text != env[name]:
            found.repairs[name] = text


def _usable_endpoint(url: str) -> bool:
    """Say whether an exporter can be built with `url`; other schemes are gRPC's own targets."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port
    except ValueError:
        return False
    if " " in url or (port is not None and port not in _PORTS):
        return False
    return bool(parts.hostname) or parts.scheme not in {"", "http", "https"}
