"""Values that an encoder would refuse are changed where they come in, and said once."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_key_value

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.cleaning import MAX_INT, clean_int, clean_text, plain
from otel_pipeline_metrics._core.privacy import Rules, activate, message_of
from otel_pipeline_metrics._core.records import qualified_name
from otel_pipeline_metrics._core.validation import (
    check_attribute,
    check_attributes,
    check_count,
    check_name,
    check_number,
    check_whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# the name that os.listdir gives for the Latin-1 bytes of "café"
LATIN = "caf\udce9"
CLEAN = r"caf\udce9"
HUGE = 10**400

_text = st.text(st.characters(), max_size=20)
_scalars = st.one_of(_text, st.booleans(), st.integers(), st.floats())
attribute_values = st.one_of(
    _scalars, st.lists(_scalars, max_size=5), st.lists(_scalars, max_size=5).map(tuple)
)


@given(_text.filter(bool), attribute_values)
def test_every_attribute_becomes_one_that_otlp_carries(key: str, value: Any) -> None:
    cleaned_key, cleaned = check_attribute(key, value, "attributes")
    pair = _encode_key_value(cleaned_key, cleaned)
    assert pair.SerializeToString()
    if isinstance(value, (list, tuple)):
        assert len(cleaned) == len(value)  # type: ignore[arg-type]
        kinds = {each.WhichOneof("value") for each in pair.value.array_value.values}
        assert len(kinds) <= 1


@given(attribute_values)
def test_what_otlp_carries_already_is_not_changed(value: Any) -> None:
    _, cleaned = check_attribute("k", value, "attributes")
    again = check_attribute("k", cleaned, "attributes")[1]
    assert repr(again) == repr(cleaned)


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (LATIN, CLEAN),
        ("café 日本 \N{PILE OF POO} \x00", "café 日本 \N{PILE OF POO} \x00"),
        (2**63 - 1, 2**63 - 1),
        (2**63, MAX_INT),
        (-(2**64), -MAX_INT),
        (HUGE, MAX_INT),
        ([1, 2.5], [1.0, 2.5]),
        ([1, HUGE], [1, MAX_INT]),
        ((1, "a", True), ("1", "a", "True")),
        ([True, 0], ["True", "0"]),
        ([LATIN], [CLEAN]),
    ],
)
def test_attributes_are_cleaned(value: object, cleaned: object) -> None:
    found = check_attributes({LATIN: value})
    assert found == {CLEAN: cleaned}
    assert type(found[CLEAN]) is type(cleaned)


def test_names_messages_and_types_become_valid_unicode() -> None:
    assert check_name(LATIN, "name") == CLEAN
    error = type("E", (Exception,), {"__module__": "m\udc80", "__qualname__": "Caf\udce9Error"})
    assert qualified_name(error) == r"m\udc80.Caf\udce9Error"
    activate(Rules(error_messages=True))
    try:
        assert message_of(ValueError(LATIN)) == CLEAN
    finally:
        activate(Rules())


def test_each_kind_is_said_once(said: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        clean_text(LATIN)
        clean_int(HUGE, "n")
        check_attribute("k", [1, "a"], "attributes")
    assert len(said.messages) == 3
    assert r"'caf\udce9' is not valid Unicode" in said.messages[0]
    assert all(message.isascii() for message in said.messages)


@pytest.mark.parametrize("check", [check_count, check_whole])
@pytest.mark.parametrize(
    "given", [2**63, 2**64 - 1, HUGE, 10**5000], ids=["2**63", "2**64-1", "HUGE", "5000 digits"]
)
def test_counts_beyond_64_bits_become_the_largest(
    check: Callable[[Any, str], int], given: int
) -> None:
    assert check(given, "n") == MAX_INT
    with pytest.raises(ValueError, match="n must not be negative"):
        check(-given, "n")


def test_whole_numbers_keep_their_last_digit() -> None:
    # 2**53 + 1 has no float
    assert check_whole(2**53 + 1, "n") == 2**53 + 1
    assert check_whole(3.0, "n") == 3
    assert check_whole(1e300, "n") == MAX_INT
    for wrong in (1.5, Fraction(1, 3), math.inf, math.nan):
        with pytest.raises(ValueError, match="n must be"):
            check_whole(wrong, "n")
    for kind in (True, "1", None):
        with pytest.raises(TypeError, match="n must be a number"):
            check_whole(kind, "n")


@pytest.mark.parametrize("given", [HUGE, Fraction(HUGE), 1e308])
def test_numbers_beyond_64_bits_become_the_largest(given: Any) -> None:
    assert check_number(given, "duration_s") == float(MAX_INT)
    with pytest.raises(ValueError, match="must not be negative"):
        check_number(-given, "duration_s")


_data = st.recursive(
    st.one_of(st.none(), _scalars),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(_text, inner)),
    max_leaves=20,
)


@given(_data)
def test_plain_data_is_strict_json(data: Any) -> None:
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False)
    assert text.encode()
    assert plain(plain(data)) == plain(data)


def test_a_number_that_is_not_finite_is_unknown() -> None:
    data = {"a": [math.inf, (-math.inf, math.nan)], LATIN: True, "n": HUGE}
    assert plain(data) == {"a": [None, [None, None]], CLEAN: True, "n": MAX_INT}


def raises(*_: object, **__: object) -> Any:
    raise SystemExit("a method of the program's class")


def own_class(kind: type) -> Any:
    """Return a class of which every method raises, and that still is a `kind`."""
    spared = {
        "__class__", "__dict__", "__getattribute__", "__new__", "__init__", "__init_subclass__",
        "__setattr__", "__delattr__", "__del__", "__doc__", "__class_getitem__", "__getnewargs__",
    }  # fmt: skip
    return type("Own", (kind,), dict.fromkeys(set(dir(kind)) - spared, raises))


@pytest.mark.parametrize("value", ["a", 7, 1.5, [1, 2], (1, 2)], ids=str)
def test_values_of_the_programs_classes_are_read_as_what_they_are(value: Any) -> None:
    own = own_class(type(value))(value)
    (cleaned,) = check_attributes({"a": own}).values()
    assert (type(cleaned), cleaned) == (type(value), value)
    (cleaned,) = check_attributes({"a": [own]} if isinstance(value, str) else {"a": own}).values()
    assert cleaned in (value, [value])


@pytest.mark.parametrize("kind", [int, float])
def test_numbers_of_the_programs_classes_are_read_as_what_they_are(kind: type) -> None:
    own = own_class(kind)(7)
    assert check_number(own, "n") == check_whole(own, "n") == 7
    with opm.run("r", resources=False) as run, opm.stage("s") as stage:
        stage.event_time(own)
        if kind is int:
            stage.add_items(own)
            stage.add_bytes(own)
    (found,) = run.report.stages
    assert found["items"]["out"] == (7 if kind is int else None)
