"""A writer is asked with known problems, and an answer is read as data or not at all."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from rl.problems.making.concepts import Concept
from rl.problems.making.filters import Input
from rl.problems.making.writing import (
    Parent,
    Written,
    plan_problems,
    read_problem,
    read_signature,
    signature_of,
)

pytestmark = pytest.mark.unit

LOOP, SORTED, SLICES = (
    Concept("control", "a for loop"),
    Concept("call", "sorted()"),
    Concept("data", "slices"),
)
STATEMENT = "Return the largest number of xs that k divides."


def parent(name: str, *concepts: Concept, stdio: bool = False) -> Parent:
    return Parent(
        id=name,
        statement=f"The statement of {name}.",
        signature=None if stdio else f"{name}(xs)",
        inputs=("'1 2'",) if stdio else tuple(f"{name}([{n}])" for n in range(5)),
        concepts=frozenset(concepts),
    )


PARENTS = [
    *(parent(f"a{n}", LOOP, SORTED) for n in range(8)),
    parent("b", SLICES),
]


def answer(inputs: str, function: str = "f(xs, k)", statement: str = STATEMENT) -> str:
    return f"Problem: {statement}\nFunction: {function}\nInputs:\n{inputs}"


def inputs_of(text: str, num_inputs: int = 2) -> tuple[Input, ...]:
    found = read_problem(text, num_inputs)
    assert isinstance(found, Written), found
    return found.inputs


# ---------------------------------------------------------------- what is asked


def test_plans_walk_over_concepts_and_show_problems_that_have_them() -> None:
    plans = plan_problems(PARENTS, 2000, 2, 0)
    assert plans == plan_problems(PARENTS, 2000, 2, 0) != plan_problems(PARENTS, 2000, 2, 1)
    assert plan_problems(PARENTS, 20, 2, 0) == plans[:20]
    assert len({plan.id for plan in plans}) == 2000
    for plan in plans:
        assert 1 <= len(plan.parents) <= len(plan.concepts) == 2
        held = {concept.name for parent in plan.parents for concept in parent.concepts}
        assert set(plan.concepts) <= held
    after = Counter(plan.concepts[1] for plan in plans if plan.concepts[0] == LOOP.name)
    assert after[SORTED.name] > 5 * after[SLICES.name] > 0  # 9 to 1


def test_a_request_has_the_parents_as_earlier_answers_in_their_form() -> None:
    (plan,) = plan_problems([parent("a", LOOP, SORTED)], 1, 2, 0)
    first, example, last = plan.request(6).messages
    assert [first.role, example.role, last.role] == ["user", "assistant", "user"]
    for asked, num in ((first.content, 5), (last.content, 6)):
        assert "a for loop" in asked and "sorted()" in asked
        assert "`Function:`" in asked and f"{num} different calls" in asked
    assert example.content.startswith(
        "Problem: The statement of a.\nFunction: a(xs)\nInputs:\na([0])"
    )
    assert last.content.endswith("Repeat none of the problems above.")
    (plan,) = plan_problems([parent("a", LOOP, stdio=True)], 1, 2, 0)
    _, example, last = plan.request(6).messages
    assert "standard input" in last.content and "`Function:`" not in last.content
    assert example.content == "Problem: The statement of a.\nInputs:\n'1 2'"


def test_examples_have_one_form() -> None:
    mixed = [parent("a", LOOP), parent("b", SORTED, stdio=True)]
    for plan in plan_problems(mixed, 20, 2, 0):
        assert len({one.signature is None for one in plan.parents}) == 1


def test_what_a_writer_is_shown_can_be_read_as_its_answer() -> None:
    for one in (parent("aaa", LOOP), parent("bbb", LOOP, stdio=True)):
        found = read_problem(one.text, 1)
        assert isinstance(found, Written)
        assert (found.statement, found.signature) == (one.statement, one.signature)


def test_a_signature_is_that_of_the_solution_or_one_of_ours() -> None:
    assert signature_of("import x\ndef f(a, *, b = [1]):\n  pass", "f", 1) == "f(a, *, b=[1])"
    for solution in ("def g(a): pass", "def f(:", None):
        assert signature_of(solution, "f", 3) == "f(a, b, c)"


# ---------------------------------------------------------------- what is answered


def test_a_problem_becomes_a_row_without_tests() -> None:
    (plan,) = plan_problems(PARENTS, 1, 2, 7)
    found = read_problem(answer("f([1], 2)\nf([3], 4)"), 2)
    assert isinstance(found, Written)
    candidate = found.candidate(plan)
    prompt = candidate.prompt
    assert (prompt.id, prompt.tests, prompt.source) == ("synthetic-7-0", None, "synthetic")
    assert prompt.entry_point == "f"
    assert STATEMENT in prompt.question and "def f(xs, k):" in prompt.question
    meta = json.loads(prompt.meta)
    assert meta == {"concepts": list(plan.concepts), "parents": [p.id for p in plan.parents]}
    assert candidate.inputs == (([1], 2), ([3], 4))
    found = read_problem(f"Problem: {STATEMENT}\nInputs:\n'1\\n2'\n\"3\"", 2)
    assert isinstance(found, Written)
    candidate = found.candidate(plan)
    assert candidate.prompt.entry_point is None and "standard input" in candidate.prompt.question
    assert candidate.inputs == ("1\n2", "3")


@pytest.mark.parametrize(
    "text",
    [
        f"Sure!\n\n**Problem:** {STATEMENT}\n\n**Function:** `f(xs, k)`\n\n**Inputs:**\n"
        "- `f([1], 2)`\n- `f((2,), {3})`",
        f"### Problem: {STATEMENT}\r\n### Function: def f(xs, k):\r\n### Inputs:\r\n```python\r\n"
        "1. f([1], 2)\r\n2. f((2,), {3})\r\n```\r\nDone.",
        "Problem: a first thought, which is dropped.\nInputs:\n'x'\n"
        + answer("f([1], 2)\nf((2,), {3})"),
    ],
)
def test_layout_does_not_matter_and_the_last_problem_counts(text: str) -> None:
    found = read_problem(text, 2)
    assert isinstance(found, Written)
    assert found.statement == STATEMENT and found.signature == "f(xs, k)"
    assert found.inputs == (([1], 2), ((2,), {3}))  # tuples and sets stay what they are


def test_nothing_of_an_earlier_problem_is_part_of_the_last() -> None:
    text = answer("f([1], 2)\nf([3], 4)") + f"\n\nProblem: {STATEMENT}\nInputs:\n'1'\n'2'"
    found = read_problem(text, 2)
    assert isinstance(found, Written)
    assert found.signature is None and found.inputs == ("1", "2")


def test_a_long_line_is_no_input() -> None:
    assert inputs_of(answer(f"f('{'a' * 1000}', 2)\nf('{'a' * 900}', 2)")) == (("a" * 900, 2),)


def test_only_literals_are_inputs_and_each_counts_once() -> None:
    lines = [
        "f([1], 2)",
        "f([1],2)  # again",
        "f(open('x').read(), 2)",
        "f([1] * 9, 2)",
        "f(xs, 2)",
        "f(*[1], 2)",
        "f([1], k=2)",
        "g([1], 2)",
        "f(1e999, 2)",  # infinity is no literal
        "__import__('os').system('true')",
        "f(f([1], 2), 2)",
        "f([3], 4); f([5], 6)",
        "f([7], 8)",
    ]
    assert inputs_of(answer("\n".join(lines))) == (([1], 2), ([7], 8))


def test_half_of_the_inputs_are_enough_and_no_more_are_kept_than_were_asked_for() -> None:
    calls = [f"f([{n}], 1)" for n in range(9)]
    assert read_problem(answer("\n".join(calls[:3])), 8) == "no_inputs"
    assert len(inputs_of(answer("\n".join(calls[:4])), 8)) == 4
    assert len(inputs_of(answer("\n".join(calls)), 8)) == 8


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no_statement"),
        ("I cannot do that.", "no_statement"),
        (STATEMENT, "no_statement"),
        (answer("f([1], 2)\nf([3], 4)", statement="Sort."), "no_statement"),
        (answer("f([1], 2)\nf([3], 4)", statement="word " * 1000), "no_statement"),
        (answer("f([1], 2)\nf([3], 4)", statement=f"{STATEMENT} \ud800"), "no_statement"),
        (
            answer("f([1], 2)", statement=f"{STATEMENT}\ndef f(xs, k):\n    return 0"),
            "no_statement",
        ),
        (answer("f([1], 2)", function="the largest"), "no_function"),
        (answer("f([1], 2)", function="class(xs)"), "no_function"),
        (answer("f([1], 2)", function="f(xs): import os; x"), "no_function"),
        (answer("f([1], 2)", function="f(xs=" + "-" * 900 + "1)"), "no_function"),
        (f"Problem: {STATEMENT}\nFunction: f(xs, k)", "no_inputs"),
        (answer("1, 2\n3, 4"), "no_inputs"),
        (f"Problem: {STATEMENT}\nInputs:\n'\\ud800'\n'\\x00'\n12\nb'1'", "no_inputs"),
    ],
)
def test_what_is_no_problem_says_what_it_lacks(text: str, fault: str) -> None:
    assert read_problem(text, 2) == fault


@pytest.mark.parametrize(
    "line",
    [
        "f(" + "[" * 150 + "]" * 150 + ")",
        "f(" + "-" * 900 + "1)",
        "f(" + "(" * 90 + "1" + ",)" * 90 + ")",
        "f(" + "{1:" * 90 + "1" + "}" * 90 + ")",
        "f(" + "9" * 900 + ")",
        "f(" + "'a' " * 200 + ")",
        "f(" + "1+1j+" * 150 + "1)",
        "f" + "()" * 400,
        "f(" + "[" * 10**6,
        "f(" + "'" + "a" * 10**6 + "')",
    ],
)
def test_a_hostile_answer_costs_little_and_raises_nothing(line: str) -> None:
    start_s = time.thread_time()
    read_problem(answer("\n".join([line] * 200), "f(x)"), 2)
    read_problem(answer("f(1)\nf(2)", f"f(x={line})"), 2)
    read_problem("Problem: " * 10**5 + line, 2)
    read_problem("\n#*> " * 10**5 + line, 2)
    assert time.thread_time() - start_s < 2.0


def test_signatures_are_those_of_functions() -> None:
    assert (
        read_signature("`def add(xs: list[int], k=2) -> int:`\nmore") == "add(xs: list[int], k=2)"
    )
    for text in ("", "f", "f(", "f(1)", "async f(x)", "lambda x: x", "f(x)(y)"):
        assert read_signature(text) is None
