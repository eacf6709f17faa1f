"""The one format of each quantity, to the letter."""

from __future__ import annotations

import pytest

from otel_pipeline_metrics._core import text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"), (0, "0 s"), (0.0, "0 s"), (1e-9, "1 ns"), (812e-9, "812 ns"),
        (9.99e-7, "999 ns"), (1e-6, "1.00 µs"), (4.2e-6, "4.20 µs"), (99.9e-6, "99.9 µs"),
        (100e-6, "100 µs"), (0.00042, "420 µs"), (0.001, "1.00 ms"), (0.0032, "3.20 ms"),
        (0.0125, "12.5 ms"), (0.321, "321 ms"), (0.9, "900 ms"), (1, "1.00 s"), (1.24, "1.24 s"),
        (59.4, "59.4 s"), (59.6, "1 min 00 s"), (59.96, "1 min 00 s"), (60.0, "1 min 00 s"),
        (123, "2 min 03 s"), (3599, "59 min 59 s"), (3599.6, "1 h 00 min"),
        (3_725.0, "1 h 02 min"), (90_000, "25 h 00 min"), (-2, "-2.00 s"),
        (999.6e-6, "1.00 ms"), (0.9996, "1.00 s"), (float("inf"), "-"), (float("nan"), "-"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, expected: str) -> None:
    assert text.duration(seconds) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (None, "-"), (0, "0 B"), (512, "512 B"), (1023, "1023 B"), (1024, "1.00 KiB"),
        (1024**2 - 600, "1023 KiB"), (1024**2 - 103, "1.00 MiB"),
        (1024**2, "1.00 MiB"), (1024**2 * 1.5, "1.50 MiB"),
        (1024**3, "1.00 GiB"), (1024**4, "1.00 TiB"), (2 * 1024**4, "2.00 TiB"),
        (5_000 * 1024**4, "5000 TiB"), (-2048, "-2.00 KiB"),
        (float("inf"), "-"),
    ],
)  # fmt: skip
def test_sizes(amount: float | None, expected: str) -> None:
    assert text.size(amount) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567"),
        (2**53 + 1, "9,007,199,254,740,993"),
        (2.0, "2"), (0.5, "0.5"), (0.98765, "0.988"), (3.94, "3.94"), (99.96, "100"),
        (100.02, "100"), (999.94, "1,000"), (1000.6, "1,001"), (12345.678, "12,346"),
        (float("inf"), "inf"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, expected: str) -> None:
    assert text.number(value) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (None, "-"), (0, "0 %"), (0.004, "0.4 %"), (0.0096, "1.0 %"), (0.01, "1 %"),
        (0.1234, "12 %"), (0.998, "100 %"), (1.5, "150 %"), (-0.25, "-25 %"),
    ],
)  # fmt: skip
def test_shares(ratio: float | None, expected: str) -> None:
    assert text.percent(ratio) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"), [(None, "-"), (0, "+0.0 %"), (0.123, "+12.3 %"), (-0.4, "-40.0 %")]
)
def test_changes(ratio: float | None, expected: str) -> None:
    assert text.signed_percent(ratio) == expected


@pytest.mark.parametrize(
    ("amount", "noun", "expected"),
    [
        (1, "stage", "1 stage"), (1200, "stage", "1,200 stages"), (0, "item", "0 items"),
        (1, "retry", "1 retry"), (2, "retry", "2 retries"), (2, "batch", "2 batches"),
        (2, "context switch", "2 context switches"), (2, "", "2 "), (0.5, "core", "0.5 cores"),
    ],
)  # fmt: skip
def test_counts(amount: float, noun: str, expected: str) -> None:
    assert text.counted(amount, noun) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_lists(names: list[str], expected: str) -> None:
    assert text.listed(names) == expected


def test_a_table_aligns_its_columns_and_ends_no_line_in_blanks() -> None:
    found = text.table(("name", "n", ""), [("a", "1", ""), ("long name", "10", "x")], left=1)
    assert found == "name        n\na           1\nlong name  10  x"


def test_a_table_replaces_characters_that_steer_a_terminal() -> None:
    assert text.table(("x",), [("a\x1b[2Jb\nc",)], left=1) == "x\na\ufffd[2Jb\ufffdc"
