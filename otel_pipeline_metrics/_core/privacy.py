"""What of the user's may go out: no key that names a person or a secret, no long message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from otel_pipeline_metrics._core import errors, metric_definitions
from otel_pipeline_metrics._core.counter import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


V = TypeVar("V")

WORDS: Final = frozenset(
    {
        "email", "name", "username", "password", "token", "key", "secret", "api_key",
        "user_id", "client_id", "session_id",
    }
)  # fmt: skip
"""Forbidden as a whole key, and after the last dot of one."""

SECRETS: Final = frozenset({"password", "token", "secret", "api_key"})
"""Forbidden after an underscore too: `auth_token`."""

DESCRIBES_A_RESOURCE: Final = frozenset({"name"})
"""What a resource's key may end in, though a stage's may not: the conventions call hosts,
services and pods `host.name`, `service.name`, `k8s.pod.name`."""

MAX_MESSAGE: Final = 1000
"""Characters of an exception's message that are kept."""

_OWN: Final = frozenset(
    value
    for value in vars(metric_definitions).values()
    if isinstance(value, str) and value.startswith("pipeline.")
)


_JUDGED: Final = 1000
"""Keys whose judgement is remembered; programs have few, unless they make them from data."""

_REMEMBERED: Final = 100

forbidden_keys = Counter()
"""Attributes that were dropped because of their key."""
cut_messages = Counter()


def snake(key: str) -> str:
    """Return `key` lower-cased, with camelCase and kebab-case as snake_case: `userID`, `user_id`.

    A run of capitals is one word, but for its last letter where a small one follows it.
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

    words: frozenset[str] = WORDS
    """In snake_case."""
    strict: bool = False
    """Whether a forbidden key is a ValueError; else it is dropped and counted."""
    error_messages: bool = False
    """Whether the messages of exceptions go on spans."""

    def forbidden_word(self, key: str, spared: frozenset[str] = frozenset()) -> str | None:
        """Return the forbidden word that `key` is or ends in; None: it may go out.

        Args:
            key: an attribute's.
            spared: words that it may end in, if it is not one of them altogether.
        """
        if key in _OWN:
            return None
        plain = snake(key)
        for word in self.words:
            ends = plain.endswith(f".{word}") and word not in spared
            if plain == word or ends or (word in SECRETS and plain.endswith(f"_{word}")):
                return word
        return None

    def check(
        self, attributes: Mapping[str, Any], argument: str, spared: frozenset[str] = frozenset()
    ) -> None:
        """Refuse forbidden keys where that is wanted.

        Raises:
            ValueError: the rules are strict, and a key is forbidden.
        """
        for key in attributes if self.strict else ():
            word = self.forbidden_word(key, spared)
            if word is not None:
                raise ValueError(f"{argument}: the key {key!r} is forbidden{_because(word)}")


def _because(word: str) -> str:
    return (
        f", since one that is or ends in {word!r} may tell of a person or a secret; "
        "without strict=True it would be dropped"
    )


_rules = Rules()
_judged: dict[str, str | None] = {}
_dropped: dict[tuple[str, str], None] = {}
"""(owner, key) of what was dropped from definitions: the first few."""


def rules() -> Rules:
    """Return the rules in force."""
    return _rules


def activate(new: Rules) -> None:
    """Judge by `new` from now on."""
    global _rules, _judged
    _rules, _judged = new, {}


def is_allowed(key: str) -> bool:
    """Tell whether an attribute with this key may go out; quick for keys that come again."""
    judged = _judged
    try:
        return judged[key] is None
    except KeyError:
        if len(judged) >= _JUDGED:
            judged.clear()
        word = judged[key] = _rules.forbidden_word(key)
        return word is None


def check(attributes: Mapping[str, Any], argument: str = "attributes") -> None:
    """Refuse forbidden keys where the rules in force are strict.

    Raises:
        ValueError: they are, and a key is forbidden.
    """
    _rules.check(attributes, argument)


def drop_forbidden(
    attributes: Mapping[str, V], owner: str, spared: frozenset[str] = frozenset()
) -> dict[str, V]:
    """Return the attributes that may go out; the others are counted, and each key is said once.

    Args:
        attributes: given for `owner`.
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
    """Return `drop_forbidden` of what is defined for good, and remember what was dropped."""
    kept = drop_forbidden(attributes, owner)
    for key in attributes:
        if key not in kept and len(_dropped) < _REMEMBERED:
            _dropped[owner, key] = None
    return kept


def drop(key: str, owner: str) -> None:
    """Count an attribute that is dropped, and say its key once."""
    forbidden_keys.add()
    errors.warn_once(
        f"forbidden key {key}",
        "the attribute %r of %s is dropped: its key is forbidden, since it may tell of a "
        "person or a secret",
        key,
        owner,
    )


def dropped_before() -> list[tuple[str, str]]:
    """Return (owner, key) of what was dropped from definitions so far, and forget it."""
    found = list(_dropped)
    _dropped.clear()
    return found


# --- messages ---------------------------------------------------------------------------------

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/?#\s]+@")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&\s]+)=([^&#\s'\")]+)")


def message_of(error: BaseException) -> str | None:
    """Return the message of an exception for its span; None where messages are not wanted."""
    return sanitized_message(error) if _rules.error_messages else None


def sanitized_message(error: BaseException, as_text: Callable[[object], str] = str) -> str:
    """Return an exception's message, cut, and without what URLs in it keep secret."""
    try:
        text = as_text(error)
    except Exception:  # the user's own __str__
        return ""
    head = text[: 2 * MAX_MESSAGE]
    if len(head) < len(text):
        head += "@"  # or credentials that go on for longer would not be seen as such
    return cut(_QUERY.sub(_hidden, _CREDENTIALS.sub("", head)), len(text))


def cut(text: str, length: int | None = None) -> str:
    """Return at most `MAX_MESSAGE` characters of `text`, which was `length` long."""
    if max(len(text), length or 0) <= MAX_MESSAGE:
        return text
    cut_messages.add()
    return text[: MAX_MESSAGE - 1] + "…"


def _hidden(pair: re.Match[str]) -> str:
    return pair[0] if is_allowed(pair[1]) else f"{pair[1]}=***"
