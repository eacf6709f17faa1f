"""Tell which attribute keys may identify a person or reveal a secret, in any spelling."""

from __future__ import annotations

import unicodedata
from typing import Final

from otel_pipeline_metrics._core.semantic_keys import NEED_PERMISSION, OF_OPENTELEMETRY

# Forbidden as a whole key and after the last dot of one: `row_name` and `cache_key` say nothing.
LAST: Final = frozenset({"name", "key"})

# These and the next ones are forbidden at the end of a key too, after any separator or none.
SECRETS: Final = frozenset(
    """
    password passwd pwd passphrase passcode mot_de_passe token secret credential cookie
    authorization bearer basic_auth jwt api_key private_key secret_key access_key auth_key
    account_key encryption_key signing_key shared_key master_key ssh_key
    """.split()  # noqa: SIM905 - words are read and sorted more easily so
)

PERSONAL: Final = frozenset(
    """
    email mail_address email_address courriel phone phone_number telephone telephone_number
    mobile_number msisdn username user_name user_id client_id session_id
    first_name last_name full_name given_name family_name middle_name maiden_name nickname surname
    customer_name patient_name employee_name person_name contact_name cardholder_name
    prenom nom_de_famille
    ssn social_security_number social_insurance_number assurance_sociale national_id passport
    passport_number driver_license driver_license_number drivers_license
    date_of_birth birth_date birthdate birthday dob date_de_naissance
    credit_card credit_card_number card_number cvv iban bank_account bank_account_number
    home_address street_address postal_address mailing_address
    client_ip user_ip remote_addr forwarded_for
    """.split()  # noqa: SIM905 - words are read and sorted more easily so
)

# What may follow such a word: a hashed email identifies as well as the email.
_QUALIFIERS: Final = frozenset(
    {"value", "hash", "hashed", "header", "raw", "plain", "plaintext", "encrypted"}
)

_JOINED: Final = {word.replace("_", ""): word for word in (*PERSONAL, *SECRETS)}
# Unmistakable within a word too: `dbpassword`, `OPENAIAPIKEY`. The second ones are of two words.
_ENDINGS: Final = ("password", "passwd", "passphrase", "secret", "token", "cookie")
_COMPOUND: Final = ("apikey", "privatekey", "secretkey", "accesskey", "authorization", "username")

# Scripts that one language mixes.
_EAST_ASIAN: Final = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO"}
)
# Not of one script: accents, and letters that modify others.
_COMMON: Final = frozenset({"", "COMBINING", "MODIFIER", "IDEOGRAPHIC"})
_MU: Final = "\u03bc"  # `latency_µs`
# Shown as nothing, though they are no format characters: joiners, fillers, variation selectors.
_INVISIBLE: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
    + "".join(map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


def snake(key: str) -> str:
    """Return `key` in lower-case snake_case: `userID` and `user-id` become `user_id`.

    A run of capitals is one word, without its last letter if a small one follows. Dots stay; any
    other character that is neither letter nor digit becomes an underscore.
    """
    made = []
    for place, letter in enumerate(key):
        if place and letter.isupper():
            before, after = key[place - 1], key[place + 1 : place + 2]
            inside = before.islower() or before.isdigit() or (before.isupper() and after.islower())
            made.append("_" if inside else "")
        made.append(letter if letter == "." or _is_of_word(letter) else "_")
    return "".join(made).casefold()


def _is_of_word(letter: str) -> bool:
    return letter.isalnum() or unicodedata.category(letter).startswith("M")


def normal(key: str) -> str:
    """Return a key as it is compared: NFKC, trimmed, in snake_case, its dots kept."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", key) if not _is_hidden(c))
    folded = unicodedata.normalize("NFKC", snake(shown))
    segments = ("_".join(filter(None, part.split("_"))) for part in folded.split("."))
    return ".".join(filter(None, segments))


def _is_hidden(letter: str) -> bool:
    return letter in _INVISIBLE or unicodedata.category(letter) == "Cf"


def reason_against(key: str, *, spared: frozenset[str] = frozenset()) -> str | None:
    """Return why a key is forbidden, as the end of a sentence; None if it may be used.

    Args:
        key: any text.
        spared: words of `LAST` that it may end in, but not be.
    """
    if key.isascii() and key in OF_OPENTELEMETRY:
        return None
    plain = normal(key)
    if plain in OF_OPENTELEMETRY:
        return None
    for name, matches in NEED_PERMISSION.items():
        if matches(plain):
            return f"one of {name!r} needs allowed_keys"
    word = _word_at_end(_tokens(plain))
    last = plain.rpartition(".")[2]
    if word is None and last in LAST and not (last in spared and last != plain):
        word = last
    if word is not None:
        return f"it is or ends in {word!r}"
    return "its letters are of more than one script" if is_mixed(key) else None


def secret_in(key: str) -> str | None:
    """Return the secret that a key names, such as "api_key"; None if there is none."""
    word = _word_at_end(_tokens(normal(key)))
    return word if word in SECRETS else None


def reason_to_keep_out(key: str) -> str | None:
    """Return why not even `allowed_keys` lets a key through; None if it does."""
    word = secret_in(key)
    if word is not None:
        return f"it is or ends in {word!r}"
    # it may look like another word
    return "its letters are of more than one script" if is_mixed(key) else None


def _word_at_end(tokens: list[str]) -> str | None:
    """Return the forbidden word at the end of a key, however it is split into parts."""
    joined = ""
    for token in reversed(tokens):
        joined = token + joined
        word = _JOINED.get(joined) or _JOINED.get(_singular(joined))
        if word is not None:
            return word
    last = _singular(tokens[-1]) if tokens else ""
    whole = _singular(joined)
    for ending in (*(e for e in _ENDINGS if last.endswith(e)), *filter(whole.endswith, _COMPOUND)):
        return _JOINED[ending]
    return None


def _singular(word: str) -> str:
    # who works with language models counts `tokens`
    return word if word.endswith("tokens") else word.removesuffix("s")


def _tokens(plain: str) -> list[str]:
    """Return the words of a key without accents, numbers and qualifiers at its end."""
    bare = "".join(
        c for c in unicodedata.normalize("NFKD", plain) if unicodedata.category(c) != "Mn"
    )
    tokens = bare.replace(".", "_").split("_")
    while tokens:
        tokens[-1] = tokens[-1].rstrip("0123456789")
        if tokens[-1] and not (tokens[-1] in _QUALIFIERS and len(tokens) > 1):
            break
        tokens.pop()
    return tokens


def is_mixed(key: str) -> bool:
    """Tell whether the letters of a key are of more than one script: `p\u0430ssword`."""
    if key.isascii():
        return False
    letters = (c for c in unicodedata.normalize("NFKC", key) if c.isalpha() and c != _MU)
    return len({_script(letter) for letter in letters} - _COMMON) > 1


def _script(letter: str) -> str:
    script = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if script in _EAST_ASIAN else script
