"""Keep personal data and secrets out of telemetry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from otel_pipeline_metrics._core import errors, metric_definitions
from otel_pipeline_metrics._core.cleaning import clean_text
from otel_pipeline_metrics._core.counter import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


V = TypeVar("V")

# Forbidden as a whole key, and after the last dot of one.
WORDS: Final = frozenset(
    {
        "email", "name", "username", "password", "token", "key", "secret", "api_key",
        "user_id", "client_id", "session_id",
    }
)  # fmt: skip

# Forbidden after an underscore too: `auth_token`.
SECRETS: Final = frozenset({"password", "token", "secret", "api_key"})

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


def snake(key: str) -> str:
    """Return `key` in lower-case snake_case: `userID` and `user-id` become `user_id`.

    A run of capitals is one word, without its last letter if a small one follows.
    """
    made = []
    for place, letter in enumerate(key):
        if place and letter.isupper():
            before, after = key[place - 1], key[place + 1 : place + 2]
            inside = before.islower() or before.isdigit() or (before.isupper() and after.islower())
            made.append("_" if inside else "")
        made.append("_" if letter == "-" else letter)
    return "".join(made).lower()


class Rules(NamedTuple):
    """What is forbidden, and what happens to it."""

    words: frozenset[str] = WORDS  # in snake_case
    strict: bool = False  # whether a forbidden key is a ValueError, instead of being dropped
    error_messages: bool = False  # whether exceptions' messages are set on spans

    def forbidden_word(self, key: str, spared: frozenset[str] = frozenset()) -> str | None:
        """Return the forbidden word that `key` is or ends in; None if it is allowed.

        Args:
            key: the attribute's key.
            spared: words that it may end in, but not be.
        """
        if key in OWN_KEYS:
            return None
        name = snake(key)
        for word in self.words:
            ends = name.endswith(f".{word}") and word not in spared
            if name == word or ends or (word in SECRETS and name.endswith(f"_{word}")):
                return word
        return None

    def check(
        self, attributes: Mapping[str, Any], argument: str, spared: frozenset[str] = frozenset()
    ) -> None:
        """Refuse forbidden keys if the rules are strict.

        Raises:
            ValueError: the rules are strict, and a key is forbidden.
        """
        for key in attributes if self.strict else ():
            word = self.forbidden_word(key, spared)
            if word is not None:
                raise ValueError(
                    f"{argument}: the key {key!r} is forbidden, since one that is or ends in "
                    f"{word!r} may identify a person or reveal a secret; "
                    "without strict=True it would be dropped"
                )


_rules = Rules()

# By key: the forbidden word in it, if any.
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
        word = known[key] = _rules.forbidden_word(key)
        return word is None


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
        if is_allowed(key) or (spared and _rules.forbidden_word(key, spared) is None):
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
    except Exception:  # the user's own __str__
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
