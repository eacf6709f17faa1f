"""Keep personal data and secrets out of telemetry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from otel_pipeline_metrics._core import attribute_keys, errors, metric_definitions
from otel_pipeline_metrics._core.cleaning import clean_text
from otel_pipeline_metrics._core.counter import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


V = TypeVar("V")

# A resource's key may end in these: the semantic conventions have `host.name`, `service.name`,
# `k8s.pod.name`.
DESCRIBES_A_RESOURCE: Final = frozenset({"name"})

# Characters of an exception's message that are kept.
MAX_MESSAGE: Final = 1000

# The keys that this package sets itself.
OWN_KEYS: Final = frozenset(
    value
    for value in vars(metric_definitions).values()
    if isinstance(value, str) and value.startswith("pipeline.")
)

# Keys that are remembered: programs have few, unless they make them from data.
_MAX_KNOWN_KEYS: Final = 1000

_MAX_DROPPED: Final = 100

# Attributes that were dropped because of their key.
forbidden_keys = Counter()

# Messages that were shortened.
cut_messages = Counter()


class Rules(NamedTuple):
    """What is forbidden, and what happens to it."""

    words: frozenset[str] = frozenset()  # beside the built-in ones; as `normal()` returns them
    strict: bool = False  # whether a forbidden key is a ValueError, instead of being dropped
    error_messages: bool = False  # whether exceptions' messages are set on spans
    allowed: frozenset[str] = frozenset()  # whole keys that pass though a built-in rule forbids

    def reason_against(self, key: str, spared: frozenset[str] = frozenset()) -> str | None:
        """Return why `key` is forbidden, as the end of a sentence; None if it is allowed.

        Args:
            key: the attribute's key.
            spared: words that it may end in, but not be.
        """
        if key in OWN_KEYS:
            return None
        if self.words:
            plain = attribute_keys.normal(key)
            for word in self.words:
                flat = word.replace(".", "_")
                if plain.endswith(f".{word}") or plain.replace(".", "_") == flat:
                    return f"one that is or ends in {word!r} is of forbidden_keys"
        if key in self.allowed:
            return None
        return attribute_keys.reason_against(key, spared=spared)

    def check(
        self, attributes: Mapping[str, Any], argument: str, spared: frozenset[str] = frozenset()
    ) -> None:
        """Refuse forbidden keys if the rules are strict.

        Raises:
            ValueError: the rules are strict, and a key is forbidden.
        """
        for key in attributes if self.strict else ():
            reason = self.reason_against(key, spared)
            if reason is not None:
                raise ValueError(
                    f"{refusal(key, argument, reason)}; without strict=True it would be dropped"
                )


def refusal(key: str, argument: str, reason: str) -> str:
    """Return the message of an error about a key."""
    return (
        f"{argument}: the key {key!r} is forbidden, since {reason}: it may identify a person or "
        "reveal a secret"
    )


_rules = Rules()

# By key: why it is forbidden, if it is.
_known_keys: dict[str, str | None] = {}

# (owner, key) of the first attributes that were dropped from definitions.
_dropped: dict[tuple[str, str], None] = {}


def rules() -> Rules:
    """Return the rules in force."""
    return _rules


def activate(new: Rules) -> None:
    """Put `new` rules in force."""
    global _rules, _known_keys
    _rules, _known_keys = new, {}


def is_allowed(key: str) -> bool:
    """Tell whether an attribute may have this key; quick for known keys."""
    known = _known_keys
    try:
        return known[key] is None
    except KeyError:
        if len(known) >= _MAX_KNOWN_KEYS:
            known.clear()
        reason = known[key] = _rules.reason_against(key)
        return reason is None


def drop_forbidden(
    attributes: Mapping[str, V], owner: str, spared: frozenset[str] = frozenset()
) -> dict[str, V]:
    """Return the allowed attributes; count the others, and log each key once.

    Args:
        attributes: the attributes of `owner`.
        owner: such as "stage 'parse'".
        spared: words that a key may end in.
    """
    kept = {}
    for key, value in attributes.items():
        if is_allowed(key) or (spared and _rules.reason_against(key, spared) is None):
            kept[key] = value
        else:
            drop(key, owner)
    return kept


def drop_forbidden_at_definition(attributes: Mapping[str, V], owner: str) -> dict[str, V]:
    """Return the allowed attributes of a definition, and remember which were dropped."""
    kept = drop_forbidden(attributes, owner)
    for key in attributes:
        if key not in kept and len(_dropped) < _MAX_DROPPED:
            _dropped[owner, key] = None
    return kept


def drop(key: str, owner: str) -> None:
    """Count an attribute that is dropped, and log its key once."""
    forbidden_keys.add()
    errors.warn_once(
        f"forbidden key {key}",
        "the attribute %r of %s is dropped: its key is forbidden, since it may "
        "identify a person or reveal a secret",
        key,
        owner,
    )


def dropped_before() -> list[tuple[str, str]]:
    """Return (owner, key) of what was dropped from definitions, and forget it."""
    found = list(_dropped)
    _dropped.clear()
    return found


# --- messages ---------------------------------------------------------------------------------

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/?#\s]+@")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&\s]+)=([^&#\s'\")]+)")


def message_of(error: BaseException) -> str | None:
    """Return the message of an exception for its span; None if messages are off."""
    return sanitized_message(error) if _rules.error_messages else None


def sanitized_message(error: object, as_text: Callable[[object], str] = str) -> str:
    """Return a message, or that of an exception, shortened, without the secrets of URLs in it."""
    try:
        text = as_text(error)
    except BaseException as failed:  # the user's own __str__
        if errors.raised_into(failed):
            raise
        return ""
    head = text[: 2 * MAX_MESSAGE]
    if len(head) < len(text):
        head += "@"  # ends credentials that go on after the cut, so that they are recognized
    return cut(clean_text(_QUERY.sub(_hidden, _CREDENTIALS.sub("", head))), len(text))


def cut(text: str, length: int | None = None) -> str:
    """Return at most `MAX_MESSAGE` characters of a text that was `length` long."""
    if max(len(text), length or 0) <= MAX_MESSAGE:
        return text
    cut_messages.add()
    return text[: MAX_MESSAGE - 1] + "…"


def _hidden(pair: re.Match[str]) -> str:
    return pair[0] if is_allowed(pair[1]) else f"{pair[1]}=***"
