"""Check the standard OTEL_* variables for values that the SDK cannot use.

The SDK answers a broken value in a dozen ways: an exception in a constructor, a stack trace in
the log, a warning that quotes a secret header. Here each becomes one sentence that names the
variable, and a repair that keeps the value from the SDK.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from otel_pipeline_metrics._core.validation import MAX_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult


# digits of the largest whole number that is accepted
MAX_DIGITS: Final = 18
# characters of a broken value that a problem quotes
MAX_QUOTED: Final = 40
# a password, parameter or header is looked for by itself from this length on
MIN_SECRET: Final = 4

_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SAMPLER_ARG: Final = "OTEL_TRACES_SAMPLER_ARG"
_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH_SIZE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_BSP_DEFAULTS: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": 5000,
    "OTEL_BSP_EXPORT_TIMEOUT": 30000,
    _QUEUE_SIZE: 2048,
    _BATCH_SIZE: 512,
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
    """The problems of the environment, and the values that the SDK reads instead."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repairs: dict[str, str | None] = {}

    def broken(self, name: str, why: str, *, use: str | None = None) -> None:
        """Note a problem of variable `name`, to be read as `use` (None: as unset)."""
        self.problems.append(f"{name} {why}")
        self.repairs[name] = use

    def invalid(
        self, name: str, expected: str, text: str, used: object, *, use: str | None = None
    ) -> None:
        """Note that variable `name` holds `text` instead of what is expected."""
        self.broken(name, f"must be {expected}, not {quoted(text)}; {used} is used", use=use)


def get(env: Mapping[str, str], name: str) -> str:
    """Return the variable without blanks around it; "" if it is unset."""
    return env.get(name, "").strip()


def is_true(env: Mapping[str, str], name: str) -> bool:
    return get(env, name).lower() == "true"


def quoted(value: str) -> str:
    """Return `value` in quotes, shortened for a message."""
    return repr(value if len(value) <= MAX_QUOTED else value[: MAX_QUOTED - 1] + "…")


def positive(text: str) -> float | None:
    """Return the number above 0 that `text` spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def whole(text: str) -> int | None:
    """Return the whole number that `text` spells, or None; nothing counts further than 18 digits.

    Python itself refuses numbers of more than 4,300 digits.
    """
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def split_endpoint(url: str) -> SplitResult:
    """Return the parts of an endpoint, which may lack a scheme.

    Raises:
        ValueError: the endpoint cannot be read.
    """
    return urlsplit(url if "://" in url else f"//{url}")


def redact_endpoint(url: str) -> str:
    """Return `url` without user, password, query and fragment, which may be secret."""
    try:
        parts = split_endpoint(url)
        host = parts.netloc.rpartition("@")[2]
        clean = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:  # such as an unclosed IPv6 bracket
        return "<unreadable endpoint>"
    return clean.removeprefix("//")


def secrets(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets in OTLP endpoints and headers, the longest first."""
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
    # shorter ones would be found in any number
    found |= {one for one in alone if len(one) >= MIN_SECRET}
    found |= {unquote(one) for one in found}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def batch_setting(env: Mapping[str, str], name: str) -> int:
    """Return a setting of the batch processor; its default if it is unset or broken."""
    return whole(get(env, name)) or _BSP_DEFAULTS[name]


def check(env: Mapping[str, str]) -> Findings:
    """Check every standard variable whose value may break the SDK."""
    found = Findings()
    for name, value in env.items():
        if name.startswith("OTEL_") and not value.strip():
            found.repairs[name] = None  # an empty variable means the same as an unset one
    limits = dict.fromkeys(filter(_is_limit, env), _LIMIT)
    for name, rule in {**limits, **_RULES}.items():
        text = get(env, name)
        if text and rule.most and (positive(text) or 0) > rule.most:
            most = str(rule.most)
            found.broken(name, f"is more than {most}; {most} is used", use=most)
        elif text and not rule.accepts(text):
            found.invalid(name, rule.expected, rule.show(text), rule.used)
        elif text and rule.strip and text != env[name]:
            found.repairs[name] = text
    _check_batch_fits_queue(env, found)
    _check_sampler_argument(env, found)
    _check_pairs(env, found)
    return found


def _check_batch_fits_queue(env: Mapping[str, str], found: Findings) -> None:
    """Check that a batch fits into the queue: else the SDK raises a ValueError."""
    queue = batch_setting(env, _QUEUE_SIZE)
    if batch_setting(env, _BATCH_SIZE) <= queue:
        return
    if get(env, _BATCH_SIZE):
        why = f"is larger than the queue of {queue}; {queue} is used"
        found.broken(_BATCH_SIZE, why, use=str(queue))
    else:
        found.repairs[_BATCH_SIZE] = str(queue)


def _check_sampler_argument(env: Mapping[str, str], found: Findings) -> None:
    text = get(env, _SAMPLER_ARG)
    if not get(env, _SAMPLER).lower().endswith("traceidratio"):
        return
    try:
        usable = 0.0 <= float(text or "1") <= 1.0
    except ValueError:
        usable = False
    if not usable:
        found.invalid(_SAMPLER_ARG, "a ratio from 0 to 1", text, 1, use="1")
    elif not text:
        found.repairs[_SAMPLER_ARG] = "1"


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


def _is_limit(name: str) -> bool:
    """Tell whether a variable limits what a span may hold."""
    return name.startswith("OTEL_") and name.endswith(("_COUNT_LIMIT", "_LENGTH_LIMIT"))


def _is_usable_endpoint(url: str) -> bool:
    """Tell whether an exporter can be built with `url`; gRPC knows other schemes too."""
    try:
        parts = split_endpoint(url)
        port = parts.port
    except ValueError:
        return False
    if " " in url or (port is not None and port not in _PORTS):
        return False
    return bool(parts.hostname) or parts.scheme not in {"", "http", "https"}


class _Rule(NamedTuple):
    """The values that one variable may have."""

    expected: str
    accepts: Callable[[str], Any]
    # what is used instead of a broken value
    used: object = "the default"
    # whether the SDK needs the value without the blanks around it; older SDKs do not strip it
    strip: bool = False
    show: Callable[[str], str] = str
    # what is used for larger numbers: somebody means "never"
    most: int | None = None


def _choice(default: str, *others: str) -> _Rule:
    choices = (default, *others)
    expected = f"one of {', '.join(choices)}"
    return _Rule(expected, lambda text: text.lower() in choices, default, strip=True)


_LIMIT: Final = _Rule("a whole number", lambda text: whole(text) is not None)
_ENDPOINT: Final = _Rule("a usable URL", _is_usable_endpoint, strip=True, show=redact_endpoint)
_COMPRESSION: Final = _choice("none", "gzip", "deflate")
METRIC_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
# Between two exports of metrics, where nothing is asked for.
METRIC_INTERVAL_MS: Final = 10_000
_RULES: Final[dict[str, _Rule]] = {
    **{
        name: _Rule(
            "a whole number above 0",
            lambda text: bool(whole(text)),
            default,
            most=None if name.endswith("_SIZE") else MAX_WAIT_S * 1000,
        )
        for name, default in _BSP_DEFAULTS.items()
    },
    **{
        name: _Rule("a number of milliseconds above 0", positive, default, most=MAX_WAIT_S * 1000)
        for name, default in {
            METRIC_INTERVAL: METRIC_INTERVAL_MS,
            "OTEL_METRIC_EXPORT_TIMEOUT": 30000,
        }.items()
    },
    "OTEL_SDK_DISABLED": _choice("false", "true"),
    _SAMPLER: _choice(
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": _choice("trace_based", "always_on", "always_off"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": _COMPRESSION,
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": _COMPRESSION,
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": _COMPRESSION,
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _choice(
        "cumulative", "delta", "lowmemory"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _choice(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    "OTEL_EXPORTER_OTLP_ENDPOINT": _ENDPOINT,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _ENDPOINT,
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _ENDPOINT,
}
