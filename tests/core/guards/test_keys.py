"""Test which keys are forbidden, in every spelling."""

from __future__ import annotations

import importlib
import pkgutil
import re
import unicodedata
from typing import Final

import opentelemetry.semconv._incubating.attributes as newest
import opentelemetry.semconv.attributes as stable
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._core.attribute_keys import LAST, PERSONAL, SECRETS, normal, snake
from otel_pipeline_metrics._core.privacy import Rules
from otel_pipeline_metrics._core.semantic_keys import OF_OPENTELEMETRY

RULES: Final = Rules()


def forbidden(key: str) -> bool:
    return RULES.reason_against(key) is not None


@pytest.mark.parametrize(
    "key",
    [
        "email", "Email", "EMAIL", "user.email", "user.Email", "name", "orders.name",
        "userID", "userId", "user-id", "User-Id", "USER_ID", "userid", "enduser.userId",
        "APIKey", "apiKey", "api-key", "X-Api-Key", "x_api_key", "http.header.X-API-Key",
        "api key", "apikey", "APIKEY", "a.p.i.key", "openaiapikey", "openAIAPIKey", "api_keys",
        "authToken", "auth-token", "auth_token", "AUTH_TOKEN", "oauth2Token", "aws.secret",
        "HTTPSecret", "dbPassword", "dbpassword", "db.connection_password", "passwords", "secret_",
        "password2", "password_hash", "token_value", "cookie", "Set-Cookie", "sessionCookie",
        "authorization", "Proxy-Authorization", "authorizationHeader", "passwd", "private_key",
        "privateKey", "sessionID", "a.b.client-id", "_token", ".key", "\u00e9t\u00e9.name",
        "motDePasse.TOKEN", "mot de passe", "ssn", "customer.ssn", "phone", "homePhone",
        "phone_number", "t\u00e9l\u00e9phone", "user_email", "userEmail", "user email",
        "customer_email", "customer e-mail", "old_user_id", "first_name", "lastName",
        "customer.name", "dateOfBirth", "credit-card", "email_hash", "\u212aey", "api_\u212aey",
    ],
)  # fmt: skip
def test_a_forbidden_key(key: str) -> None:
    assert forbidden(key)


@pytest.mark.parametrize(
    "key",
    [
        " password ", "pass\u200bword", "pass\u00adword", "\ufeffpassword", "password\u2060",
        "pass\ufe0fword", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "p\u0332assword",
        "p\u00e4ssword", "\U0001d429assword", "PASS\u2010WORD", "api\u00a0key", "user\uff0eid",
        "api\u2014key",
    ],
)  # fmt: skip
def test_a_disguised_key(key: str) -> None:
    assert forbidden(key)


@pytest.mark.parametrize(
    "key", ["p\u0430ssword", "user\u0415mail", "\u0437\u0430\u043a\u0430\u0437.count", "t\u03bfken"]
)
def test_letters_of_mixed_scripts_are_forbidden(key: str) -> None:
    assert "more than one script" in (RULES.reason_against(key) or "")


@pytest.mark.parametrize(
    "key",
    [
        "\u4ef6\u6570",
        "\u30c7\u30fc\u30bf\u540d",
        "\u0437\u0430\u043a\u0430\u0437",
        "latency_\u00b5s",
    ],
)
def test_letters_of_one_script_pass(key: str) -> None:
    assert not forbidden(key)


@pytest.mark.parametrize(
    "key",
    [
        "cache_key_count", "row_name_length", "cacheKeyCount", "file_name", "fileName",
        "table_name", "cache_key", "primaryKey", "namespace", "keys", "tokens", "input_tokens",
        "photo_ken", "tokenizer", "secretary", "name.first", "email.domain", "microphone",
        "voicemail", "token_count", "tenant", "", ".", "-", "_", "A", "\u00e9clair",
        "user_count", "users", "session_count", "db_query_seconds", "user_agent.original",
        "url.path", "url.template", "pipeline.name", "pipeline.stage.name",
        "pipeline.queue.name", "value", "hash",
    ],
)  # fmt: skip
def test_an_allowed_key(key: str) -> None:
    assert not forbidden(key)


# --- OpenTelemetry's own keys ---------------------------------------------------------------------

# Named by the issue, and the former names of the same.
NEED_PERMISSION: Final = re.compile(
    r"(user|enduser|session|db\.query)\..*|http\.[^.]+\.header\..*|client\.address|url\.(full|query)"
    r"|http\.(url|target|client_ip)|db\.statement"
)


def of_the_conventions() -> set[str]:
    """Return the keys of the installed `opentelemetry-semantic-conventions`."""
    found: set[str] = set()
    for package in (newest, stable):
        for module in pkgutil.iter_modules(package.__path__):
            names = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
            found |= {
                value
                for name, value in names.items()
                if name.isupper() and isinstance(value, str) and "." in value
            }
    return found


def test_opentelemetrys_own_keys_pass_but_those_about_persons() -> None:
    keys = of_the_conventions()
    assert len(keys) > 500
    assert {key for key in keys if forbidden(key)} == {
        key for key in keys if NEED_PERMISSION.fullmatch(key)
    }


def test_the_list_holds_only_what_would_be_forbidden_without_it() -> None:
    found = of_the_conventions()
    if "mcp.session.id" not in found:
        pytest.skip("an older version of the conventions lacks some of the keys")
    assert found >= OF_OPENTELEMETRY
    for key in OF_OPENTELEMETRY:
        assert forbidden(f"my.{key}"), key


@pytest.mark.parametrize(
    "key",
    [
        "user.id", "user.anything", "User.Hash", "user_hash", "userRoles", "enduser.id",
        "session.id", "sessionPreviousId", "client.address", "clientAddress", "client-address",
        "http.request.header.content-type", "http.response.header.x", "http_request_header_x",
        "db.query.text", "db.query.parameter.id", "dbQueryText", "url.full", "url_full", "urlQuery",
        "http.url", "http.target", "http.client_ip", "db.statement", "user. id",
    ],
)  # fmt: skip
def test_a_key_that_needs_permission(key: str) -> None:
    assert "needs allowed_keys" in (RULES.reason_against(key) or "")
    assert Rules(allowed=frozenset({key})).reason_against(key) is None
    assert Rules(allowed=frozenset({f"{key}x"})).reason_against(key) is not None


def test_a_users_word_forbids_a_key_of_the_conventions() -> None:
    assert not forbidden("messaging.destination.name")
    rules = Rules(words=frozenset({normal("messaging.destination.name")}))
    assert rules.reason_against("messaging.destination.name") is not None
    assert rules.reason_against("messagingDestinationName") is not None
    assert rules.reason_against("file.name") is None


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


# --- in every spelling ----------------------------------------------------------------------------


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
        ("\u00c9t\u00e9Chaud", "\u00e9t\u00e9_chaud"),
        ("ABC", "abc"),
        ("already_snake", "already_snake"),
    ],
)
def test_snake_case(key: str, expected: str) -> None:
    assert snake(key) == expected
    assert normal(key) == expected


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
    "spaces": " ".join,
    "camel": camel,
    "Pascal": lambda words: "".join(word.capitalize() for word in words),
    "ACRONYMCase": acronym,
    "Train-Case": lambda words: "-".join(word.capitalize() for word in words),
    "SCREAMING": lambda words: "_".join(words).upper(),
}
spellings = st.sampled_from(sorted(SPELLINGS))


@given(parts, spellings)
def test_every_spelling_of_a_key_gives_one_snake_case(words: list[str], spelling: str) -> None:
    assert normal(SPELLINGS[spelling](words)) == "_".join(words)


@given(parts, st.sampled_from(sorted(PERSONAL | SECRETS)), spellings, st.sampled_from("._- "))
def test_a_word_is_found_at_the_end_in_every_spelling(
    before: list[str], word: str, spelling: str, separator: str
) -> None:
    key = SPELLINGS[spelling](before) + separator + SPELLINGS[spelling](word.split("_"))
    assert forbidden(key)
    assert forbidden(SPELLINGS[spelling]([*before, *word.split("_")]))
    assert forbidden(word.replace("_", ""))


@given(st.text(), st.sampled_from(sorted(PERSONAL | SECRETS | LAST)), st.booleans())
def test_a_word_after_a_dot_is_found(before: str, word: str, shout: bool) -> None:
    assert forbidden(f"{before}.{word.upper() if shout else word}") or before.endswith(".")


HIDDEN: Final = st.characters(categories=["Cf"])


@given(st.sampled_from(sorted(PERSONAL | SECRETS)), st.data())
def test_what_is_not_seen_hides_nothing(word: str, data: st.DataObject) -> None:
    """Format characters in between, full width, spaces around."""
    places = [data.draw(st.just("") | HIDDEN) for _ in word]
    key = "".join(
        hidden + (chr(ord(letter) + 0xFEE0) if data.draw(st.booleans()) else letter)
        for hidden, letter in zip(places, word, strict=True)
    )
    assert forbidden(f" {key}\u3000")


@given(st.text(st.characters() | st.sampled_from("._-AZaz")))
def test_a_normal_key_is_normal(key: str) -> None:
    plain = normal(key)
    assert normal(plain) == plain
    assert plain == plain.strip(" ._")
    assert not any(unicodedata.category(letter) == "Cf" for letter in plain)
    RULES.reason_against(key)  # never raises


@given(parts, spellings, spellings, parts)
def test_configured_words_are_forbidden_in_every_spelling(
    word: list[str], written: str, used: str, before: list[str]
) -> None:
    """In every spelling, in the configuration and in the key."""
    rules = Rules(words=frozenset({normal(SPELLINGS[written](word))}))
    assert rules.reason_against(SPELLINGS[used](word)) is not None
    assert rules.reason_against(f"{'_'.join(before)}.{SPELLINGS[used](word)}") is not None
