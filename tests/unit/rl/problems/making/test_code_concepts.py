"""Concepts are what a known solution is made of and what a problem is tagged with."""

from __future__ import annotations

import pytest

from rl.problems.making.code_concepts import concepts_of
from rl.problems.making.concepts import Concept

pytestmark = pytest.mark.unit


def found(code: str) -> set[tuple[str, str]]:
    return set(concepts_of({"solution": code}))


def test_calls_are_those_of_builtins_modules_and_methods_and_not_of_own_functions() -> None:
    code = (
        "import math as m, os.path\nfrom collections import Counter\n"
        "def sum(xs): return helper(xs)\n"
        "def f(xs): return m.gcd(*sorted(xs)), Counter(xs), ''.join(xs), sum(xs), xs.foo(), g(1)"
    )
    calls = {name for kind, name in found(code) if kind == "call"}
    assert calls == {"math.gcd()", "sorted()", "collections.Counter()", "the method join()"}


@pytest.mark.parametrize(
    ("body", "concept"),
    [
        ("for x in xs:\n        pass", ("control", "a for loop")),
        ("for x in xs:\n        while x:\n            x -= 1", ("control", "nested loops")),
        ("return f(xs[1:])", ("control", "recursion")),
        ("return f(xs[1:])", ("data", "slices")),
        ("return [x for x in xs]", ("data", "a list comprehension")),
        ("return {x: 1 for x in xs}", ("data", "a dictionary comprehension")),
        ("return 1 if xs else 2", ("control", "conditions")),
        ("yield xs", ("control", "a generator")),
        ("return (xs, 1)", ("data", "tuples")),
        ("return xs // 2", ("operator", "integer division")),
        ("xs ^= 1", ("operator", "bits")),
    ],
)
def test_statements_data_and_operators_are_concepts(body: str, concept: tuple[str, str]) -> None:
    assert concept in found(f"def f(xs):\n    {body}\n")


def test_what_is_not_there_is_no_concept() -> None:
    assert found("def f(xs):\n    return xs") == set()
    kinds = {kind for kind, _ in found("def f(xs):\n    for a, b in xs:\n        g(a)")}
    assert kinds == {"control"}  # a target is no tuple, and one loop is not nested
    assert ("control", "recursion") not in found("def f(x): return g(x)\ndef g(x): return x")


@pytest.mark.parametrize("solution", ["def f(:", "", None, 3, "(" * 1000, "x\0"])
def test_a_solution_that_is_no_program_has_none(solution: object) -> None:
    assert concepts_of({"solution": solution}) == frozenset()


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["Greedy", " dp "], {"greedy", "dp"}),
        ("['Greedy', 'dp']", {"greedy", "dp"}),  # as TACO has them
        ("greedy", {"greedy"}),
        ("[" * 500, {"[" * 500}),
        ([1, None, ""], set()),
        (7, set()),
        (None, set()),
    ],
)
def test_tags_are_concepts_in_lists_and_in_texts_of_lists(tags: object, names: set[str]) -> None:
    assert concepts_of({"tags": tags}) == {Concept("tag", name) for name in names}
    assert concepts_of({"cf_tags": tags}) == concepts_of({"skill_types": tags})
