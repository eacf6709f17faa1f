"""Test the decorator on every kind of method."""

from __future__ import annotations

import abc
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import fetch, stage
from tests.stages.support import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Results


class Methods:
    """Every kind of method, decorated."""

    name = "it"

    @stage
    def method(self) -> str:
        return self.name

    @stage("renamed")
    async def coroutine(self) -> str:
        return self.name

    @stage
    def generator(self) -> Iterator[str]:
        yield self.name

    @stage
    async def async_generator(self) -> AsyncIterator[str]:
        yield self.name

    @classmethod
    @stage
    def class_inside(cls) -> str:
        return cls.name

    @stage
    @classmethod
    def class_outside(cls) -> str:
        return cls.name

    @staticmethod
    @stage
    def static_inside(name: str) -> str:
        return name

    @stage
    @staticmethod
    def static_outside(name: str) -> str:
        return name

    @stage
    @classmethod
    async def class_coroutine(cls) -> str:
        return cls.name

    @fetch("class generator")
    @classmethod
    def class_generator(cls) -> Iterator[str]:
        yield cls.name


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("method", (), "method"),
        ("coroutine", (), "renamed"),
        ("generator", (), "generator"),
        ("async_generator", (), "async_generator"),
        ("class_inside", (), "class_inside"),
        ("class_outside", (), "class_outside"),
        ("static_inside", ("it",), "static_inside"),
        ("static_outside", ("it",), "static_outside"),
        ("class_coroutine", (), "class_coroutine"),
        ("class_generator", (), "class generator"),
    ],
)
def test_methods(method: str, arguments: tuple[Any, ...], name: str, results: Results) -> None:
    assert call(getattr(Methods(), method), *arguments) == "it"
    assert len(results.durations(name)) == 1
    if "class" in method or "static" in method:
        assert call(getattr(Methods, method), *arguments) == "it"
        assert len(results.durations(name)) == 2


def test_class_and_static_methods_keep_their_type() -> None:
    assert isinstance(inspect.getattr_static(Methods, "class_outside"), classmethod)
    assert isinstance(inspect.getattr_static(Methods, "static_outside"), staticmethod)


def test_a_bound_method(results: Results) -> None:
    assert stage(Methods.method.__wrapped__.__get__(Methods()))() == "it"
    assert len(results.durations("method")) == 1


def test_an_inherited_and_overridden_method(results: Results) -> None:
    class Child(Methods):
        @stage("child")
        def method(self) -> str:
            return super().method() + "!"

    assert Child().method() == "it!"
    assert len(results.durations("child")) == 1
    assert len(results.durations("method")) == 1


def test_an_abstract_method_stays_abstract() -> None:
    class Base(abc.ABC):
        @stage
        @abc.abstractmethod
        def load(self) -> int:
            """Load."""

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
