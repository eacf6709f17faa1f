"""Test `counted_lru_cache` beside `functools.lru_cache`, whose interface it has."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
from typing import Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.caches.registry import read_all


@opm.counted_lru_cache(maxsize=4, name="at module level", what_if=True)
def doubled(number: int, *, plus: int = 0) -> int:
    """Double a number."""
    return 2 * number + plus


BOTH = pytest.mark.parametrize("what_if", [False, True])


@BOTH
def test_it_has_the_interface_of_lru_cache(what_if: bool) -> None:
    def square(number: int, by: int = 1) -> int:
        """Square a number."""
        return number * number * by

    ours: Any = opm.counted_lru_cache(maxsize=2, what_if=what_if)(square)
    theirs = functools.lru_cache(maxsize=2)(square)
    for number in (1, 2, 1, 3, 2, 2):
        assert ours(number) == theirs(number)
        assert ours(number, by=2) == theirs(number, by=2)
        assert ours.cache_info() == theirs.cache_info()
    assert ours.cache_parameters() == theirs.cache_parameters() == {"maxsize": 2, "typed": False}
    assert ours.__wrapped__ is square
    assert (ours.__name__, ours.__doc__) == ("square", "Square a number.")
    assert inspect.signature(ours) == inspect.signature(square)
    ours.cache_clear()
    assert ours.cache_info() == (0, 0, 2, 0)


@BOTH
def test_the_function_is_called_once_for_each_entry(what_if: bool) -> None:
    calls: list[object] = []
    ours = opm.counted_lru_cache(maxsize=8, typed=True, what_if=what_if)(
        lambda *args, **kwds: calls.append((args, kwds))
    )
    for _ in range(2):
        ours(1)
        ours(1.0)
        ours(1, key="a")
    assert calls == [((1,), {}), ((1.0,), {}), ((1,), {"key": "a"})]


def test_it_works_without_parentheses() -> None:
    @opm.counted_lru_cache
    def square(number: int) -> int:
        return number * number

    assert (square(3), square(3)) == (9, 9)
    assert square.cache_parameters()["maxsize"] == 128
    (reading,) = read_all()
    assert (reading.name, reading.hits, reading.misses, reading.entries) == ("square", 1, 1, 1)
    assert reading.what_if is None


def test_the_name_may_be_given() -> None:
    opm.counted_lru_cache(name="given")(len)("a")
    assert [reading.name for reading in read_all()] == ["given"]


@BOTH
def test_methods_are_cached_by_instance(what_if: bool) -> None:
    class Geo:
        @opm.counted_lru_cache(maxsize=4, what_if=what_if)
        def look_up(self, key: str) -> tuple[Geo, str]:
            return self, key

    one, other = Geo(), Geo()
    assert one.look_up("a") == (one, "a")
    assert other.look_up("a") == (other, "a")
    assert Geo.look_up.cache_info().misses == 2


@BOTH
def test_exceptions_are_the_functions_own_and_not_stored(what_if: bool) -> None:
    @opm.counted_lru_cache(maxsize=4, what_if=what_if)
    def fail(number: int) -> int:
        raise KeyError(number)

    for _ in range(2):
        with pytest.raises(KeyError, match="7"):
            fail(7)
    (reading,) = read_all()
    assert (reading.hits, reading.misses) == (0, 2)
    if what_if:
        assert reading.what_if == {"half": 0.0, "twice": 0.0, "four_times": 0.0}


@BOTH
def test_arguments_that_cannot_be_hashed_are_refused_as_by_lru_cache(what_if: bool) -> None:
    ours = opm.counted_lru_cache(maxsize=4, what_if=what_if)(len)
    with pytest.raises(TypeError, match="unhashable"):
        ours([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("maxsize", [None, 0, -1])
def test_without_a_size_the_ratios_are_unknown(maxsize: int | None) -> None:
    ours = opm.counted_lru_cache(maxsize, what_if=True)(abs)
    ours(1)
    assert read_all()[0].what_if is None
    assert ours.cache_parameters()["maxsize"] == (None if maxsize is None else 0)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"maxsize": "big"}, TypeError, "maxsize must be an integer or None, not str"),
        ({"maxsize": 1.5}, TypeError, "maxsize must be an integer or None, not float"),
        ({"typed": 1}, TypeError, "typed must be True or False"),
        ({"what_if": None}, TypeError, "what_if must be True or False"),
        ({"name": 7}, TypeError, "name must be a string"),
        ({"name": ""}, ValueError, "name must not be empty"),
    ],
)
def test_an_error_names_the_bad_argument(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=rf"^{says}"):
        opm.counted_lru_cache(**arguments)


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="decorates functions, not int"):
        opm.counted_lru_cache(4)(5)  # type: ignore[arg-type]


def test_totals_go_on_after_cache_clear() -> None:
    ours = opm.counted_lru_cache(maxsize=2, name="c", what_if=True)(abs)
    for _ in range(2):
        for number in (1, 2, 3, 1):  # at twice the size, the second 1 is found
            ours(number)
        (reading,) = read_all()
        assert reading.what_if == {"half": 0.0, "twice": 0.25, "four_times": 0.25}
        ours.cache_clear()
    assert (reading.hits, reading.misses) == (0, 8)


def test_a_run_has_the_ratios_of_its_own_look_ups() -> None:
    ours = opm.counted_lru_cache(maxsize=2, name="c", what_if=True)(abs)
    for number in (1, 1, 1, 1):
        ours(number)
    with opm.run("r", resources=False) as run:
        for number in (1, 2, 3, 1):
            ours(number)
    (row,) = run.report.caches
    assert (row["hits"], row["misses"]) == (1, 3)
    assert row["what_if"] == {"half": 0.25, "twice": 0.5, "four_times": 0.5}


def test_it_is_pickled_and_copied_by_name() -> None:
    assert pickle.loads(pickle.dumps(doubled)) is doubled  # noqa: S301
    assert copy.deepcopy(doubled) is doubled
    assert doubled(2, plus=1) == 5


def test_counts_of_threads_add_up() -> None:
    ours = opm.counted_lru_cache(maxsize=16, name="c", what_if=True)(abs)

    def work() -> None:
        for number in range(4_000):
            ours(number % 32)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    totals = []
    while any(thread.is_alive() for thread in threads):
        (reading,) = read_all()
        totals.append((reading.hits + reading.misses, reading.reuse))
    for thread in threads:
        thread.join()
    (reading,) = read_all()
    assert reading.hits + reading.misses == 16_000
    assert [total for total, _ in totals] == sorted(total for total, _ in totals)
    assert reading.what_if is not None
    assert reading.what_if["twice"] == pytest.approx(1 - 32 / 16_000, abs=0.01)
