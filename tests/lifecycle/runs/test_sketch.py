"""Test the sketch of durations: bounded, without losing a value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from otel_pipeline_metrics._core import quantile_sketch
from otel_pipeline_metrics._core.quantile_sketch import Sketch

GAMMA = 1.01 / 0.99


def values(*buckets: int) -> list[float]:
    """Return a value from the middle of each bucket, sorted."""
    return [GAMMA ** (index - 0.5) for index in sorted(buckets)]


def sketch(*buckets: int) -> Sketch:
    made = Sketch()
    made.add_sorted(values(*buckets))
    return made


def buckets(of: Sketch) -> object:
    return of.to_dict()["buckets"]


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow at most four buckets."""
    monkeypatch.setattr(quantile_sketch, "MAX_BUCKETS", 4)


def test_the_maximum_number_of_buckets_is_kept(four: None) -> None:
    assert buckets(sketch(-1, 0, 3, 7)) == {"-1": 1, "0": 1, "3": 1, "7": 1}


def test_beyond_the_maximum_the_lowest_buckets_become_one(four: None) -> None:
    assert buckets(sketch(-1, -1, -1, 0, 0, 3, 3, 7, 8, 9)) == {"3": 7, "7": 1, "8": 1, "9": 1}


def test_merged_sketches_are_bounded_too(four: None) -> None:
    made = sketch(1, 1, 2, 3)
    made.merge(sketch(1, 4))
    assert buckets(made) == {"1": 3, "2": 1, "3": 1, "4": 1}
    made.merge(sketch(2, 5, 5))
    assert buckets(made) == {"2": 5, "3": 1, "4": 1, "5": 2}
    assert made.quantile(0) == pytest.approx(GAMMA**2, rel=quantile_sketch.REL_ERROR)
    assert made.quantile(1) == pytest.approx(GAMMA**5, rel=quantile_sketch.REL_ERROR)


def test_the_buckets_span_a_nanosecond_to_thirty_years() -> None:
    """Every power of gamma between has a bucket; with one more, the lowest two share."""
    from_to = range(-1035, 1013)
    assert GAMMA ** from_to[0] == pytest.approx(1e-9, rel=0.05)
    assert GAMMA ** from_to[-1] > 18 * 365 * 86400
    made = sketch(*from_to)
    assert buckets(made) == {str(index): 1 for index in from_to}
    made.merge(sketch(from_to.stop))
    assert buckets(made) == {"-1034": 2} | {str(index): 1 for index in range(-1033, 1014)}


def test_counts_add_up() -> None:
    made = sketch(1, 1, 5)
    made.add_sorted(values(1, 5, 5))
    assert buckets(made) == {"1": 3, "5": 3}
    made.merge(sketch(1, 6))
    assert buckets(made) == {"1": 4, "5": 3, "6": 1}


class Looked(list[float]):
    """Values that may be read a thousand times."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        assert self.looks <= 1000
        return super().__getitem__(index)


def test_a_value_that_rounding_puts_beside_its_bucket_is_counted() -> None:
    """The logarithm chooses a bucket whose bound, a power, is one last digit too low."""
    edges = [math.nextafter(GAMMA**index, math.inf) for index in range(1, 200)]
    made = Sketch()
    for edge in edges:
        made.add_sorted(Looked([edge]))
    assert sum(buckets(made).values()) == len(edges)  # type: ignore[attr-defined]


def test_a_nanosecond_or_less_counts_as_zero(four: None) -> None:
    made = Sketch()
    made.add_sorted([0.0, 1e-9, 1.0000001e-9])
    made.add_sorted([0.0])
    assert made.to_dict()["zeros"] == 3
    assert list(made.to_dict()["buckets"].values()) == [1]  # type: ignore[attr-defined]
    other = Sketch()
    other.merge(made)
    assert other.to_dict() == made.to_dict()


def test_quantiles_take_the_rank_below() -> None:
    """The rank is floor(q (n - 1)): of two values the median is the lower one."""
    made = Sketch()
    assert made.quantile(0.5) is None
    made.add_sorted([0.0, 1.0, 2.0, 4.0])
    found = [made.quantile(q) for q in (0, 0.33, 0.34, 0.66, 0.67, 0.99, 1)]
    assert found == [0.0, 0.0, *[pytest.approx(v, rel=0.01) for v in (1, 1, 2, 2, 4)]]


def test_the_error_of_a_quantile_is_at_most_one_per_cent() -> None:
    """At both ends of a bucket it is one per cent."""
    for value in (GAMMA**10 * 1.0000001, GAMMA**11 * 0.9999999):
        made = Sketch()
        made.add_sorted([value])
        found = made.quantile(0.5)
        assert found is not None
        assert abs(found / value - 1) == pytest.approx(0.01, rel=1e-3)


def test_a_sketch_survives_plain_data() -> None:
    made = sketch(-3, 2, 2, 40)
    made.add_sorted([0.0, 0.0])
    assert Sketch.from_dict(made.to_dict()).to_dict() == made.to_dict()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"buckets": {}, "rel_error": 0.01},
        {"zeros": 0, "rel_error": 0.01},
        {"buckets": {}, "zeros": 0, "rel_error": 0.02},
        {"buckets": [], "zeros": 0, "rel_error": 0.01},
    ],
)
def test_data_that_is_not_a_sketch_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Sketch.from_dict(data)


def test_joined_buckets_keep_the_error_that_they_tell() -> None:
    """Whether values were there before the buckets were joined, or are merged afterwards."""
    for index in range(-20, 20):
        before, after = sketch(*[index] * 9, *range(1000, 1200)), sketch(*range(1000, 1200))
        for made in (before, after):
            made.limit(60)
            assert len(made) <= 60
            assert made.rel_error == pytest.approx(0.04, abs=0.0001)
        after.merge(sketch(*[index] * 9))
        (value,) = values(index)
        for made in (before, after):
            again = Sketch.from_dict(made.to_dict())
            assert again.rel_error == made.rel_error
            assert again.quantile(0) == pytest.approx(value, rel=made.rel_error)
