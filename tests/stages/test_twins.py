"""Test that the hot path, written out twice, is the same in both wrappers."""

from __future__ import annotations

import ast
import inspect

from otel_pipeline_metrics._stages import generators, wrappers


class Plainly(ast.NodeTransformer):
    """Removes `async` and `await` from a syntax tree."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        plain = ast.FunctionDef(**{name: getattr(node, name, None) for name in node._fields})
        return self.generic_visit(ast.copy_location(plain, node))

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)


def test_both_wrappers_have_the_same_code() -> None:
    """Except for `async` and `await`, the types and the name of the maker.

    And for driving a sample, and for a result of a plain function that is still to come.
    """

    def body(maker: object) -> list[str]:
        (module,) = [ast.parse(inspect.getsource(maker))]  # type: ignore[arg-type]
        (made,) = Plainly().visit(module).body
        return [ast.unparse(statement) for statement in made.body]

    ours, theirs = body(wrappers._function), body(wrappers._coroutine)
    driving = (
        "            awaited = function(*args, **kwargs)\n"
        "            if token is None and cell[6] is not None:\n"
        "                awaited = internals.sampling.driven(cell, awaited)\n"
        "            returned = awaited\n"
    )
    assert sum(each.count(driving) for each in theirs) == 1
    plain = "            returned = function(*args, **kwargs)\n"
    at_once = (
        "            internals.invocation.end(cell, None, items, returned)\n"
        "            return returned\n"
    )
    later = (
        "            return internals.later.end(cell, items, returned)\n"
        "        if returned is not None and type(returned) is not series.returned and "
        "internals.later.is_later(series, returned):\n"
        "            return internals.later.end(cell, items, returned)\n"
    )
    assert sum(each.count(later) for each in ours) == 1
    assert [each.replace(later, at_once) for each in ours] == [
        each.replace(driving, plain) for each in theirs
    ]


def test_both_wrappers_of_generators_measure_a_step_with_the_same_code() -> None:
    """Between the steps each does what its kind of generator needs."""

    def of_a_step(maker: object) -> list[str]:
        (module,) = [ast.parse(inspect.getsource(maker))]  # type: ignore[arg-type]
        found = [node for node in ast.walk(Plainly().visit(module)) if isinstance(node, ast.While)]
        (loop,) = found
        begins, _, pauses, *counts, _ = loop.body
        return [ast.unparse(statement) for statement in (begins, pauses, *counts)]

    ours = of_a_step(generators.generator_wrapper)
    assert ours == of_a_step(generators.async_generator_wrapper)
    assert len(ours) == 4
