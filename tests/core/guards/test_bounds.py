"""Test the limits of attributes, messages and names: the last allowed one and one more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._core import cardinality, errors, privacy
from otel_pipeline_metrics._core.cardinality import Distinct
from otel_pipeline_metrics._core.counter import Counter
from otel_pipeline_metrics._core.privacy import MAX_MESSAGE, Rules
from otel_pipeline_metrics._core.validation import check_attribute, check_name
from tests.stages.support import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def restore_guards(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Leave no known key, dropped attribute or limit to other tests."""
    caplog.set_level(logging.WARNING)
    yield
    privacy.activate(Rules())
    privacy.dropped_before()
    cardinality.limit(cardinality.DEFAULT_MAX_VALUES)
    errors.reset()


def test_a_message_is_cut_above_1000_characters() -> None:
    before = privacy.cut_messages.value()
    assert MAX_MESSAGE == 1000
    assert privacy.sanitized_message(ValueError("x" * 1000)) == "x" * 1000
    assert privacy.cut_messages.value() == before
    assert privacy.sanitized_message(ValueError("x" * 1001)) == "x" * 999 + "…"
    assert privacy.cut_messages.value() == before + 1


def test_a_message_is_marked_as_cut_though_little_of_it_is_left() -> None:
    """Credentials of 1,500 characters are removed, and the message still shows that it was cut."""
    before = privacy.cut_messages.value()
    assert privacy.sanitized_message(ValueError(f"http://{'u' * 1500}@host x")) == "http://host x…"
    assert privacy.cut_messages.value() == before + 1


def test_a_message_is_read_up_to_twice_the_limit() -> None:
    """A message of 2,000 characters is read whole, and gets no @ at its end."""
    short = "http://" + "h" * 1993
    assert privacy.sanitized_message(ValueError(short)) == short[:999] + "…"
    assert privacy.sanitized_message(ValueError(short + "h")) == "http://…"


def test_1000_keys_are_remembered() -> None:
    privacy.activate(Rules())
    for n in range(1000):
        assert privacy.is_allowed(f"key{n}")
    assert len(privacy._known_keys) == 1000
    assert privacy.is_allowed("key0")
    assert len(privacy._known_keys) == 1000
    assert not privacy.is_allowed("email")
    assert privacy._known_keys == {"email": "it is or ends in 'email'"}
    assert not privacy.is_allowed("email")


def test_new_rules_apply_to_known_keys() -> None:
    assert privacy.is_allowed("colour")
    privacy.activate(Rules(frozenset({"colour"})))
    assert not privacy.is_allowed("colour")


def test_100_dropped_attributes_of_definitions_are_remembered() -> None:
    for n in range(101):
        kept = privacy.drop_forbidden_at_definition({f"a{n}.email": 1, "fine": 2}, "stage 's'")
        assert kept == {"fine": 2}
    assert privacy.dropped_before() == [("stage 's'", f"a{n}.email") for n in range(100)]
    assert privacy.dropped_before() == []


def test_spared_words_are_allowed_after_a_dot_only() -> None:
    spared = frozenset({"name"})
    given = {"rack.name": 1, "name": 2, "host.email": 3}
    assert privacy.drop_forbidden(given, "resource", spared) == {"rack.name": 1}
    assert privacy.drop_forbidden(given, "resource") == {}


def test_a_name_has_1_to_128_characters() -> None:
    assert check_name("x" * 128, "name") == "x" * 128
    for refused in ("x" * 129, "", " \t"):
        with pytest.raises(ValueError, match="name must"):
            check_name(refused, "name")


@pytest.mark.parametrize("value", ["", True, 0, 0.0, [], [1, 2], ("a",), [1.5]])
def test_values_that_are_attributes(value: object) -> None:
    assert check_attribute("k", value, "attributes") == ("k", value)


@pytest.mark.parametrize("value", [None, {}, {"a"}, b"x", [None], [1, None], [[1]], 1j])
def test_values_that_are_no_attributes(value: object) -> None:
    with pytest.raises(TypeError):
        check_attribute("k", value, "attributes")


def test_the_201st_value_of_a_key_becomes_other() -> None:
    distinct, before = Distinct(), cardinality.others.value()
    assert [distinct.limit("k", n) for n in range(201)] == [*range(200), "_OTHER"]
    assert cardinality.others.value() == before + 1
    # known values stay; `_OTHER` itself takes no room and is not counted
    assert (distinct.limit("k", 199), distinct.limit("k", "_OTHER")) == (199, "_OTHER")
    assert distinct.limit("k", 200, again=True) == "_OTHER"
    assert distinct.limit("another", 200) == 200
    assert cardinality.others.value() == before + 1


def test_other_takes_no_room() -> None:
    distinct = Distinct(2)
    found = [distinct.limit("k", value) for value in ("_OTHER", "a", "b", "c")]
    assert found == ["_OTHER", "a", "b", "_OTHER"]


def test_a_limit_of_its_own_wins_over_the_common_one() -> None:
    cardinality.limit(1)
    own, common = Distinct(2), Distinct()
    assert [own.limit("k", n) for n in range(3)] == [0, 1, "_OTHER"]
    assert [common.limit("k", n) for n in range(3)] == [0, "_OTHER", "_OTHER"]
    assert cardinality.instrument_names._most == 2000


def test_the_default_limits(tmp_path: Path) -> None:
    text = (
        "from otel_pipeline_metrics._core import cardinality as c\n"
        "print(c.instrument_names._most, c.max_values)"
    )
    assert run_script(text, tmp_path / "program.py").stdout == "2000 200\n"


def test_a_known_key_needs_no_room() -> None:
    cardinality.limit(2)
    found = {"a": 1, "b": 2}
    assert [cardinality.key_in(found, key, "things") for key in "abc"] == ["a", "b", "_OTHER"]
    del found["b"]
    assert cardinality.key_in(found, "c", "things") == "c"


def test_reading_a_counter_does_not_raise_it() -> None:
    tally = Counter()
    tally.add()
    assert [tally.value() for _ in range(3)] == [1, 1, 1]
    tally.add()
    tally.add()
    assert [tally.value() for _ in range(2)] == [3, 3]
    tally.reset()
    assert tally.value() == 0


def test_1000_different_warnings_are_logged_and_one_last(caplog: pytest.LogCaptureFixture) -> None:
    errors.reset()
    for n in range(1003):
        errors.warn_once(f"key {n}", "warning %d", n)
        errors.warn_once(f"key {n}", "again")
    said = [record.getMessage() for record in caplog.records]
    assert said[:1000] == [f"warning {n}" for n in range(1000)]
    assert said[1000:] == ["1000 different warnings were logged; no more follow"]
