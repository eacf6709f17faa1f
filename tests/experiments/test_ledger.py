"""Who owes which pause: exact, with given times."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics._experiments.ledger import Ledger


def cell(began: float, parent: Any = None) -> list[Any]:
    """Return a call in progress without waits."""
    return [None, object(), began, None, parent, None, None, None]


def begin(ledger: Ledger, worker: int, at: float, *, target: bool, parent: Any = None) -> list[Any]:
    payer = ledger.came(worker, known=True, waited_until=0.0, now=at)
    made = cell(at, parent)
    ledger.begins(made, worker, payer, at, is_target=target)
    return made


def end(
    ledger: Ledger, worker: int, made: Any, at: float, *, target: bool, waited_until: float = 0.0
) -> None:
    payer = ledger.came(worker, known=True, waited_until=waited_until, now=at, in_target=target)
    ledger.ends(made, worker, payer, waited_until, at, is_target=target)


def test_others_owe_half_of_a_call() -> None:
    ledger = Ledger("faster", 10.0)
    other = begin(ledger, 2, 10.0, target=False)
    end(ledger, 1, begin(ledger, 1, 10.0, target=True), 10.4, target=True)
    assert ledger.owed(1) == 0.0
    assert ledger.owed(2) == pytest.approx(0.2)
    end(ledger, 2, other, 10.5, target=False)
    ledger.paid(2, 0.15, 10.65)
    assert ledger.owed(2) == pytest.approx(0.05)
    assert (ledger.total, ledger.invocations) == (pytest.approx(0.2), 1)
    assert ledger.paused_s == pytest.approx(0.15)


def test_calls_that_overlap_count_once() -> None:
    ledger = Ledger("faster", 0.0)
    first, second = (begin(ledger, n, 0.0, target=True) for n in (1, 2))
    end(ledger, 1, first, 1.0, target=True)
    end(ledger, 2, second, 1.0, target=True)
    assert ledger.total == pytest.approx(0.5)
    assert ledger.owed(1) == ledger.owed(2) == 0.0


def test_a_call_from_before_the_window_counts_from_its_beginning() -> None:
    ledger = Ledger("faster", 5.0)
    end(ledger, 1, cell(1.0), 6.0, target=True)
    assert ledger.total == pytest.approx(0.5)


def test_a_mark_counts_calls_in_progress() -> None:
    ledger = Ledger("faster", 0.0)
    made = begin(ledger, 1, 0.0, target=True)
    assert ledger.mark(1.0) == pytest.approx(0.5)
    end(ledger, 1, made, 1.5, target=True)
    assert ledger.total == pytest.approx(0.75)


def test_only_own_time_counts() -> None:
    """A stage inside, in the same task or another one, is not its time."""
    ledger = Ledger("faster", 0.0)
    outer = begin(ledger, 1, 0.0, target=True)
    inner = begin(ledger, 2, 0.2, target=False, parent=outer)
    end(ledger, 2, inner, 0.9, target=False)
    end(ledger, 1, outer, 1.0, target=True)
    assert ledger.total == pytest.approx(0.15)


def test_who_was_woken_by_one_that_has_fallen_back_pays_no_more() -> None:
    ledger = Ledger("faster", 0.0)
    waiting = begin(ledger, 2, 0.0, target=False)
    end(ledger, 2, waiting, 0.1, target=False)
    end(ledger, 1, begin(ledger, 1, 0.0, target=True), 1.0, target=True)
    # it waited for the other's result, at a wrapped queue
    ledger.came(2, known=True, waited_until=1.0, now=1.0)
    assert ledger.owed(2) == 0.0


def test_a_wait_lets_nobody_fall_back_by_more_than_it_took() -> None:
    ledger = Ledger("faster", 0.0)
    end(ledger, 2, begin(ledger, 2, 0.0, target=False), 0.9, target=False)
    end(ledger, 1, begin(ledger, 1, 0.0, target=True), 1.0, target=True)
    ledger.came(2, known=True, waited_until=1.0, now=1.0)
    assert ledger.owed(2) == pytest.approx(0.4)


def test_who_was_woken_by_one_that_owes_owes_the_same() -> None:
    ledger = Ledger("faster", 0.0)
    behind = begin(ledger, 2, 0.0, target=False)
    target = begin(ledger, 1, 0.0, target=True)
    end(ledger, 1, target, 1.0, target=True)
    # the target's worker waits for the one that has not paused yet
    end(ledger, 2, behind, 2.0, target=False)
    ledger.came(1, known=True, waited_until=0.0, now=2.0)
    assert ledger.owed(1) == ledger.owed(2) == pytest.approx(0.5)


def test_a_new_worker_is_as_far_as_the_one_that_made_it() -> None:
    ledger = Ledger("faster", 0.0)
    end(ledger, 1, begin(ledger, 1, 0.0, target=True), 1.0, target=True)
    ledger.came(7, known=False, waited_until=0.0, now=1.0)
    ledger.came(8, known=True, waited_until=0.0, now=1.5)
    assert ledger.owed(7) == 0.0
    assert ledger.owed(8) == pytest.approx(0.5)


def test_a_wait_for_a_lock_inside_of_a_call_is_not_its_time() -> None:
    """Two calls take turns at a lock: both count, one after the other."""
    ledger = Ledger("faster", 0.0)
    first, second = (begin(ledger, n, 0.0, target=True) for n in (1, 2))
    end(ledger, 1, first, 1.0, target=True)

    class Waited:
        idle, blocked = 0.0, 1.0

    second[3] = Waited()
    end(ledger, 2, second, 2.0, target=True, waited_until=1.0)
    assert ledger.total == pytest.approx(1.0)


def test_a_slower_stage_pays_itself() -> None:
    ledger = Ledger("slower", 0.0, 0.3)
    other = begin(ledger, 2, 0.0, target=False)
    made = begin(ledger, 1, 0.0, target=True)
    assert ledger.owed(1) == pytest.approx(0.3)
    assert ledger.owed(2) == 0.0
    ledger.paid(1, 0.3, 0.3)
    assert (ledger.owed(1), ledger.total) == (0.0, pytest.approx(0.3))
    end(ledger, 1, made, 1.0, target=True)
    end(ledger, 2, other, 1.0, target=False)


def test_nobody_owes_in_a_run_as_it_is() -> None:
    ledger = Ledger("as it is", 0.0)
    end(ledger, 1, begin(ledger, 1, 0.0, target=True), 1.0, target=True)
    begin(ledger, 2, 1.0, target=False)
    assert ledger.owed(1) == ledger.owed(2) == ledger.owed(3) == 0.0
