"""Values read from plain data that may lack them or have the wrong type."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics._core import lookup

DATA: dict[str, Any] = {
    "a": {"b": 2.5, "none": None},
    "whole": 3,
    "text": "x",
    "true": True,
    "nan": float("nan"),
    "inf": float("inf"),
    "list": ["p", 1, {"name": "q"}],
}


def test_a_path_ends_at_what_is_missing() -> None:
    assert lookup.get_path(DATA, "a", "b") == 2.5
    assert lookup.get_path(DATA) is DATA
    for path in (("a", "none"), ("a", "none", "deeper"), ("a", "b", "deeper"), ("no", "b")):
        assert lookup.get_path(DATA, *path) is None
    assert lookup.get_path(None, "a") is None


def test_only_finite_numbers_are_numbers() -> None:
    assert lookup.number(DATA, "a", "b") == 2.5
    assert lookup.number(DATA, "whole") == 3
    assert isinstance(lookup.number(DATA, "whole"), int)
    assert lookup.whole(DATA, "a", "b") == 2
    for key in ("text", "true", "nan", "inf", "list", "no"):
        assert lookup.number(DATA, key) is None
        assert lookup.whole(DATA, key) is None


def test_lists_keep_what_fits() -> None:
    assert lookup.get_strings(DATA, "list") == ["p", "1", "{'name': 'q'}"]
    assert lookup.entries(DATA, "list") == [{"name": "q"}]
    for data in (DATA["a"], {"list": None}, None):
        assert lookup.get_strings(data, "list") == lookup.entries(data, "list") == []


@pytest.mark.parametrize(
    ("part", "of", "expected"),
    [
        (1, 4, 0.25), (0, 4, 0.0), (1, 0, None), (0.0, 0.0, None), (None, 1, None), (1, None, None),
        (1e308, 1e-10, None),
    ],
)  # fmt: skip
def test_a_ratio_is_finite_or_unknown(
    part: float | None, of: float | None, expected: float | None
) -> None:
    assert lookup.ratio(part, of) == expected


def test_a_ratio_of_an_integer_without_a_float_is_unknown() -> None:
    assert lookup.ratio(10**400, 0.5) is None
    assert lookup.ratio(10**400, 2 * 10**400) == 0.5
