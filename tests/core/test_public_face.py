"""Test what `dir()` and `help()` show of the package."""

from __future__ import annotations

import inspect
import pydoc

import pytest

import otel_pipeline_metrics as opm

FUNCTIONS = [name for name in opm.__all__ if inspect.isfunction(getattr(opm, name))]


def test_dir_lists_what_is_public_and_nothing_else() -> None:
    assert dir(opm) == sorted(opm.__all__)
    assert all(hasattr(opm, name) for name in dir(opm))


def test_there_are_functions_to_look_at() -> None:
    assert {"stage", "fetch", "run", "configure", "wrap_queue"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_shows_its_types(name: str) -> None:
    """An overload's implementation is what `help()` shows, so it has types too."""
    signature = inspect.signature(getattr(opm, name))
    shown = {p.name: p.annotation for p in signature.parameters.values()}
    shown["return"] = signature.return_annotation
    assert not [where for where, kind in shown.items() if kind in ("Any", inspect.Parameter.empty)]


@pytest.mark.parametrize("name", ["stage", "fetch", "run", "configure", "RunReport", "Stage"])
def test_help_shows_signature_and_words(name: str) -> None:
    shown = pydoc.plain(pydoc.render_doc(getattr(opm, name)))
    assert f"{name}(" in shown
    assert "_core" not in shown.splitlines()[0]
    assert len(shown.splitlines()) > 5
