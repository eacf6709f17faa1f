"""Test which keys are forbidden, in every spelling."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._core.privacy import OWN_KEYS, SECRETS, WORDS, Rules, snake

RULES: Final = Rules()


def forbidden(key: str) -> bool:
    return RULES.forbidden_word(key) is not None


def test_the_forbidden_words() -> None:
    assert {
        "email", "name", "username", "password", "token", "key", "secret", "api_key",
        "user_id", "client_id", "session_id",
    } == WORDS  # fmt: skip
    assert {"password", "token", "secret", "api_key"} == SECRETS


@pytest.mark.parametrize(
    "key",
    [
        "email", "Email", "EMAIL", "user.email", "user.Email", "db.name", "name",
        "userID", "userId", "user-id", "User-Id", "USER_ID", "enduser.userId",
        "APIKey", "apiKey", "api-key", "X-Api-Key", "x_api_key", "http.header.X-API-Key",
        "authToken", "auth-token", "auth_token", "AUTH_TOKEN", "oauth2Token", "aws.secret",
        "HTTPSecret", "dbPassword", "db.connection_password", "sessionID", "a.b.client-id",
        "_token", ".key", "été.name", "motDePasse.TOKEN", "\u212aey", "api_\u212aey",
    ],
)  # fmt: skip
def test_a_forbidden_key(key: str) -> None:
    assert forbidden(key)


@pytest.mark.parametrize(
    "key",
    [
        "cache_key_count", "row_name_length", "cacheKeyCount", "file_name", "fileName",
        "cache_key", "primaryKey", "customer_email", "old_user_id", "namespace", "keys", "tokens",
        "tokenizer", "secretary", "passwords", "name.first", "email.domain", "user.id",
        "token_count", "secret_", "tenant", "", ".", "-", "_", "A", "éclair",
        "pipeline.name", "pipeline.stage.name", "pipeline.queue.name",
    ],
)  # fmt: skip
def test_an_allowed_key(key: str) -> None:
    """After an underscore, only secrets are forbidden."""
    assert not forbidden(key)


def test_only_pipeline_names_of_the_library_are_exempt() -> None:
    own = [
        v
        for v in vars(metric_definitions).values()
        if isinstance(v, str) and v.startswith("pipeline.")
    ]
    assert len(own) > 10
    assert not any(map(forbidden, own))
    assert forbidden("pipeline.customer.name")
    assert forbidden("Pipeline.Name")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("userID", "user_id"),
        ("APIKey", "api_key"),
        ("X-Api-Key", "x_api_key"),
        ("authToken", "auth_token"),
        ("HTTPServerURL", "http_server_url"),
        ("user.firstName", "user.first_name"),
        ("oauth2Token", "oauth2_token"),
        ("ÉtéChaud", "été_chaud"),
        ("ABC", "abc"),
        ("already_snake", "already_snake"),
    ],
)
def test_snake_case(key: str, expected: str) -> None:
    assert snake(key) == expected


# --- in every spelling ----------------------------------------------------------------------------

# of two letters at least: in "aB" and "AB" a word of one letter has no clear end
parts = st.lists(st.from_regex(r"[a-z]{2,6}", fullmatch=True), min_size=1, max_size=4)


def camel(words: list[str]) -> str:
    return words[0] + "".join(word.capitalize() for word in words[1:])


def acronym(words: list[str]) -> str:
    """Write the first word in capitals: `APIKey`."""
    return words[0].upper() + "".join(word.capitalize() for word in words[1:])


SPELLINGS: Final = {
    "snake": "_".join,
    "kebab": "-".join,
    "camel": camel,
    "Pascal": lambda words: "".join(word.capitalize() for word in words),
    "ACRONYMCase": acronym,
    "Train-Case": lambda words: "-".join(word.capitalize() for word in words),
    "SCREAMING": lambda words: "_".join(words).upper(),
}


@given(parts, st.sampled_from(sorted(SPELLINGS)))
def test_every_spelling_of_a_key_gives_one_snake_case(words: list[str], spelling: str) -> None:
    assert snake(SPELLINGS[spelling](words)) == "_".join(words)


def by_the_letter(plain: str) -> bool:
    """State the rule for a key in snake_case again, as a pattern."""
    words = "|".join(sorted(WORDS))
    secrets = "|".join(sorted(SECRETS))
    return bool(re.search(rf"(?:^|\.)(?:{words})\Z|_(?:{secrets})\Z", plain, re.DOTALL))


@given(
    st.lists(parts | st.sampled_from([word.split("_") for word in sorted(WORDS)]), min_size=1),
    st.sampled_from(sorted(SPELLINGS)),
)
def test_the_rule_in_every_spelling(segments: list[list[str]], spelling: str) -> None:
    """Segments between dots, each in any spelling."""
    plain = ".".join("_".join(words) for words in segments)
    key = ".".join(SPELLINGS[spelling](words) for words in segments)
    assert forbidden(key) == by_the_letter(plain)


@given(st.text(st.characters() | st.sampled_from("._-AZaz")).filter(lambda k: k not in OWN_KEYS))
def test_the_rule_for_any_text(key: str) -> None:
    """Except the library's own keys, which hypothesis finds among the constants of its source."""
    assert forbidden(key) == by_the_letter(snake(key))
    assert snake(key) == snake(key.replace("-", "_"))


@given(st.text(), st.sampled_from(sorted(WORDS)), st.booleans())
def test_a_word_after_a_dot_is_found(before: str, word: str, shout: bool) -> None:
    assert forbidden(f"{before}.{word.upper() if shout else word}")


@given(parts, st.sampled_from(sorted(SPELLINGS)), st.sampled_from(sorted(SPELLINGS)), parts)
def test_configured_words_are_forbidden_in_every_spelling(
    word: list[str], written: str, used: str, before: list[str]
) -> None:
    """In every spelling, in the configuration and in the key."""
    rules = Rules(WORDS | {snake(SPELLINGS[written](word))})
    assert rules.forbidden_word(SPELLINGS[used](word)) is not None
    assert rules.forbidden_word(f"{'_'.join(before)}.{SPELLINGS[used](word)}") is not None
