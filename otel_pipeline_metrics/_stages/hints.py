"""Warn once of what is allowed where stages are defined, and is hardly ever meant."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.stage_id import StageId

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import RunScope

KINDS: Final = ("fetch", "process", "write")

# On a wrapper: its `StageId`. `functools.wraps` of a decorator around it copies the mark.
_MARK: Final = "__opm_stage__"


def check_kind(kind: str) -> None:
    """Warn of a kind that is nearly one of the three: it would be another word on metrics."""
    given = kind.strip().lower()
    for word in KINDS if kind not in KINDS else ():
        if _is_near(given, word):
            errors.warn_once(
                f"kind {kind}",
                "the kind %r of a stage is not %r; a kind of your own is allowed, but this one "
                "looks like a slip",
                kind,
                word,
            )


def _is_near(given: str, word: str) -> bool:
    """Tell whether one letter is missing, extra, wrong or swapped; two in a long word."""
    left, right = list(given), list(word)
    while left and right and left[-1] == right[-1]:
        del left[-1], right[-1]
    while left and right and left[0] == right[0]:
        del left[0], right[0]
    wrong = max(len(left), len(right))
    return wrong <= 1 or (wrong == 2 and (len(word) > 6 or left == right[::-1]))


def check_decorated_once(function: Any, stage: StageId) -> None:
    """Warn of a function that is a stage already: each call would count in both.

    A stage around a decorated function of another name is fine if there is something in between,
    such as retries: the inner one measures attempts then, the outer one the whole.
    """
    before = stage_of(function)
    if before is None:
        return
    while isinstance(function, functools.partial):
        function = function.func
    directly = getattr(getattr(function, "__wrapped__", None), _MARK, None) is not before
    if directly or before.identity == stage.identity:
        errors.warn_once(
            f"decorated twice {stage.name}",
            "the function of stage %r is decorated twice, as %r before: each call counts twice",
            stage.name,
            before.name,
        )


def stage_of(function: Any) -> StageId | None:
    """Return the stage that a decorated function is, also inside a `partial`."""
    while (found := getattr(function, _MARK, None)) is None and isinstance(
        function, functools.partial
    ):
        function = function.func
    return found if isinstance(found, StageId) else None


def mark(wrapper: Any, stage: StageId) -> None:
    """Remember on a wrapper which stage it measures."""
    setattr(wrapper, _MARK, stage)


def check_names_differ(scope: RunScope) -> None:
    """Warn of functions of one name that a run called: the stage named after them is their sum.

    Functions that were given one name on purpose have names of their own.
    """
    for variants in [times.variants for times in list(scope.times.values()) if times.variants]:
        name = variants[0].stage.name
        called = {each.stage.code for each in list(variants)} - {None}
        named = sorted(
            code.function for code in called if code and code.function.rpartition(".")[2] == name
        )
        if len(named) > 1:
            errors.warn_once(
                f"functions named {name}",
                "%d functions are the stage %r, whose numbers are their sum: %s; a name for each, "
                "as in @stage(%r), keeps them apart",
                len(named),
                name,
                ", ".join(named[:5]),
                f"{name} 2",
            )
