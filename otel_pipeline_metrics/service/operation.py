"""`Operation`: what is kept of one operation, and the checks on it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, privacy
from otel_pipeline_metrics._core.validation import check_flag, check_name, check_number

if TYPE_CHECKING:
    from collections.abc import Mapping


# Of a metadata value: lists and mappings inside each other. It also ends a circle.
MAX_DEPTH: Final = 8

# Of an integer in metadata: what a float can still hold. Python refuses to print much larger ones.
_MAX_BITS: Final = 1024

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Operation(NamedTuple):
    """One operation, checked, as it waits for its file."""

    operation_type: str
    operation_name: str
    duration_ms: float
    # when it was recorded, in Unix seconds
    at: float
    success: bool
    error_message: str | None
    metadata: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the record of a file."""
        return {
            "operation_type": self.operation_type,
            "operation_name": self.operation_name,
            "duration_ms": self.duration_ms,
            "timestamp": iso_time(round(self.at * 1_000_000)),
            "success": self.success,
            "error_message": self.error_message,
            "metadata": self.metadata,
        }


def checked_operation(
    operation_type: str,
    operation_name: str,
    duration_ms: float,
    success: bool = True,
    error_message: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Operation:
    """Return an operation of these values, recorded now.

    Raises:
        ValueError: a value is of the wrong kind or out of range, or a key of the metadata is
            forbidden.
    """
    try:
        return Operation(
            check_name(operation_type, "operation_type"),
            check_name(operation_name, "operation_name"),
            check_number(duration_ms, "duration_ms"),
            clock.unix(),
            check_flag(success, "success"),
            _checked_message(error_message),
            checked_metadata(metadata),
        )
    except TypeError as error:
        raise ValueError(str(error)) from None


def _checked_message(message: object) -> str | None:
    if message is None:
        return None
    if not isinstance(message, str):
        raise ValueError(f"error_message must be a string, not {type(message).__name__}")
    return privacy.sanitized_message(message)


def checked_metadata(metadata: object) -> dict[str, Any]:
    """Return a copy of the metadata of an operation; None is an empty one.

    Raises:
        ValueError: it is not a mapping, a key is forbidden, or a value has no place in JSON.
    """
    return {} if metadata is None else _copied_mapping(metadata, "metadata", 0)


def _copied_mapping(value: Any, where: str, depth: int) -> dict[str, Any]:
    if not hasattr(value, "items"):
        raise ValueError(f"{where} must be a mapping, not {type(value).__name__}")
    copied = {}
    for key, item in value.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"{where}: keys must be strings that are not empty, not {key!r:.80}")
        _refuse_forbidden(key, where)
        copied[str(key)] = _copied(item, f"{where}[{key!r:.80}]", depth + 1)
    return copied


def _refuse_forbidden(key: str, where: str) -> None:
    if key in privacy.OWN_KEYS:
        raise ValueError(f"{where}: the key {key!r} is one of otel_pipeline_metrics' own")
    reason = privacy.rules().reason_against(key)
    if reason is not None:
        raise ValueError(privacy.refusal(key, where, reason))


def _copied(value: Any, where: str, depth: int) -> Any:
    """Return a copy of a value that JSON has: the caller may change its own."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise ValueError(f"{where} is an integer of more than {_MAX_BITS} bits")
        return int(value)
    if isinstance(value, float):
        if value - value != 0:
            raise ValueError(f"{where} must be finite: JSON has no {value}")
        return float(value)
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is more than {MAX_DEPTH} levels deep")
    if isinstance(value, (list, tuple)):
        return [_copied(item, f"{where}[{place}]", depth + 1) for place, item in enumerate(value)]
    if hasattr(value, "items"):
        return _copied_mapping(value, where, depth)
    raise ValueError(
        f"{where} must be a value that JSON has: a string, number, True, False, None, a list or a "
        f"mapping, not {type(value).__name__}"
    )


def iso_time(unix_us: int) -> str:
    """Return microseconds since the Unix epoch as ISO 8601 in UTC, with microseconds."""
    return utc_time(unix_us).isoformat(timespec="microseconds")


def utc_time(unix_us: int) -> datetime:
    """Return microseconds since the Unix epoch as a time in UTC, without rounding."""
    return _EPOCH + timedelta(microseconds=unix_us)
