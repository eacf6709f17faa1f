"""Test functions that are decorated with `run`: each call is a run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import types
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import privacy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lifecycle.configure.support import Captured


@opm.process
def work(n: int) -> int:
    return n + 1


@opm.run("of a module", resources=False)
def of_a_module(n: int) -> int:
    """Add one."""
    return work(n)


def reports(folder: Path) -> list[opm.RunReport]:
    return [opm.RunReport.load(path) for path in sorted(folder.iterdir())]


def test_each_call_is_a_run(tmp_path: Path) -> None:
    @opm.run("nightly", report=tmp_path / "{run_id}", resources=False)
    def main(n: int, *, more: int = 0) -> int:
        return work(n) + more

    assert (main(1), main(2, more=5)) == (2, 8)
    assert list(tmp_path.iterdir())
    found = reports(tmp_path)
    assert [report.run["pipeline"] for report in found] == ["nightly"] * 2
    assert len({report.run["id"] for report in found}) == 2
    assert [report.stages[0]["count"] for report in found] == [1, 1]


async def test_a_coroutine_function(tmp_path: Path) -> None:
    @opm.run("nightly", report=tmp_path / "{run_id}", resources=False)
    async def main(n: int) -> int:
        await asyncio.sleep(0)
        return work(n)

    assert inspect.iscoroutinefunction(main)
    assert await asyncio.gather(main(1), main(2)) == [2, 3]
    # each knows its own calls, though both were in progress at once
    assert [report.stages[0]["count"] for report in reports(tmp_path)] == [1, 1]


async def test_other_things_that_are_called(captured: Captured) -> None:
    class Job:
        async def __call__(self) -> str:
            return "called"

        @opm.run("method", resources=False)
        def method(self) -> str:
            return "method"

        @opm.run("class", resources=False)
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @opm.run("static", resources=False)
        @staticmethod
        def static() -> str:
            return "static"

    @types.coroutine
    def old() -> Any:
        yield from asyncio.sleep(0).__await__()
        return "old"

    captured.configure(console=False)
    decorate = opm.run("other", resources=False)
    assert await decorate(functools.partial(Job()))() == "called"
    assert await decorate(old)() == "old"
    assert (Job().method(), Job.of_class(), Job.static()) == ("method", "Job", "static")
    assert captured.span_names() == [
        "run other",
        "run other",
        "run method",
        "run class",
        "run static",
    ]


@pytest.mark.parametrize(
    ("error", "result"), [(KeyError(1), "failure"), (KeyboardInterrupt(), "cancellation")]
)
def test_what_it_raises_is_the_run_s_result(
    tmp_path: Path, error: BaseException, result: str
) -> None:
    @opm.run("nightly", report=tmp_path / "r", resources=False)
    def main() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        main()
    assert raised.value is error
    assert reports(tmp_path)[0].run["result"] == result


def test_a_run_inside_of_itself(tmp_path: Path) -> None:
    @opm.run("deep", report=tmp_path / "{run_id}", resources=False)
    def main(n: int) -> int:
        return main(n - 1) + 1 if n else 0

    assert main(2) == 2
    assert len(reports(tmp_path)) == 3


def test_it_looks_like_the_function_and_can_be_pickled() -> None:
    assert (of_a_module.__name__, of_a_module.__doc__) == ("of_a_module", "Add one.")
    assert str(inspect.signature(of_a_module)) == "(n: 'int') -> 'int'"
    assert pickle.loads(pickle.dumps(of_a_module)) is of_a_module  # noqa: S301 - our own

    @opm.run("by value", resources=False)
    def by_value() -> int:
        return 3

    assert pickle.loads(cloudpickle.dumps(by_value))() == 3  # noqa: S301 - our own


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (int, "a run decorates a function"),
        (3, "a run decorates a function"),
        (generator, "decorates no generator"),
        (functools.partial(async_generator), "decorates no generator"),
    ],
)
def test_what_cannot_be_decorated(wrong: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        opm.run("r")(wrong)


def test_a_name_is_needed() -> None:
    with pytest.raises(TypeError, match="name must be a string, not function"):
        opm.run(generator)  # type: ignore[arg-type]


def test_forbidden_keys_are_refused_where_it_is_defined_and_never_in_a_call(
    captured: Captured,
) -> None:
    def decorated() -> Callable[[], int]:
        return opm.run("r", attributes={"shard": 1, "user.email": "x"}, resources=False)(lambda: 1)

    captured.configure(console=False)
    main = decorated()
    with pytest.raises(ValueError, match=r"run 'r'.* 'user\.email'"):
        captured.configure(strict=True, console=False)
    captured.configure(strict=True, console=False)
    with pytest.raises(ValueError, match=r"the key 'user\.email' is forbidden"):
        decorated()
    assert main() == 1
    assert privacy.rules().strict
    (span,) = captured.spans()
    assert (span.attributes or {})["shard"] == 1
    assert "user.email" not in (span.attributes or {})
